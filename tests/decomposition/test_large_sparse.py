"""Sparse matrices of more entries than 32 bits count: nothing of n x p is made."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.sparse import BCOO

from deepnmf_jax import NMF, ConvexNMF, SemiNMF
from deepnmf_jax.decomposition import ConvergenceWarning, choose_k
from deepnmf_jax.decomposition.io.checked import check_shape
from deepnmf_jax.decomposition.updates import starts

sparse = pytest.importorskip("scipy.sparse")
N, P = 70_001, 40_001


@pytest.fixture(autouse=True)
def limits_may_be_reached() -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)


def corner(dtype: str = "float32") -> np.ndarray:
    """All that is stored: rows and columns at the end, numbered beyond 32 bits where they are flattened."""
    return np.random.default_rng(0).random((6, 5)).astype(dtype)


def large(dtype: str = "float32", shape: tuple[int, int] = (N, P)) -> sparse.csr_matrix:
    (rows, columns), values = np.indices((6, 5)).reshape(2, -1), corner(dtype).ravel()
    return sparse.csr_matrix((values, (shape[0] - 6 + rows, shape[1] - 5 + columns)), shape=shape)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "init"),
    [
        ("float32", "random"),
        pytest.param("float64", "random", marks=pytest.mark.slow),
        pytest.param("float32", "nndsvda", marks=pytest.mark.slow),
        pytest.param("float64", "nndsvda", marks=pytest.mark.slow),
    ],
)
def test_fit_and_codes(dtype: str, init: str) -> None:
    a = large(dtype)
    model = NMF(2, init=init, max_iter=25, tol=0, alpha_W=1e-9)
    z, d = model.fit(a)
    assert z.shape == (N, 2) and d.shape == (2, P)
    error = np.linalg.norm(z[-6:] @ d[:, -5:] - corner(dtype))
    assert error < 0.35 * np.linalg.norm(corner(dtype)) and not z[:-6].any() and not d[:, :-5].any()
    assert model.reconstruction_err_ == pytest.approx(error, rel=1e-3)
    np.testing.assert_allclose(model.encode(a), z, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_every_other_entry() -> None:
    a = large()
    expected = NMF(2, solver="anls", max_iter=3, tol=0).fit(a)[1]
    coo = a.tocoo()
    stored = BCOO((jnp.asarray(coo.data), jnp.stack([jnp.asarray(coo.row), jnp.asarray(coo.col)], 1)), shape=a.shape)
    np.testing.assert_allclose(NMF(2, solver="anls", max_iter=3, tol=0).fit(stored)[1], expected, atol=1e-5)
    model = NMF(2)
    for _ in range(3):
        model.partial_fit(a)
    assert np.linalg.norm(model.encode(a)[-6:] @ model.D[:, -5:] - corner()) < 0.4 * np.linalg.norm(corner())
    assert NMF(2, max_iter=2).fit([a, a])[0].shape == (2 * N, 2)
    assert model.init_random_z(a).shape == (N, 2)


@pytest.mark.slow
def test_kullback_leibler() -> None:
    a = large("float64")
    # Rows of zeros have no part in it.
    expected = NMF(2, solver="mu", beta_loss=1, init="random", max_iter=20)
    expected.fit(corner("float64"))
    model = NMF(2, solver="mu", beta_loss=1, init="random", max_iter=20)
    z, d = model.fit(a)
    assert z.shape == (N, 2) and not z[:-6].any() and not d[:, :-5].any()
    assert model.reconstruction_err_ == pytest.approx(expected.reconstruction_err_, rel=0.2)
    np.testing.assert_array_equal(model.encode(a), z)
    model.partial_fit(a)
    assert model.D.shape == (2, P) and np.isfinite(model.D).all()


def test_what_would_write_it_out_is_refused() -> None:
    a = large()
    for fit in (
        SemiNMF(2).fit,
        ConvexNMF(2).fit,
        lambda x: choose_k(x, [2]),
        lambda x: NMF(2).fit(x, mask=np.ones(2)),
        lambda x: NMF(2).fit(x, weights=np.ones(N)),
    ):
        with pytest.raises(ValueError, match="sparse|dense"):
            fit(a)
    with pytest.raises(ValueError, match="split it"):
        check_shape((3, 2**31))


def test_the_gram_matrix_is_made_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    a = corner("float64")
    stored = BCOO.fromdense(jnp.asarray(a))
    for entries in (1, 12, 10**6):
        monkeypatch.setattr(starts, "BLOCK_ENTRIES", entries)
        np.testing.assert_allclose(starts._gram(stored), a.T @ a, rtol=1e-12)
