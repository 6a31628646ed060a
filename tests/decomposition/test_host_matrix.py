"""What SciPy multiplies in place of compiled products gives what these and dense matrices give."""

import warnings
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental.sparse import BCOO

from deepnmf_jax import NMF, SymmetricNMF, compiled
from deepnmf_jax.decomposition import ConvergenceWarning, nmf
from deepnmf_jax.decomposition.io.host_matrix import HostMatrix
from deepnmf_jax.decomposition.updates.linear_algebra import product
from deepnmf_jax.decomposition.updates.starts import INITS

sparse = pytest.importorskip("scipy.sparse")


@pytest.fixture(autouse=True)
def limits_may_be_reached() -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)


def words(n: int = 40, p: int = 25, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    a = rng.random((n, 3)) @ rng.random((3, p)) * (rng.random((n, p)) < 0.3)
    return sparse.csr_matrix(a)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(0, 99))
def test_products_from_both_sides(n: int, p: int, k: int, seed: int) -> None:
    a, rng = words(n, p, seed), np.random.default_rng(seed)
    ours, left, right = HostMatrix(sparse.csr_array(a)), rng.random((k, n)), rng.random((p, k))
    np.testing.assert_allclose(product(ours, right), a.toarray() @ right)
    np.testing.assert_allclose(product(left, ours), left @ a.toarray())
    np.testing.assert_allclose(product(right.T, ours.T), right.T @ a.toarray().T)
    np.testing.assert_allclose(ours.row_sums(2), (a.toarray() ** 2).sum(1))
    np.testing.assert_allclose(ours.T.gram(), a.toarray() @ a.toarray().T)
    assert ours.T.shape == (p, n) and ours.T.T.shape == (n, p)


def test_a_product_is_kept_for_the_same_factor_alone() -> None:
    a = words()
    ours, dense = HostMatrix(sparse.csr_array(a)), a.toarray()
    first, second = jnp.asarray(np.random.default_rng(0).random((2, 25, 4)))
    found = product(ours, first)
    assert product(ours, first) is found
    np.testing.assert_allclose(product(ours, second), dense @ second)
    np.testing.assert_allclose(product(ours, first), dense @ first)
    # What is kept of one side is not taken for the other.
    even = words(25, 25).toarray()
    both = HostMatrix(sparse.csr_array(even))
    np.testing.assert_allclose(product(both, first), even @ first)
    np.testing.assert_allclose(product(both.T, first), even.T @ first)
    # Views of one array, and an array that is written to between two calls.
    np.testing.assert_allclose(product(ours, np.asarray(first)[:, :2]), dense @ np.asarray(first)[:, :2])
    square = jnp.asarray(np.random.default_rng(1).random((25, 25)))
    np.testing.assert_allclose(product(ours, square), dense @ square)
    np.testing.assert_allclose(product(ours, np.asarray(square).T), dense @ np.asarray(square).T)
    factor = np.ones((25, 1))
    product(ours, factor)
    factor *= 2
    np.testing.assert_allclose(product(ours, factor), dense @ factor)


SETTINGS: dict[str, dict[str, Any]] = {
    **{init: {"init": init} for init in INITS},
    "more atoms than columns": {"nb_concepts": 30, "init": "random"},
    "multiplicative": {"solver": "mu", "init": "random", "inner_iter": 2},
    "least squares": {"solver": "anls"},
    "gradients": {"solver": "pgd"},
    "penalties": {"alpha_W": 0.002, "alpha_H": 0.001, "l1_ratio": 0.4},
    "overlap": {"ortho_H": 0.01, "alpha_W": 0.01},
    "restarts": {"n_restarts": 3},
    "shuffled": {"shuffle": True},
    "known": {"known_D": np.where(np.arange(25) < 5, 0.0, np.nan)[None].repeat(2, 0)},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_fit_is_that_of_the_dense_matrix(name: str) -> None:
    named = {"nb_concepts": 4, "max_iter": 12, "tol": 0.0, "dtype": "float64"} | SETTINGS[name]
    a = words()
    ours, dense = NMF(**named), NMF(**named)
    (z, d), (expected_z, expected_d) = ours.fit(a), dense.fit(a.toarray())
    if name == "more atoms than columns":
        # Codes are not unique then.
        assert ours.reconstruction_err_ == pytest.approx(dense.reconstruction_err_, abs=1e-3)
        return
    np.testing.assert_allclose(z @ d, expected_z @ expected_d, atol=1e-6)
    np.testing.assert_allclose(d, expected_d, atol=1e-6)
    np.testing.assert_allclose(ours.loss_history_, dense.loss_history_, rtol=1e-8)
    np.testing.assert_allclose(ours.encode(a), z, atol=1e-6)
    assert ours.report_ is not None and dense.report_ is not None
    np.testing.assert_allclose(ours.report_, dense.report_, rtol=1e-4, atol=1e-9)


@pytest.mark.slow
def test_a_fit_is_that_of_compiled_products(monkeypatch: pytest.MonkeyPatch) -> None:
    a = words(300, 120)
    (z, d), start = NMF(5, max_iter=40, tol=0, dtype="float64").fit(a), None
    monkeypatch.setattr(nmf, "host_matrix_of", lambda a: a)
    expected = NMF(5, max_iter=40, tol=0, dtype="float64").fit(a, init=start)
    for found, wanted in zip((z, d), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_dead_atoms_are_replaced() -> None:
    a = words()
    z, d = np.random.default_rng(0).random((40, 4)), np.random.default_rng(1).random((4, 25))
    z[:, 1], d[1] = 0, 0
    models = NMF(4, max_iter=40, tol=0, dtype="float64"), NMF(4, max_iter=40, tol=0, dtype="float64")
    found, expected = models[0].fit(a, init=(z, d)), models[1].fit(a.toarray(), init=(z, d))
    assert models[0].report_ is not None and models[0].report_.n_revived == 1
    # The unit of the new atom is that of the mean of what is stored.
    np.testing.assert_allclose(found[0] @ found[1], expected[0] @ expected[1], atol=1e-6)


@pytest.mark.slow
def test_another_pattern_of_the_same_shape_has_the_same_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    counter = compiled.Bound(programs=1_000_000)
    monkeypatch.setattr(compiled, "BOUND", counter)

    def programs(seed: int) -> int:
        before = counter.compiled
        NMF(3, max_iter=5).fit(words(seed=seed))
        return counter.compiled - before

    first, second = programs(1), programs(2)
    # Both arrays of the entries are copied, each by a program for their number.
    assert second <= 2 < first


def test_a_bar_shows_the_fit(capsys: pytest.CaptureFixture[str]) -> None:
    model = NMF(3, max_iter=30, tol=0, verbose=True)
    model.fit(words())
    assert "30/30" in capsys.readouterr().err


@pytest.mark.parametrize(
    "named",
    [{}, *(pytest.param({"solver": "mu", "beta_loss": beta}, marks=pytest.mark.slow) for beta in (1, 1.5))],
)
def test_nothing_stored_is_a_matrix_of_zeros(named: dict[str, Any]) -> None:
    a, named = words(), {"nb_concepts": 3, "max_iter": 4, "tol": 0.0, "dtype": "float64"} | named
    nothing = sparse.csr_matrix((2, 25))
    for empty in (nothing, BCOO.fromdense(jnp.zeros((2, 25)))):
        assert empty.data.size == 0
        model = NMF(**named)
        z, d = model.fit(empty)
        assert z.shape == (2, 3) and d.shape == (3, 25) and not np.any(z) and not np.any(d)
        model.fit(a)
        codes = model.encode(empty)
        assert codes.shape == (2, 3) and not np.any(codes)
    # Among batches it has a place as zeros that are written out have.
    for batches in ([a, nothing], [nothing, a]):
        dense = [batch.toarray() for batch in batches]
        for found, expected in zip(NMF(**named).fit(batches), NMF(**named).fit(dense), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-6)
        ours, theirs = NMF(**named), NMF(**named)
        for batch, written in zip(batches, dense, strict=True):
            np.testing.assert_allclose(ours.partial_fit(batch).D, theirs.partial_fit(written).D, atol=1e-6)


def test_nothing_stored_of_similarities_and_of_what_takes_no_zeros() -> None:
    assert not np.any(SymmetricNMF(2).fit(sparse.csr_matrix((5, 5)))[0])
    with pytest.raises(ValueError, match="A has 10 zeros"):
        NMF(2, solver="mu", beta_loss=0).fit(sparse.csr_matrix((2, 5)))
