"""Iterates of every update rule against stored ones (folder DEEPNMF_GOLDEN_CLASSICAL, else tests/golden_classical)."""

import os
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from deepnmf_jax.decomposition.updates.objective import Target, objective, scaled_penalties
from deepnmf_jax.decomposition.updates.solvers import SolverSettings, sweep

FOLDER = Path(os.environ.get("DEEPNMF_GOLDEN_CLASSICAL", Path(__file__).parents[1] / "golden_classical"))
FILES = sorted(FOLDER.glob("nmf_*.npz"))


def runs_of(path: Path) -> list[str]:
    with np.load(path, allow_pickle=False) as file:
        return sorted({key[2:].rsplit("_", 1)[0] for key in file if key.startswith("Z_") and key != "Z_init"})


RUNS = [pytest.param(path, run, id=f"{path.stem}-{run}") for path in FILES for run in runs_of(path)]


def settings_of(run: str) -> SolverSettings:
    beta = float(run.split("beta")[1].split("_")[0]) if "beta" in run else 2.0
    return SolverSettings(run.split("_")[0], beta)


def furthest(array: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(np.asarray(array) - expected).max() / np.abs(expected).max())


def test_there_are_golden_files() -> None:
    assert RUNS, f"no nmf_*.npz in {FOLDER}"


@pytest.mark.parametrize(("path", "run"), RUNS)
def test_iterates(path: Path, run: str) -> None:
    with np.load(path, allow_pickle=False) as file:
        golden = dict(file)
    target = Target(golden["A"])
    if "_pen" in run:
        strengths = (float(golden[name]) for name in ("alpha_W", "alpha_H", "l1_ratio"))
        target = Target(golden["A"], scaled_penalties(*strengths, *golden["A"].shape))  # type: ignore[call-arg]
    step = jax.jit(partial(sweep, settings=settings_of(run)))
    value = jax.jit(objective)
    zt, d = golden["Z_init"].T, golden["D_init"]
    values = [value(zt, d, target)]
    times = sorted(int(key.rsplit("_", 1)[1]) for key in golden if key.startswith(f"Z_{run}_") and key != "Z_init")
    for t in range(1, times[-1] + 1):
        zt, d = step(zt, d, target)
        if t in times:
            assert furthest(zt.T, golden[f"Z_{run}_{t}"]) < 1e-10
            assert furthest(d, golden[f"D_{run}_{t}"]) < 1e-10
            values.append(value(zt, d, target))
    if f"obj_{run}" in golden:
        np.testing.assert_allclose(values, golden[f"obj_{run}"], rtol=1e-9)
