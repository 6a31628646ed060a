"""The benchmarks run, their port agrees with the network, and the comparison finds what got slower."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import harness
from benchmarks.speed.growth import predict
from benchmarks.speed.inference import inference_table
from benchmarks.speed.profile import PARTS, names_of, part_of, profile_table, seconds_by_part
from benchmarks.speed.programs.training import PROGRAMS, answer
from benchmarks.speed.step import clone, step_table
from benchmarks.speed.suite import worse

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"


@pytest.mark.slow
def test_the_port_computes_our_loss_and_gradients():
    pytest.importorskip("torch", reason="the PyTorch port needs torch: pip install -e .[bench]")
    from benchmarks.speed.step import TOLERANCE, agreement

    authors = os.environ.get("DEEPNMF_AUTHORS", "")
    found = agreement(clone(Path(authors)) if authors else "")
    assert set(found) == {"port", *(["authors"] if authors else [])}
    assert all(peer[layer] < TOLERANCE[layer] for peer in found.values() for layer in ("nmf", "conv")), found


def test_a_folder_without_the_authors_code_is_a_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"holds no tools/make_network.py; git clone https://\S+ and give that folder"):
        clone(tmp_path)


def test_the_port_reads_weights_in_its_own_order():
    pytest.importorskip("torch", reason="the PyTorch port needs torch: pip install -e .[bench]")
    import numpy as np
    import torch
    import torch.nn.functional as F

    from benchmarks.speed.programs.torch_port import to_torch_order
    from deepnmf_jax.core.patches import extract_patches

    rng = np.random.default_rng(0)
    images, rows = rng.random((2, 6, 6, 3)), rng.random((4, 27))
    ours = np.asarray(extract_patches(images, (3, 3))).reshape(2, 16, 27) @ rows.T
    patches = F.unfold(torch.tensor(images).permute(0, 3, 1, 2), 3).transpose(1, 2).numpy()
    np.testing.assert_allclose(patches @ to_torch_order(rows, 3).T, ours, rtol=1e-12)


def test_turns_go_backwards_in_every_second_process(monkeypatch):
    started, turns = [], []

    class Worker:
        def __init__(self, spec, *_):
            self.name, self.process = spec["name"], len(started) // 2
            started.append(self.name)

        def seconds(self):
            turns.append(self.name)
            return float(self.process)

        def stop(self):
            stopped.append(self.name)

    stopped = []
    monkeypatch.setattr(harness, "Worker", Worker)
    found = harness.interleave({"a": {"name": "a"}, "b": {"name": "b"}}, rounds=2, processes=3)
    assert found == {"a": [0, 0, 1, 1, 2, 2], "b": [0, 0, 1, 1, 2, 2]}
    assert "".join(turns) == "abab" + "baba" + "abab"
    assert started == stopped == ["a", "b"] * 3


def test_programs_of_one_process_take_turns_and_one_that_fails_is_left_out_or_ends_all():
    order, late = [], iter([2.0])
    programs = {"a": lambda: order.append("a") or 1.0, "b": lambda: next(late), "c": lambda: order.append("c") or 3.0}
    failed = {}
    samples = harness.in_turns(programs, 2, failed)
    assert samples == {"a": [1.0, 1.0], "c": [3.0, 3.0]} and failed == {"b": "StopIteration:"}
    assert order == ["a", "c", "a", "c"]
    assert harness.short(ValueError("a\n  b")) == "ValueError: a b"
    with pytest.raises(StopIteration):
        harness.in_turns(programs, 2)


def test_a_process_of_several_programs_says_what_fails(monkeypatch):
    runs = []
    monkeypatch.setitem(PROGRAMS, "count", lambda step: lambda: runs.append(step))
    programs = {}
    spec = {"program": "count", "step": 2}
    assert answer({"do": "build", "name": "a", "limit": 9, "spec": spec}, programs) == "ready"
    assert float(answer({"do": "run", "name": "a"}, programs)) >= 0 and runs == [2] * 4
    assert answer({"do": "clear"}, programs) == "ready" and not programs
    with pytest.raises(KeyError):
        answer({"do": "run", "name": "a"}, programs)


def test_where_numbers_are_from_is_told_of_old_and_new_records():
    old = {"device": "cpu", "cpu": "AMD", "cores": 2, "python": "3", "jax": "0", "commit": "abc+changes"}
    assert harness.provenance("speed.x", old).endswith("; AMD, 2 cores, Python 3, jax 0; commit abc with changes")
    new = {
        "device": "GPU",
        "cpu": "AMD",
        "cpu_count": 2,
        "versions": {"python": "3", "jax": "0"},
        "commit": "0123456789",
    }
    line = harness.provenance("gpu.x", new | {"date": "2026-01-01T00:00:00"})
    assert line == "`python -m benchmarks.gpu.x`; GPU, Python 3, jax 0; commit 0123456; 2026-01-01"


def test_comparison_names_what_got_worse_and_only_that():
    old = {"port / ours": 2.0, "memory, block 1": 1.0, "ours / our CNN": 4.0, "gone": 1.0, "port / ours, 4 power": 5.0}
    new = {"port / ours": 1.5, "memory, block 1": 1.5, "ours / our CNN": 3.0}
    assert [line.split(":")[0] for line in worse(old, new)] == ["port / ours", "memory, block 1", "gone"]
    assert worse(new, {k: v * 1.05 for k, v in new.items()}) == []
    assert worse(old, old) == []


def test_predicted_operations_are_those_of_the_papers_network():
    operations, size = predict(1, 28, {})
    # 20 pairs are 380.7 million; half a pair of them is saved. Backward a tenth, and the 1x1 convolutions.
    mixing = 6 * (576 * 32**2 + 64 * 64**2 + 96**2 + 10**2)
    assert operations == pytest.approx(380.7e6 * (39 + 4) / 40 + mixing, rel=1e-3)
    assert size == 4 * (576 * 107 + 64 * 864 + 1120 + 106)


INFER = "block1/nmf/nmf.activity/nmf._infer/jit(infer_unchecked)"
NAMES = {
    f"jit(train_step)/jvp(Network)/{INFER}/while/body/closed_call/dot_general": "iterations: products",
    f"jit(train_step)/jvp(Network)/{INFER}/while/body/closed_call/div": "iterations: the rest",
    f"jit(train_step)/jvp(Network)/{INFER}/while/body/closed_call/row_sums/dot_general": "iterations: the rest",
    f"jit(train_step)/jvp(Network)/{INFER}/row_sums/dot_general": "inference outside the loop",
    f"jit(train_step)/transpose(jvp(Network))/{INFER}/mul": "gradient of the inference",
    "jit(train_step)/jvp(Network)/block1/nmf/nmf.activity/reduce_sum": "sum 1 of patches",
    "jit(train_step)/transpose(jvp(Network))/block1/nmf/nmf.activity/...n,...n->.../dot_general": "sum 1 of patches",
    "jit(train_step)/jvp(Network)/block1/conv/row_sums/dot_general": "sum 1 of patches",
    "jit(train_step)/jvp(Network)/block1/conv/dot_general": "convolution",
    "jit(train_step)/jvp(Network)/block1/mix/row_sums/dot_general": "1x1",
    "jit(train_step)/jvp(Network)/block1/nmf/concatenate": "patches",
    "jit(train_step)/transpose(jvp(Network))/block2/nmf/pad": "patches",
    "jit(train_step)/jvp(Network)/block1/mix/div": "1x1",
    "jit(train_step)/jvp(Network)/block1/block1._normalize/bn_b/BatchNorm_0/sub": "batch norm",
    "jit(train_step)/sqrt": "loss, Adam, others",
}


@pytest.mark.parametrize("name", NAMES)
def test_operations_belong_to_what_they_are_part_of(name):
    assert part_of(name) == NAMES[name]


def test_times_of_a_trace_are_summed_by_part():
    program = """
      %a.1 = f32[2]{0} add(%x, %y), metadata={op_name="jit(train_step)/jvp(Network)/block1/mix/div" id=3}
      %c = f32[2]{0} add(%x, %y), metadata={op_name="jit(train_step)/transpose(jvp(Network))/block1/mix/div"}
      ROOT %b = f32[2]{0} dot(%x, %y), metadata={op_name="jit(train_step)/sqrt"}
      %while.3 = f32[2]{0} while(%x), metadata={op_name="jit(train_step)/jvp(Network)/block1/mix/while"}
    """
    names = names_of(program)
    assert set(names) == {"a.1", "b", "c"}
    events = [{"ph": "X", "name": name, "dur": 1000.0} for name in ("a.1", "a.1", "b", "c", "while.3")]
    assert seconds_by_part({"traceEvents": [*events, {"ph": "M", "name": "b"}]}, names) == {
        "1x1": 0.003,
        "loss, Adam, others": 0.001,
        "of it the backward": 0.001,
    }


def test_a_table_has_the_programs_that_still_are():
    samples = {"port": [4.0, 6.0], "ours": [2.0, 3.0], "ours, 4 power": [1.0], "product 2048": [1.0]}
    assert step_table({"samples": {"50": samples}}).splitlines()[2:] == [
        "| port | 4000 / 5000 | 1.00 / 1.00 |",
        "| ours | 2000 / 2500 | 2.00 / 2.00 |",
        "| product 2048 | 1000 / 1000 |  |",
    ]
    both = {"50": samples | {"authors": [5.0, 9.0]}, "128": {"ours": [1.0]}}
    head, _, *rows = step_table({"samples": both}).splitlines()
    columns = "batch {}, ms | authors / this | port / this"
    assert head == f"| least / median | {columns.format(50)} | {columns.format(128)} |"
    assert rows[-2:] == [
        "| product 2048 | 1000 / 1000 |  |  |  |  |  |",
        "| authors | 5000 / 7000 | 1.00 / 1.00 | 0.80 / 0.71 |  |  |  |",
    ]
    step = {"samples": [0.5], "parts": {"1x1": [0.25, 0.75], "of it the backward": [0.125]}}
    table = profile_table({"batches": {"50": {"CNN": step, "4 power": step}}})
    assert table.splitlines()[0] == "| ms | CNN, 50 |"
    for line in ("| 1x1 | 500.0 |", "| sum | 500.0 |", "| of it the backward | 125.0 |", "| the step itself | 500.0 |"):
        assert line in table.splitlines()


def test_images_a_second_are_those_of_the_least_time():
    samples = {"1": {"ours": [0.5, 0.25], "port": [1.0]}, "500": {"ours": [2.0], "port": [4.0, 5.0]}}
    assert inference_table({"samples": samples}).splitlines() == [
        "| images a second | batch 1 | batch 500 |",
        "| --- | --- | --- |",
        "| ours | 4 | 250 |",
        "| port | 1 | 125 |",
    ]


@pytest.mark.slow
def test_the_suite_runs_and_a_benchmark_keeps_its_samples(tmp_path):
    """Of the suite, `step` and `port` need torch."""
    commands = [
        ["suite", "--quick", "--only", "layer", "growth", "startup"],
        ["profile", "--quick", f"--out={tmp_path}"],
    ]
    for command in commands:
        run = [sys.executable, "-m", f"benchmarks.speed.{command[0]}", *command[1:]]
        subprocess.run(run, cwd=ROOT, check=True, capture_output=True, timeout=900)
    result = json.loads((tmp_path / "profile.json").read_text())
    assert result["machine"]["versions"]["jax"] and result["machine"]["cpu_count"]
    assert result["ratios"] and all(value > 0 for value in result["ratios"].values())
    # One iteration has no loop; of every other part there are operations, by the names that they have now.
    parts = {part for step in result["batches"]["2"].values() for part in step["parts"]}
    assert {part for part in PARTS if not part.startswith("iterations")} <= parts


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda p: p.stem)
def test_committed_results_say_where_they_come_from(path):
    result = json.loads(path.read_text())
    line = harness.provenance("speed.x", result["machine"])
    assert ("cores, Python 3.11.7, jax 0.10.2; commit " in line) != (result["machine"]["device"] != "cpu")
    assert result["ratios"]


@pytest.mark.slow
def test_a_device_that_is_not_there_is_a_sentence():
    command = [sys.executable, "-m", "benchmarks.speed.layer", "--quick"]
    environment = {**os.environ, "JAX_PLATFORMS": "rocm"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "JAX finds no device of the kind 'rocm' (JAX_PLATFORMS)" in done.stderr
