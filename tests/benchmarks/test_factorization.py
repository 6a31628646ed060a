"""The benchmark of the factorizations: its levels, its competitors, and that it runs."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.sparse import random_array

from benchmarks.harness import record
from benchmarks.speed import factorization
from benchmarks.speed.programs.factorizers import METHODS, relative_error
from deepnmf_jax.decomposition.updates.objective import Target
from deepnmf_jax.decomposition.updates.solvers import SolverSettings, sweep

ROOT = Path(__file__).resolve().parents[2]


def curve(seconds: list[list[float]], error: list[float]) -> dict:
    return {"seconds": seconds, "error": error}


def test_a_level_is_reached_at_the_least_time_of_all_points_below_it() -> None:
    one = curve([[1.0, 0.9], [2.5, 2.0], [1.8, 3.0]], [0.5, 0.3, 0.2])
    assert factorization.first_time(one, 0.5) == 0.9
    assert factorization.first_time(one, 0.4) == 1.8
    assert factorization.first_time(one, 0.1) == float("inf")


def test_levels_are_the_errors_of_the_others_below_the_start() -> None:
    curves = {
        "ours: a": curve([[1.0], [2.0]], [0.45, 0.30]),
        "ours: b": curve([[0.5]], [0.47]),
        "theirs: c": curve([[0.4], [3.0], [9.0]], [0.95, 0.46, 0.25]),
        "theirs: d": curve([[0.6]], [0.47]),
    }
    levels = factorization.levels_of(curves, 0.9)
    assert levels["error"] == [0.47, 0.46, 0.25]
    assert {name: times[0] for name, times in levels["seconds"].items()} == {
        "ours: a": 1.0, "ours: b": 0.5, "theirs: c": 3.0, "theirs: d": 0.6
    }  # fmt: skip
    assert levels["seconds"]["theirs: d"] == [0.6, None, None]
    assert factorization.firsts(levels) == [(0.5, 0.6), (1.0, 3.0), (float("inf"), 9.0)]


def test_the_table_has_some_levels_and_gaps_where_a_method_did_not_get() -> None:
    levels = {"error": list(np.linspace(0.9, 0.1, 40)), "seconds": {"ours: a": [0.5] * 40, "theirs: b": [None] * 40}}
    written = factorization.levels_table({"levels": levels, "curves": {"ours: a": {}, "theirs: b": {}}})
    head, _, ours, theirs = written.splitlines()
    assert head.count("|") == ours.count("|") == 8 and "0.9000" in head and "0.1000" in head
    assert theirs.replace(" ", "") == "|theirs:b" + "|" * 7


def test_the_ports_updates_are_the_textbooks() -> None:
    torch = pytest.importorskip("torch", reason="the PyTorch port needs torch: pip install -e .[bench]")
    from benchmarks.speed.programs.torch_nmf import UPDATES

    rng = np.random.default_rng(0)
    a, z, d = rng.random((15, 8)), rng.random((15, 3)), rng.random((3, 8))
    for solver, update in UPDATES.items():
        theirs = update(*(torch.from_numpy(x) for x in (a, z, d)))
        zt, dictionary = jax.jit(sweep, static_argnames=("settings",))(z.T, d, Target(a), SolverSettings(solver))
        np.testing.assert_allclose(theirs[0], zt.T, atol=1e-8)
        np.testing.assert_allclose(theirs[1], dictionary, atol=1e-8)


def test_the_error_is_that_of_the_factors_in_either_order() -> None:
    rng = np.random.default_rng(0)
    a, z, d = rng.random((2500, 4), np.float32), rng.random((2500, 2), np.float32), rng.random((2, 4), np.float32)
    expected = np.linalg.norm(a - z @ d) / np.linalg.norm(a)
    assert relative_error(a, z, d) == pytest.approx(expected, rel=1e-5)
    assert relative_error(a, z.T, d) == pytest.approx(expected, rel=1e-5)


def test_the_error_of_a_sparse_matrix_is_that_of_the_same_dense_one() -> None:
    rng = np.random.default_rng(0)
    a = random_array((60, 40), density=0.1, dtype=np.float32, rng=rng).tocsr()
    z, d = rng.random((60, 2), np.float32), rng.random((2, 40), np.float32)
    for factors in ((z, d), (z.T, d), (0 * z, d)):
        assert relative_error(a, *factors) == pytest.approx(relative_error(a.toarray(), *factors), rel=1e-5)


def test_synthetic_data_are_as_described() -> None:
    a = factorization.parts(300, 40, 20)
    assert a.dtype == np.float32 and (a >= 0).all() and 1.05 < a.mean() < 1.12


def test_faces_are_rows_in_the_unit_interval(tmp_path: Path) -> None:
    np.savez(tmp_path / "faces.npz", x=np.full((2, 3, 4), 51, np.uint8))
    faces = factorization.faces(tmp_path / "faces.npz")
    assert faces.shape == (2, 12) and faces.dtype == np.float32 and np.allclose(faces, 0.2)


def test_the_report_counts_the_levels_of_the_record() -> None:
    sooner, called, all_levels = 0, 0, 0
    for found in record("factorization")["problems"].values():
        pairs, seconds = factorization.firsts(found["levels"]), found["levels"]["seconds"]
        sooner, all_levels = sooner + sum(ours < others for ours, others in pairs), all_levels + len(pairs)
        whole = {name: times for name, times in seconds.items() if name.startswith("scikit-learn")}
        whole["ours"] = seconds["ours: NMF.fit"]
        fits = factorization.firsts({"error": found["levels"]["error"], "seconds": whole})
        called += sum(ours < others for ours, others in fits)
    report = (ROOT / "docs" / "reports" / "factorization.md").read_text()
    assert f"updates: {sooner} of {all_levels} levels" in report
    assert f"the fastest of scikit-learn's solvers at {called} of them" in report


@pytest.mark.slow
def test_it_runs_and_keeps_its_samples(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the PyTorch port needs torch: pip install -e .[bench]")
    command = [sys.executable, "-m", "benchmarks.speed.factorization", "--quick", "--rounds=1", f"--out={tmp_path}"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=900)
    result = json.loads((tmp_path / "factorization.json").read_text())
    assert result["machine"]["versions"]["torch"] and result["versions"]["sklearn"]
    assert len(result["problems"]) == 2
    for found in result["problems"].values():
        assert found["curves"].keys() == METHODS.keys()
        for name, line in found["curves"].items():
            assert line["sweeps"] == list(factorization.GRID[:4])
            assert [len(samples) for samples in line["seconds"]] == [1] * 4
            assert line["memory"] >= line["memory_before"] > 0 and line["compile_seconds"] >= 0
            # From its own start; all others go down from the common one.
            assert name == "ours: mini-batch" or line["error"][-1] < found["start"]
        assert found["levels"]["seconds"].keys() == METHODS.keys()
    assert result["many"]["error_after_two"] < result["many"]["error_before"]
    written = factorization.factorization_table(result)
    assert "300 concepts" in written and all(name in written for name in (*METHODS, *result["problems"]))
