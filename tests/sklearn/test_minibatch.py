"""`MiniBatchNMF` against scikit-learn's, and the function `non_negative_factorization`."""

import numpy as np
import pytest
from scipy import sparse

sklearn = pytest.importorskip("sklearn")

from sklearn import decomposition as theirs  # noqa: E402

from deepnmf_jax.sklearn import NMF, MiniBatchNMF, non_negative_factorization  # noqa: E402

RNG = np.random.default_rng(0)
X, W, H = RNG.random((20, 6)) + 0.1, RNG.random((20, 3)) + 0.1, RNG.random((3, 6)) + 0.1
PLAIN = {"init": "custom", "tol": 0, "max_no_improvement": None, "max_iter": 3, "batch_size": 8, "random_state": 0}


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 2.0, 3.0])
def test_each_step_is_scikit_learns(beta: float) -> None:
    more = {"alpha_W": 0.01, "l1_ratio": 1.0, "beta_loss": beta, "forget_factor": 0.5}
    expected = theirs.MiniBatchNMF(3, **PLAIN, **more)
    codes = expected.fit_transform(X, W=W.copy(), H=H.copy())
    ours = MiniBatchNMF(3, **PLAIN, **more)
    np.testing.assert_allclose(ours.fit_transform(X, W=W, H=H), codes, rtol=1e-9)
    np.testing.assert_allclose(ours.components_, expected.components_, rtol=1e-9)
    assert (ours.n_iter_, ours.n_steps_) == (expected.n_iter_, expected.n_steps_) == (3, 9)
    assert ours.reconstruction_err_ == pytest.approx(expected.reconstruction_err_, rel=1e-9)


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_batches_one_by_one_are_scikit_learns_too(beta: float) -> None:
    models = [kind(3, **PLAIN, beta_loss=beta) for kind in (MiniBatchNMF, theirs.MiniBatchNMF)]
    for part in (slice(0, 8), slice(8, 16)):
        for model in models:
            model.partial_fit(X[part], W=W[part].copy(), H=H.copy())
    np.testing.assert_allclose(models[0].components_, models[1].components_, rtol=1e-9)
    assert models[0].n_steps_ == 2 and not hasattr(models[0], "reconstruction_err_")
    for model in models:
        model.fit(X, W=W.copy(), H=H.copy())
        model.partial_fit(X[:8])
    np.testing.assert_allclose(models[0].components_, models[1].components_, rtol=1e-9)


@pytest.mark.parametrize("beta_loss", [1, 1.5])
def test_sparse_data_give_what_dense_give(beta_loss: float) -> None:
    holes = np.where(X > 0.5, X, 0)
    dense, thin = (MiniBatchNMF(3, **PLAIN, beta_loss=beta_loss) for _ in range(2))
    expected = dense.fit_transform(holes, W=W, H=H)
    np.testing.assert_allclose(thin.fit_transform(sparse.csr_array(holes), W=W, H=H), expected, rtol=1e-10, atol=1e-12)
    assert thin.transform(sparse.csr_array(holes[:5])).shape == (5, 3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_sparse_kullback_leibler_gives_what_dense_gives() -> None:
    holes = np.where(X > 0.5, X, 0)
    model = NMF(3, solver="mu", beta_loss="kullback-leibler", max_iter=3, tol=1e-6, random_state=0)
    dense, codes = model.fit_transform(holes), model.transform(holes[:5])
    np.testing.assert_allclose(model.fit_transform(sparse.csc_array(holes)), dense, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(model.transform(sparse.csr_array(holes[:5])), codes, rtol=1e-9, atol=1e-12)


def test_a_held_dictionary_stays_and_gets_the_codes_of_transform() -> None:
    model = NMF(3, random_state=0, alpha_W=0.01, l1_ratio=1.0).fit(X)
    codes, held, _ = non_negative_factorization(
        X, H=model.components_, update_H=False, random_state=0, alpha_W=0.01, l1_ratio=1.0
    )
    np.testing.assert_array_equal(held, model.components_)
    np.testing.assert_array_equal(codes, model.transform(X))
    with pytest.raises(ValueError, match="H is missing"):
        non_negative_factorization(X, n_components=3, update_H=False)
    with pytest.warns(RuntimeWarning, match="initial W is not used"):
        non_negative_factorization(X, W=W, H=H, update_H=False)


def test_a_shuffled_fit_keeps_the_order_of_the_components() -> None:
    start = {"init": "custom", "max_iter": 1, "tol": 0, "inner_iter": 1}
    apart = np.eye(3, 6) + 0.05
    plain, shuffled = (
        NMF(3, shuffle=shuffle, random_state=2, **start).fit(X, W=W, H=apart) for shuffle in (False, True)
    )
    assert not np.allclose(plain.components_, shuffled.components_, rtol=1e-6)
    nearest = np.argmin(np.linalg.norm(plain.components_[:, None] - shuffled.components_, axis=2), axis=1)
    np.testing.assert_array_equal(nearest, [0, 1, 2])
