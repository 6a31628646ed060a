"""Beta divergences of sparse data: what dense data gives, from the entries alone or from blocks of rows."""

import math
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import Array
from jax.experimental.sparse import BCOO

from deepnmf_jax.decomposition import NMF, ConvergenceWarning
from deepnmf_jax.decomposition.codes import Settings, encode, solve_codes
from deepnmf_jax.decomposition.io import nonzeros
from deepnmf_jax.decomposition.io.nonzeros import Blocks, Nonzeros, nonzeros_of
from deepnmf_jax.decomposition.updates.beta_divergence import beta_divergence, beta_divergence_of, beta_terms
from deepnmf_jax.decomposition.updates.newton import newton_step
from deepnmf_jax.decomposition.updates.objective import Penalties, Target, objective
from deepnmf_jax.decomposition.updates.solvers import SolverSettings, sweep

KINDS = {
    "CSR": sp.csr_array,
    "CSC": sp.csc_matrix,
    "COO": sp.coo_array,
    "BCOO": lambda a: BCOO.fromdense(jnp.asarray(a), nse=int((a > 0).sum()) + 5),
}
STEPS = {
    beta: jax.jit(lambda zt, d, target, beta=beta: sweep(zt, d, target, SolverSettings("mu", beta)))
    for beta in (1.0, 1.5)
}
OBJECTIVES = {beta: jax.jit(lambda zt, d, target, beta=beta: objective(zt, d, target, beta)) for beta in STEPS}


@pytest.fixture(autouse=True)
def limits_may_be_reached() -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)


def holes(n: int, p: int, share: float, seed: int = 0) -> np.ndarray:
    """Positive numbers in so many places; a row and a column of zeros."""
    rng = np.random.default_rng(seed)
    a = np.where(rng.random((n, p)) < share, rng.gamma(1.0, 1.0, (n, p)), 0)
    a[n // 2], a[:, p // 3] = 0, 0
    return a


def factors(n: int, p: int, k: int, seed: int = 1) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.random((k, n)) + 0.01), jnp.asarray(rng.random((k, p)) + 0.01)


def in_blocks(a: np.ndarray, k: int, beta: float) -> Nonzeros:
    return nonzeros_of(BCOO.fromdense(jnp.asarray(a)), k, beta)


def written_out(blocks: Blocks | None, shape: tuple[int, int]) -> np.ndarray:
    """The matrix of some blocks, by numpy."""
    assert blocks is not None
    result, rows = np.zeros(shape), np.asarray(blocks.rows)
    for block, segments in enumerate(np.asarray(blocks.segments)):
        assert np.all(np.diff(segments) >= 0)
        np.add.at(result, (rows[block, segments][:, None], np.asarray(blocks.columns[block])), blocks.values[block])
    place = np.asarray(blocks.place)
    np.testing.assert_array_equal(rows.ravel()[place], np.arange(len(place)) % shape[0])
    return result


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 30),
    st.integers(1, 40),
    st.floats(0, 1),
    st.integers(0, 99),
    st.sampled_from([8, 64, 2**19]),
    st.sampled_from([8, 2**17]),
)
def test_blocks_hold_every_entry_once(n: int, p: int, share: float, seed: int, room: int, panel: int) -> None:
    a = np.where(np.random.default_rng(seed).random((n, p)) < share, 1.0 + np.arange(n * p).reshape(n, p), 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nonzeros, "GATHERED", room)
        patch.setattr(nonzeros, "PANEL", panel)
        patch.setattr(nonzeros, "SHORTEST", 1)
        patch.setattr(nonzeros, "DENSE", 2)
        found = nonzeros_of(stored(a, np.nonzero(a)), 2, 1.0)
    np.testing.assert_array_equal(written_out(found.by_rows, (n, p)), a)
    np.testing.assert_array_equal(written_out(found.T.by_rows, (p, n)), a.T)


def stored(a: np.ndarray, places: tuple[np.ndarray, ...]) -> BCOO:
    """The entries of a matrix in these places, zeros too."""
    return BCOO((jnp.asarray(a[places]), jnp.stack([jnp.asarray(x, jnp.int32) for x in places], 1)), shape=a.shape)


def test_products_and_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    a = holes(30, 70, 0.1)
    monkeypatch.setattr(nonzeros, "PANEL", 30)
    monkeypatch.setattr(nonzeros, "SHORTEST", 1)
    panels = in_blocks(a, 3, 2.0).by_columns
    assert panels is not None and len(panels.place) == 3 * 70
    for matrix, expected in ((in_blocks(a, 3, 2.0), a), (in_blocks(a, 3, 2.0).T, a.T)):
        b = np.random.default_rng(1).random((expected.shape[1], 3))
        np.testing.assert_allclose(matrix.times(jnp.asarray(b)), expected @ b, rtol=1e-12)
        np.testing.assert_allclose(matrix.row_sums(power=2), (expected**2).sum(1), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.08, 0.5])
@pytest.mark.parametrize("beta", [0.5, 1.0, 1.5, 3.0])
def test_terms_divergence_and_newton_steps_are_those_of_dense_data(
    beta: float, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    n, p, k = 23, 130, 3
    a, (zt, d) = jnp.asarray(holes(n, p, share)), factors(n, p, k)
    monkeypatch.setattr(nonzeros, "GATHERED", 2**9)
    monkeypatch.setattr(nonzeros, "PANEL", 40)
    monkeypatch.setattr(nonzeros, "SHORTEST", 1)
    sparse = in_blocks(a, k, beta)
    assert sparse.dense == (beta != 1 or share > 0.2) and len(sparse.data) > 1
    for one, other in zip(beta_terms(sparse, zt.T, d, beta), beta_terms(a, zt.T, d, beta), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    for one, other in zip(beta_terms(sparse.T, d.T, zt, beta), beta_terms(a.T, d.T, zt, beta), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    expected = float(beta_divergence(a, zt.T @ d, beta))
    assert float(beta_divergence_of(sparse, zt.T, d, beta)) == pytest.approx(expected, rel=1e-12)
    penalties = Penalties(0.1, 0.2)
    steps = [newton_step(Target(x, penalties).for_codes(d), beta)(zt) for x in (sparse, a)]
    np.testing.assert_allclose(*steps, rtol=1e-9, atol=1e-12)
    assert not np.allclose(steps[0], zt)


def plain_sweep(zt: np.ndarray, d: np.ndarray, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lee and Seung's step for Kullback-Leibler, entry by entry."""
    for x, f, m in ((zt, d, a), (d, zt, a.T)):
        old = x.copy()
        for i in range(m.shape[0]):
            above = np.zeros(len(x))
            for j in np.flatnonzero(m[i]):
                above += m[i, j] / (old[:, i] @ f[:, j]) * f[:, j]
            x[:, i] = old[:, i] * above / f.sum(1)
    return zt, d


def test_a_sweep_is_the_plain_one() -> None:
    a, (zt, d) = holes(14, 90, 0.1), factors(14, 90, 3)
    found = STEPS[1.0](zt, d, Target(in_blocks(a, 3, 1.0)))
    for one, other in zip(found, plain_sweep(np.array(zt), np.array(d), a), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


PLACES = np.nonzero(holes(12, 50, 0.1))


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from([1.0, 1.5]),
    st.lists(st.sampled_from([0.0, 1e-9, 0.3, 1.0, 50.0]), min_size=len(PLACES[0]), max_size=len(PLACES[0])),
    st.integers(0, 10_000),
    st.lists(st.sampled_from([0.0, 0.01, 1.0]), min_size=4, max_size=4),
)
def test_the_objective_never_rises(beta: float, values: list[float], seed: int, strengths: list[float]) -> None:
    a, (zt, d) = np.zeros((12, 50)), factors(12, 50, 3, seed)
    a[PLACES] = values
    penalties = Penalties(*map(jnp.asarray, strengths))
    target, dense = Target(nonzeros_of(stored(a, PLACES), 3, beta), penalties), Target(jnp.asarray(a), penalties)
    before = float(OBJECTIVES[beta](zt, d, dense))
    for _ in range(4):
        zt, d = STEPS[beta](zt, d, target)
        now = float(OBJECTIVES[beta](zt, d, target))
        assert now == pytest.approx(float(OBJECTIVES[beta](zt, d, dense)), rel=1e-10, abs=1e-12)
        # The last digits are those of the sums, which may be far larger than their difference.
        assert now <= before + 1e-12 * abs(before) + 1e-15 * a.sum()
        before = now


def results(a: Any, **arguments: Any) -> list[np.ndarray]:
    """What a fit, codes of new data and a stream give."""
    model = NMF(4, solver="mu", max_iter=30, tol=1e-6, dtype="float64", **arguments)
    z, d = model.fit(a)
    stream = NMF(4, solver="mu", max_iter=30, dtype="float64", **arguments)
    parts = [a[i : i + 40] for i in range(0, 120, 40)]
    for part in parts:
        stream.partial_fit(part)
    numbers = np.array([model.reconstruction_err_, *model.loss_history_])
    return [np.asarray(x) for x in (z, d, numbers, model.encode(parts[1]), stream.D, stream.encode(parts[0]))]


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [{"beta_loss": 1}, pytest.param({"beta_loss": 1, "alpha_W": 1e-3, "l1_ratio": 0.5}, marks=pytest.mark.slow)],
)
def test_sparse_kullback_leibler_is_dense(arguments: dict[str, Any]) -> None:
    a = holes(120, 200, 0.1)
    expected = results(a, **arguments)
    for one, other in zip(results(sp.csr_array(a), **arguments), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10 * np.abs(other).max())


@pytest.mark.slow
@pytest.mark.parametrize("beta", [0.5, 1.5, 3.0])
def test_other_divergences_of_sparse_data_are_those_of_dense(beta: float) -> None:
    a = holes(120, 40, 0.6)
    for one, other in zip(results(sp.csr_array(a), beta_loss=beta), results(a, beta_loss=beta), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9 * np.abs(other).max())


@pytest.mark.slow
def test_kinds_of_sparse_arrays_agree() -> None:
    a = holes(30, 50, 0.1)
    expected = NMF(3, solver="mu", beta_loss=1, max_iter=5, tol=0, dtype="float64").fit(sp.csr_array(a))
    for name, kind in KINDS.items():
        found = NMF(3, solver="mu", beta_loss=1, max_iter=5, tol=0, dtype="float64").fit(kind(a))
        assert isinstance(found[0], Array if name == "BCOO" else np.ndarray)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("exponent", [-134, pytest.param(-90, marks=pytest.mark.slow), 120])
def test_any_unit(exponent: int) -> None:
    a = np.ldexp(np.round(holes(20, 40, 0.1), 3).astype(np.float32), -1)
    moved = np.ldexp(a, exponent)
    exact = np.ldexp(moved, -exponent)
    models = [NMF(3, solver="mu", beta_loss=1, max_iter=12, tol=0) for _ in range(2)]
    codes = [model.fit(sp.csr_array(x))[0] for model, x in zip(models, (exact, moved), strict=True)]
    # What "mu" leaves of an entry that is to be 0 is the smallest number there is, in any unit.
    for one, other in ((codes[0], codes[1]), (models[0].D, models[1].D)):
        np.testing.assert_allclose(np.ldexp(one, exponent // 2), other, rtol=0, atol=1e-30 * other.max())
    assert models[1].reconstruction_err_ == pytest.approx(models[0].reconstruction_err_ * 2 ** (exponent / 2))


def test_memory_is_that_of_the_entries() -> None:
    n, p, k, count = 3000, 2000, 64, 60_000
    rng = np.random.default_rng(0)
    places = rng.choice(n * p, count, replace=False)
    a = sp.csr_array((rng.random(count), (places // p, places % p)), shape=(n, p)).tocoo()
    stored = BCOO((jnp.asarray(a.data), jnp.stack([jnp.asarray(a.row), jnp.asarray(a.col)], 1)), shape=(n, p))
    target = Target(nonzeros_of(stored, k, 1.0))
    held = sum(x.nbytes for x in jax.tree.leaves(target.a))
    assert held < 2 * 2 * count * 12
    zt, d = (jnp.ones((k, m)) for m in (n, p))
    used = STEPS[1.0].lower(zt, d, target).compile().memory_analysis().temp_size_in_bytes
    # Gathered columns of the dictionary for all entries, or the reconstruction, would be 8 k count and 8 n p bytes.
    assert used < 6 * (zt.nbytes + d.nbytes) + 8 * 2 * nonzeros.GATHERED < min(8 * k * count, 8 * n * p)


@pytest.mark.slow
def test_what_has_no_derivative_says_so() -> None:
    a, (_, d) = jnp.asarray(holes(9, 30, 0.1)), factors(9, 30, 2)
    how = Settings("mu", 1.0)
    given = BCOO.fromdense(a)
    codes, report = solve_codes(given, jnp.asarray(d), Penalties(), None, how)
    np.testing.assert_allclose(codes.T, encode(a, d, settings=how), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(codes.T, encode(given, d, settings=how), rtol=1e-6, atol=1e-9)
    assert bool(report.converged)
    with pytest.raises(ValueError, match="sparse A have no derivative"):
        jax.grad(lambda d: jnp.sum(encode(given, d, settings=how)))(jnp.asarray(d))
    with pytest.raises(ValueError, match="traced by jax.jit"):
        jax.jit(lambda a: encode(a, d, settings=how))(given)
    with pytest.raises(ValueError, match="has zeros"):
        encode(given, d, settings=Settings("mu", 0.0))


def test_zeros_are_refused_where_they_cost_infinitely_much() -> None:
    for model in (NMF(2, solver="mu", beta_loss=0), NMF(2, solver="mu", beta_loss=-1.0)):
        for method in (model.fit, model.partial_fit):
            with pytest.raises(ValueError, match="zeros"):
                method(sp.csr_array(holes(9, 8, 0.5)))


def test_rows_that_are_much_longer_than_others() -> None:
    a = np.zeros((40, 600))
    a[7], a[np.arange(40), np.arange(40)] = np.arange(600) + 1.0, 2.0
    zt, d = factors(40, 600, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nonzeros, "GATHERED", 64)
        sparse = in_blocks(a, 2, 1.0)
    np.testing.assert_allclose(beta_terms(sparse, zt.T, d, 1.0)[0], beta_terms(a, zt.T, d, 1.0)[0], rtol=1e-12)
    assert math.prod(sparse.data.shape) < 40 * 600
