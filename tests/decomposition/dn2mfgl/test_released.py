"""The released Dn2MFGL against stored iterates (folder DEEPNMF_GOLDEN_CLASSICAL, else tests/golden_classical)."""

import os
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest

from deepnmf_jax import Dn2MFGL
from deepnmf_jax.decomposition import UnboundedWarning
from deepnmf_jax.decomposition.dn2mfgl import released
from deepnmf_jax.decomposition.updates.graph import find_neighbors, knn_graph, similarity
from tests.decomposition.dn2mfgl.dense import from_dense

FOLDER = Path(os.environ.get("DEEPNMF_GOLDEN_CLASSICAL", Path(__file__).parents[2] / "golden_classical"))
FILES = sorted(path for path in FOLDER.glob("dn2_*.npz") if "pretrain" not in path.stem)
PRETRAINED = sorted(FOLDER.glob("dn2_pretrain*.npz"))

sweep = jax.jit(released.sweep)


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def factors_of(golden: dict[str, np.ndarray], ending: str) -> released.Factors:
    layers = range(1, len(golden["r"]) + 1)
    return released.Factors(*(tuple(golden[f"{name}{i}{ending}"] for i in layers) for name in "HV"))


def furthest(array: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(np.asarray(array) - expected).max() / np.abs(expected).max())


def test_there_are_golden_files() -> None:
    assert FILES and PRETRAINED, f"no dn2_*.npz in {FOLDER}"


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_iterates(path: Path) -> None:
    golden = load(path)
    x, graph = golden["X"], from_dense(golden["S"])
    strengths = tuple(float(golden[name]) for name in ("alpha", "beta", "nu"))
    factors = factors_of(golden, "_init")
    weights = released.row_weights(x, factors)
    assert furthest(weights[:, 0], golden["P0"].reshape(-1)) < 1e-10
    values = [released.objective(factors, x, graph, *strengths)]
    times = sorted({int(key.rsplit("_", 1)[1]) for key in golden if key.startswith("H1_") and key != "H1_init"})
    for t in range(1, times[-1] + 1):
        factors, weights = sweep(factors, weights, x, graph, *strengths)
        if t in times:
            expected = factors_of(golden, f"_{t}")
            for mine, stored in zip((*factors.h, *factors.v), (*expected.h, *expected.v), strict=True):
                assert furthest(mine, stored) < 1e-10
            values.append(released.objective(factors, x, graph, *strengths))
    np.testing.assert_allclose(values, golden["J"], rtol=1e-9)


@pytest.mark.parametrize("path", FILES[:2], ids=lambda path: path.stem)
def test_the_estimator_from_the_same_start(path: Path) -> None:
    """mode="released" makes the graph and the sweeps itself, from the samples alone."""
    golden = load(path)
    strengths = {name: float(golden[name]) for name in ("alpha", "beta", "nu")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnboundedWarning)
        model = Dn2MFGL(
            golden["r"], mode="released", n_neighbors=int(golden["K"]), normalize=False, max_iter=10, **strengths
        ).fit(golden["X"].T, init=factors_of(golden, "_init"))
    expected = factors_of(golden, "_10")
    for mine, stored in zip(model.dictionaries_, expected.h, strict=True):
        assert furthest(mine, stored) < 1e-10
    assert furthest(model.embedding_.T, expected.v[-1]) < 1e-10
    np.testing.assert_allclose(model.loss_history_, golden["J"][[0, 2]], rtol=1e-9)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_graph(path: Path) -> None:
    golden = load(path)
    neighbors = find_neighbors(golden["X"].T, int(golden["K"]), exclude_self=False)
    graph = knn_graph(neighbors)
    np.testing.assert_array_equal(similarity(graph).toarray(), golden["S"])
    np.testing.assert_array_equal(graph.degrees, golden["D"].reshape(-1))


@pytest.mark.parametrize("path", PRETRAINED, ids=lambda path: path.stem)
def test_pretraining(path: Path) -> None:
    golden = load(path)
    factors, sweeps = jax.jit(released.pretrain)(golden["X"], factors_of(golden, "_init"))
    expected = factors_of(golden, "")
    for mine, stored in zip((*factors.h, *factors.v), (*expected.h, *expected.v), strict=True):
        assert furthest(mine, stored) < 1e-10
    np.testing.assert_array_equal(sweeps, golden["sweeps"])
