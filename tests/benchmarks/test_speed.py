"""The benchmarks run, their port agrees with the network, and the comparison finds what got slower."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import harness
from benchmarks.speed import acceleration
from benchmarks.speed.compare import worse
from benchmarks.speed.growth import predict
from benchmarks.speed.profile import names_of, part_of, seconds_by_part
from configs import base
from deepnmf_jax.data.augmentation import center_crop
from deepnmf_jax.experiments.tables import render
from deepnmf_jax.training.setup import prepare
from docs.pages import PAGES
from tests.programs import SETTINGS as programs_settings

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"


@pytest.mark.slow
def test_the_port_computes_our_loss_and_gradients():
    pytest.importorskip("torch", reason="the PyTorch port needs torch: pip install -e .[bench]")
    from benchmarks.speed.step import TOLERANCE, agreement

    found = agreement()
    assert all(found[layer] < TOLERANCE[layer] for layer in ("nmf", "conv")), found


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
        def __init__(self, spec):
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


def test_comparison_names_what_got_worse_and_only_that():
    old = {"port / ours": 2.0, "memory, block 1": 1.0, "ours / our CNN": 4.0, "gone": 1.0}
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


@pytest.mark.slow
def test_settings_by_block_are_held_against_plain_iterations(programs, monkeypatch):
    config = base.get_config()
    config.update_from_flattened_dict({"dataset": str(programs.images), **programs_settings, "model.num_iters": 20})
    run = prepare(config)
    variables = jax.jit(run.model.init)(jax.random.key(0), jnp.zeros((1, *run.image_shape)))
    images = run.dataset.train_images[run.split.validation[:4]]
    inputs = acceleration.layer_inputs(run, variables, center_crop(jnp.asarray(images), run.augmentation.crop), 50)
    assert [w.shape[0] for _, w in inputs] == [8, 16, 24, 3]
    names = "20 plain", "multistep: 7, 4, 4 pairs, fourth plain"
    monkeypatch.setattr(acceleration, "SETTINGS", {name: acceleration.SETTINGS[name] for name in names})
    plain, multistep = acceleration.by_block(run, variables, inputs).values()
    assert plain["other answers"] == 0 and plain["operations"] == 1 and plain["l1"] == [0] * 4
    assert 0.2 < multistep["operations"] < 0.4
    assert all(0 < distance < 0.05 for distance in multistep["l1"][:3])
    assert multistep["l1"][3] < 1e-6  # the same iterations
    np.testing.assert_allclose(multistep["kl"], plain["kl"], rtol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("question", ["layer", "startup", "profile"])
def test_a_benchmark_runs_and_keeps_its_samples(question, tmp_path):
    command = [sys.executable, "-m", f"benchmarks.{question}", "--quick", f"--out={tmp_path}"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=500)
    result = json.loads((tmp_path / f"{question}.json").read_text())
    assert result["machine"]["jax"] and result["machine"]["cores"]
    assert result["ratios"] and all(value > 0 for value in result["ratios"].values())


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda p: p.stem)
def test_committed_results_say_where_they_come_from(path):
    result = json.loads(path.read_text())
    assert {"device", "cpu", "cores", "python", "jax", "commit"} <= result["machine"].keys()
    assert "ratios" in result or "differences" in result


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_tables_of_the_documentation_are_those_of_the_results(page):
    assert page.read_text() == render(page.read_text(), PAGES[page])
    assert set(re.findall(r"<!-- (\w+) -->\n", page.read_text())) == {*PAGES[page], "end"}
