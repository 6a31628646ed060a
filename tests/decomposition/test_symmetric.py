"""Symmetric NMF: A ~ Z Z^T, an objective that never rises, its minimum, groups of a graph."""

import warnings
from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from deepnmf_jax import SymmetricNMF
from deepnmf_jax.decomposition import ConvergenceWarning
from deepnmf_jax.decomposition.updates import symmetric
from deepnmf_jax.decomposition.updates.symmetric import column_steps, columns_of, lowest_eigenvalue, symmetric_sweep

N, K = 14, 3
STEPS, SWEEP = jax.jit(column_steps), jax.jit(symmetric_sweep)


@pytest.fixture(autouse=True)
def limits_may_be_reached() -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)


def objective(a: np.ndarray, zt: np.ndarray) -> float:
    return 0.5 * float(np.sum((a - np.asarray(zt).T @ np.asarray(zt)) ** 2))


def matrix(seed: int, kind: str) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "product":
        z = rng.random((N, K)) * (rng.random((N, K)) > 0.3)
        return z @ z.T
    a = rng.standard_normal((N, N)) if kind == "signed" else (rng.random((N, N)) > 0.7).astype(float)
    return a + a.T - np.diag(np.diag(a + a.T))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["product", "signed", "graph"]), st.sampled_from([1e-3, 1.0, 30.0]))
def test_the_objective_never_rises(seed: int, kind: str, size: float) -> None:
    a = matrix(seed, kind)
    below, zt = lowest_eigenvalue(a), size * np.random.default_rng(seed).random((K, N))
    safe, now, before = zt, columns_of(zt, a), objective(a, zt)
    values = [before, before]
    for _ in range(8):
        safe, now = STEPS(safe, safe @ a, below), SWEEP(now, a, below)
        for i, factor in enumerate((safe, now.zt)):
            after = objective(a, factor)
            assert after <= values[i] * (1 + 1e-9) + 1e-12 and (np.asarray(factor) >= 0).all()
            values[i] = after
        np.testing.assert_allclose(now.along, now.zt @ a, atol=1e-9 * (1 + np.abs(now.along).max()))


def test_steps_are_those_of_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the exact largest eigenvalue in place of its bound."""
    a, zt = matrix(0, "signed"), np.random.default_rng(0).random((K, N))
    below = max(0.0, -np.linalg.eigvalsh(a)[0])
    assert lowest_eigenvalue(a) == pytest.approx(below, rel=1e-12)
    monkeypatch.setattr(symmetric, "largest_eigenvalue_bound", lambda b: jax.numpy.linalg.eigvalsh(b)[-1])
    expected = zt.copy()
    for j in range(K):
        others = np.delete(expected, j, axis=0)
        rest, z = a - others.T @ others, expected[j]
        rho = below + np.linalg.eigvalsh(others @ others.T)[-1]
        v = np.maximum(rest @ z + rho * z, 0)
        (s,) = (r.real for r in np.roots([1, 0, rho, -np.linalg.norm(v)]) if abs(r.imag) < 1e-9)
        expected[j] = s * v / np.linalg.norm(v)
    np.testing.assert_allclose(jax.jit(partial(column_steps))(zt, zt @ a, below), expected, atol=1e-9)


@pytest.mark.parametrize("kind", ["product", "signed", "graph"])
def test_the_conditions_of_a_minimum(kind: str) -> None:
    a = matrix(1, kind)
    model = SymmetricNMF(K, max_iter=5000, tol=1e-10)
    z, d = model.fit(a)
    np.testing.assert_array_equal(d, z.T)
    assert model.reconstruction_err_ == pytest.approx(np.linalg.norm(a - z @ z.T), rel=1e-6, abs=1e-6)
    gradient = (z @ z.T - a) @ z
    size = np.abs(a @ z).max()
    # As far as a zero and its slope can be told from rounding where the fit ended.
    assert np.abs(np.where(z > 1e-4 * z.max(), gradient, np.minimum(gradient, 0))).max() < 1e-2 * size
    # The same conditions are those of the codes of A for D = Z^T.
    assert np.linalg.norm(model.encode(a) - z) < 1e-2 * np.linalg.norm(z)


@pytest.mark.slow
def test_planted_groups_are_found() -> None:
    rng, y = np.random.default_rng(0), np.arange(30) % 3
    chance = np.where(y[:, None] == y, 0.8, 0.1)
    a = np.triu(rng.random((30, 30)) < chance, 1).astype(float)
    a = a + a.T
    model = SymmetricNMF(3, n_restarts=4)
    z, _ = model.fit(a)
    groups = z.argmax(1)
    assert len({(one, other) for one, other in zip(y, groups, strict=True)}) == 3
    for other in (sparse.csr_matrix(a), 2.0**20 * a):
        again, _ = SymmetricNMF(3, n_restarts=4).fit(other)
        np.testing.assert_array_equal(again.argmax(1), groups)


def test_lanczos_sees_the_lowest_eigenvalue(monkeypatch: pytest.MonkeyPatch) -> None:
    a = matrix(2, "signed")
    exact = lowest_eigenvalue(a)
    monkeypatch.setattr(symmetric, "LARGEST_DENSE", 1)
    assert exact <= lowest_eigenvalue(a) <= 1.06 * exact


def test_what_is_refused() -> None:
    a = matrix(0, "product")
    for wrong, message in (
        (a[:5], r"\(n, n\)"),
        (np.triu(a), "not symmetric"),
        (sparse.csr_matrix(np.triu(a)), "not symmetric"),
        (np.where(np.eye(N), np.nan, a), "NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            SymmetricNMF(K).fit(wrong)
    z, d = SymmetricNMF(K).fit(np.zeros((N, N)))
    assert not z.any() and d.shape == (K, N)
