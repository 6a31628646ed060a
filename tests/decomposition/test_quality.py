"""Errors reached on digits and, where the folder DEEPNMF_FACES has them, on faces; dead atoms; units."""

import os
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepnmf_jax import NMF
from deepnmf_jax.decomposition import ConvergenceWarning
from deepnmf_jax.decomposition.updates.fit import Factorization, fit
from deepnmf_jax.decomposition.updates.loop import Descent
from deepnmf_jax.decomposition.updates.objective import Target
from deepnmf_jax.decomposition.updates.solvers import SolverSettings, sweep

SWEEP = jax.jit(sweep)


def solve(zt: np.ndarray, d: np.ndarray, a: np.ndarray, sweeps: int) -> Descent[Factorization]:
    done = fit((zt[None], d[None]), sweeps, Target(a), SolverSettings(), 0.0, 64)
    return jax.tree.map(lambda x: x[0], done)


# Concepts; median and best relative error of scikit-learn's cd from 8 starts, 1500 sweeps, tol 1e-6.
REFERENCES = {"digits": (16, 0.25715, 0.25648), "orl": (40, 0.09648, 0.09636), "jaffe": (20, 0.09801, 0.09753)}


def load(name: str) -> np.ndarray:
    if name == "digits":
        return (pytest.importorskip("sklearn.datasets").load_digits().data / 16).astype(np.float32)
    folders = (os.environ.get("DEEPNMF_FACES"), Path(__file__).parents[2] / "../shared/faces")
    path = next((p for f in folders if f and (p := Path(f) / f"{name}.npz").exists()), None)
    if path is None:
        pytest.skip(f"no {name}.npz in $DEEPNMF_FACES or ../shared/faces")
    with np.load(path, allow_pickle=False) as file:
        images = next(file[key] for key in file if file[key].ndim >= 2)
    return (images.reshape(len(images), -1) / 255).astype(np.float32)


@pytest.fixture(autouse=True)
def limits_may_be_reached() -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)


def relative_error(a: np.ndarray, z: np.ndarray, d: np.ndarray) -> float:
    return float(np.linalg.norm(a.astype(np.float64) - z.astype(np.float64) @ d) / np.linalg.norm(a))


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
@pytest.mark.parametrize("name", list(REFERENCES))
def test_the_default_fit(name: str, scale: float) -> None:
    a = load(name) * np.float32(scale)
    k, median, _ = REFERENCES[name]
    model = NMF(k)
    error = relative_error(a, *model.fit(a))
    print(f"{name} at {scale:g}: {error:.5f}, {error / median:.4f} of the median, {model.report_}")
    assert error <= 1.01 * median
    assert model.n_dead_ == 0
    if name == "digits":  # the faces come near the limit, on one side or the other
        assert model.converged_ and 50 < model.n_iter_ < 400


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "jaffe"])
def test_restarts(name: str) -> None:
    a = load(name)
    k, _, best = REFERENCES[name]
    model = NMF(k, n_restarts=8, max_iter=1500, tol=1e-6)
    error = relative_error(a, *model.fit(a))
    print(f"{name}: {error:.5f}, {error / best:.4f} of the best; restarts {model.restart_errors_}")
    assert error <= 1.005 * best


def test_an_atom_without_codes_comes_back() -> None:
    """D1: the released HALS divides by 1e-10 where an atom has no codes, which kills its dictionary row for good."""
    rng = np.random.default_rng(0)
    a = rng.random((20, 3)) @ rng.random((3, 8))
    zt, d = rng.random((3, 20)), rng.random((3, 8))
    d[2] = a.max() * 10 * np.eye(8)[0]  # so long that its codes all become 0 in the first sweep
    zt[2] = 0
    first = SWEEP(zt, d, Target(np.where(np.arange(8) == 0, 0, a)))
    assert not first[0][2].any()
    np.testing.assert_array_equal(first[1][2], d[2])
    state = solve(zt, d, a, 400).state
    assert state.zt[2].any() and state.d[2].any()
    assert np.linalg.norm(a - state.zt.T @ state.d) < 0.02 * np.linalg.norm(a)


def test_a_dead_atom_is_replaced() -> None:
    rng = np.random.default_rng(1)
    a = rng.random((20, 3)) @ rng.random((3, 8))
    zt, d = rng.random((3, 20)), rng.random((3, 8))
    zt[1], d[1] = 0, 0
    stuck = (zt, d)
    for _ in range(10):
        stuck = SWEEP(*stuck, Target(a))
    assert not stuck[0][1].any() and not stuck[1][1].any()
    done = solve(zt, d, a, 300)
    assert done.state.revived == 1 and not done.state.dead.any()
    history = np.asarray(done.history)[: int(done.looks)]
    assert np.all(np.diff(history) <= 1e-12 * history[0])
    assert history[-1] < 0.05 * 0.5 * np.sum((a - np.asarray(stuck[0].T @ stuck[1])) ** 2)


@pytest.mark.slow
def test_tol_zero_is_zero() -> None:
    """D9b: a tolerance of 0 is not the default."""
    a = np.random.default_rng(0).random((12, 6))
    model = NMF(2, max_iter=20)
    model.fit(a, max_iter=37)
    assert model.n_iter_ <= 37
    rough, exact = model.encode(a, max_iter=400, tol=10.0), model.encode(a, max_iter=400, tol=0)
    assert np.linalg.norm(rough - exact) > 1e-9
    model = NMF(2, max_iter=33, tol=0)
    model.fit(a)
    assert model.n_iter_ == 33 and not model.converged_


def test_one_device_is_the_truth() -> None:
    """D18: the dictionary and `device` say the same."""
    a = np.random.default_rng(0).random((12, 6))
    model = NMF(2, device="cpu", max_iter=3)
    model.fit(jnp.asarray(a))
    assert model.D.devices() == {jnp.zeros(1).devices().pop()}
    assert model.to("cpu") is model and model.device == "cpu"
    with pytest.raises(ValueError, match="is not here"):
        model.to("tpu")
    assert model.device == "cpu"
