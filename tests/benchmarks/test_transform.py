"""The benchmarks of what users call whole: codes of new data, fits of a sparse matrix."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.speed import sparse_levels, transform

ROOT = Path(__file__).resolve().parents[2]


def run_quickly(question: str, out: Path) -> dict:
    command = [sys.executable, "-m", f"benchmarks.speed.{question}", "--quick", f"--out={out}"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return json.loads((out / f"{question}.json").read_text())


@pytest.mark.slow
def test_codes_of_new_data(tmp_path: Path) -> None:
    result = run_quickly("transform", tmp_path)
    for name, samples in result["samples"].items():
        ours, others = (samples[library][0] for library in (transform.OURS, transform.OTHER))
        assert len(ours["seconds"]) == len(others["seconds"]) > 1
        # The same dictionary: the codes of both end near one optimum.
        np.testing.assert_allclose(ours["error"], others["error"], rtol=2e-2, err_msg=name)
    assert transform.transform_table(result).count("\n") == 1 + 2 * len(result["samples"])


@pytest.mark.slow
def test_whole_fits_of_a_sparse_matrix(tmp_path: Path) -> None:
    result = run_quickly("sparse_levels", tmp_path)
    assert tuple(result["curves"]) == sparse_levels.METHODS
    assert all(curve["error"][-1] < curve["error"][0] for curve in result["curves"].values())
    assert "error levels" in sparse_levels.sparse_levels_table(result)
