"""The benchmark of sparse data: its matrix, its table, and that it runs."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.speed import sparse

ROOT = Path(__file__).resolve().parents[2]


def test_the_matrix_has_so_many_entries_of_whole_numbers() -> None:
    a = sparse.words(60, 50, 700)
    assert a.shape == (60, 50) and a.nnz == 700 and a.dtype == np.float32
    assert a.data.min() >= 1 and np.all(a.data == np.round(a.data))
    with pytest.raises(ValueError, match="fewer than"):
        sparse.words(10, 5, 51)


def test_a_sweep_is_what_the_longer_fit_takes_more_without_its_codes() -> None:
    assert sparse.per_sweep({"cpu": [9.0, 3.0, 18.0]}) == pytest.approx(1.5)
    assert sparse.per_sweep({"cpu": [9.0, 3.0, 18.0], "codes": [1.0, 1.0, 6.0]}) == pytest.approx(1.0)


@pytest.mark.slow
def test_it_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.speed.sparse", "--quick", f"--out={tmp_path}"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    result = json.loads((tmp_path / "sparse.json").read_text())
    ours, others = (result["samples"][name] for name in (sparse.OURS, sparse.OTHER))
    # Ours solves for the codes once more.
    assert len(ours["cpu"]) == len(sparse.SWEEPS) and ours["error"][2] < 1.001 * others["error"][2]
    assert sparse.sparse_table(result).count("\n") == 3
