"""gpu/measure.py without a GPU: it runs at tiny sizes, reports no speed, and its tables say what was measured."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import measure as gpu
from benchmarks.gpu.roofline import Ceilings, limit
from benchmarks.gpu.tables import NOT_MEASURED, report
from benchmarks.layers import LAYERS

ROOT = Path(__file__).resolve().parents[2]
FACTS = {
    "device": "a GPU",
    "versions": {"jax": "1", "python": "3"},
    "commit": "c",
    "date": "2026-01-01",
    "cpu_count": 1,
}


def test_bytes_of_a_layer():
    # One position of block 1: 107 floats fused, and about five times as many for each iteration unfused.
    assert LAYERS[0].fused_bytes("forward") == 576 * 428
    assert LAYERS[0].unfused_bytes("forward", 20) - LAYERS[0].unfused_bytes("forward", 19) == 576 * 4 * 5 * 107


def test_the_lower_limit_decides():
    block, rates = LAYERS[0], Ceilings(memory=1e12, full=1e12, tf32=1e15)
    assert limit(block, "forward", 10, rates) == pytest.approx(10 * block.operations("forward") / 1e12)
    assert limit(block, "forward", 10, rates, "tf32") == pytest.approx(10 * block.fused_bytes("forward") / 1e12)


def measurements(path: Path, minutes: float = 60, **facts: str) -> gpu.Measurements:
    return gpu.Measurements(path, {**FACTS, **facts}, minutes, on_gpu=True)


def fail(message: str = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate"):
    raise RuntimeError(message)


def test_a_program_that_fails_is_kept_with_its_reason_and_the_others_measured(tmp_path):
    m = measurements(tmp_path / "gpu.json")
    late = iter([2.0, 2.0])
    m.compare("step, batch 50", {
        "XLA": lambda: lambda: 0.5, "kernel": fail, "odd": lambda: lambda: next(late), "other": lambda: fail("no\nluck")
    })  # fmt: skip
    item = json.loads((tmp_path / "gpu.json").read_text())["items"]["step, batch 50"]
    assert item["samples"] == {"XLA": [0.5] * 7}
    assert item["failed"] == {"kernel": "out of memory", "odd": "StopIteration:", "other": "RuntimeError: no luck"}


def test_what_was_measured_is_not_measured_again_on_the_same_device_and_commit(tmp_path):
    first = measurements(tmp_path / "gpu.json")
    first.compare("a", {"XLA": lambda: lambda: 1.0})
    first.deadline = 0
    first.compare("b", {"XLA": lambda: pytest.fail("begun without time")})
    assert first.result["missing"] == ["b"]
    second = measurements(tmp_path / "gpu.json")
    second.compare("a", {"XLA": lambda: pytest.fail("measured again")})
    second.compare("b", {"XLA": lambda: lambda: 1.0, "kernel": lambda: lambda: 0.25})
    assert set(second.result["items"]) == {"a", "b"}
    assert not measurements(tmp_path / "gpu.json", commit="d").result["items"]


def test_tables_of_a_result_hold_its_rates():
    block = LAYERS[0]
    result = {
        "machine": FACTS,
        "agreement": {"block 1, kernel": {"h": 1e-7, "gradient of x": 2e-7, "gradient of w": 3e-7, "agrees": True},
                      "block 2, kernel": {"failed": "no such kernel", "agrees": False}},
        "items": {
            "ceilings": {"bytes": 1e9, "operations": 1e12, "samples": {
                "copy": [1e-3], "product full": [1e-1, 2e-1], "product tf32": [1e-2], "small program": [4e-6]}},
            "block 1, batch 512, forward": {"samples": {"XLA": [8e-3, 9e-3], "kernel": [2e-2, 1e-2]},
                                            "failed": {"PyTorch, eager": "torch is not installed"}},
            "step, batch 50": {"samples": {"XLA": [1e-3], "XLA, five seeds at once": [2e-3], "PyTorch, eager": [4e-3]},
                               "failed": {}},
        },
    }  # fmt: skip
    text = report(result)
    for row in (
        "| block 1, kernel | 1.0e-07 | 2.0e-07 | 3.0e-07 | yes |",
        "| block 2, kernel | no such kernel |  |  | no |",
        "| copy of 1 GiB | 1.00 TB/s |",
        "| product of 8192, float32 | 10.0 TFLOP/s |",
        # 107.83 MFLOP an image take 5.52 ms for 512 of them at 10 TFLOP/s.
        f"| block 1, batch 512, forward | kernel | 10000.0 | 15000.0 | 0.80 | "
        f"{512 * block.operations('forward') / 1e10:.2f} | {512 * block.fused_bytes('forward') / 1e10:.3f} | 55 % |",
        "| block 1, batch 512, forward | PyTorch, eager | torch is not installed |",
        "| step, batch 50 | XLA, five seeds at once | 2.000 | 2.000 | 10.00 |",
    ):
        assert row in text, (row, text)


def test_nothing_is_measured_until_it_is():
    assert report({}).count(NOT_MEASURED) == 4


@pytest.mark.slow
def test_on_a_cpu_all_runs_and_no_speed_is_reported(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu.measure", f"--out={tmp_path}"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert "no speed is reported" in result["no speeds"] and not result["missing"]
    measured = {key: item["samples"] for key, item in result["items"].items()}
    # All of them ran, and none says how long.
    assert measured.pop("ceilings") == {}
    assert set(measured) == {"block 1, batch 1, forward", "block 1, batch 1, backward", "step, batch 2"}
    for samples in measured.values():
        assert "XLA" in samples and all(times == [] for times in samples.values())
    for item in result["items"].values():
        assert set(item.get("failed", {}).values()) <= {"RuntimeError: torch is not installed"}
    assert NOT_MEASURED in (tmp_path / "gpu.md").read_text()


@pytest.mark.slow
def test_a_session_goes_through_its_parts_and_says_what_is_missing(tmp_path):
    command = ["benchmarks/gpu/session.sh", f"--out={tmp_path / 'out'}", f"--work={tmp_path / 'work'}", "--parts=train"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHON": sys.executable}
    missing = [*command, f"--dataset={tmp_path / 'absent.pack'}"]
    done = subprocess.run(missing, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "make pack DATASET=cifar10 writes it" in done.stdout
    (tmp_path / "absent.pack").touch()
    done = subprocess.run([*missing, "--minutes=1"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "not done yet: cnmf_1x1, cnn_1x1, cnmf, cnn; call again" in done.stdout
    assert (tmp_path / "out" / "session.log").read_text() == done.stdout
    assert (tmp_path / "out" / "runs.tar").exists()
