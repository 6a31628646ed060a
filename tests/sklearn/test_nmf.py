"""The estimator in scikit-learn's protocol."""

import warnings
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import sparse as jsparse
from scipy import sparse

from deepnmf_jax import decomposition

sklearn = pytest.importorskip("sklearn")

from sklearn.base import clone  # noqa: E402
from sklearn.exceptions import ConvergenceWarning, NotFittedError  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import MinMaxScaler  # noqa: E402
from sklearn.utils import get_tags  # noqa: E402

from deepnmf_jax.sklearn import NMF, MiniBatchNMF  # noqa: E402
from deepnmf_jax.sklearn.checks import readable  # noqa: E402


def data(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.random((20, 3)) @ rng.random((3, 8)) + 0.05 * rng.random((20, 8))


def test_it_is_the_core() -> None:
    a = data()
    model = NMF(3, random_state=0, max_iter=300)
    w = model.fit_transform(a)
    assert isinstance(model.fit(a), NMF)
    np.testing.assert_allclose(w, model.transform(a), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(model.inverse_transform(w), w @ model.components_)
    assert model.reconstruction_err_ == pytest.approx(np.linalg.norm(a - w @ model.components_), rel=1e-9)
    assert model.n_components_ == 3 and model.n_features_in_ == 8 and model.n_iter_ > 0
    assert list(model.get_feature_names_out()) == ["nmf0", "nmf1", "nmf2"]


def test_same_objective_as_scikit_learn() -> None:
    from sklearn.decomposition import NMF as Reference

    a = data()
    penalties = {"alpha_W": 0.002, "alpha_H": 0.001, "l1_ratio": 0.5}
    rng = np.random.default_rng(1)
    w0, h0 = rng.random((20, 3)), rng.random((3, 8))
    theirs = Reference(3, init="custom", tol=1e-10, max_iter=3000, **penalties)
    ours = NMF(3, init="custom", tol=1e-9, max_iter=3000, inner_iter=1, **penalties)
    w, w_ours = theirs.fit_transform(a, W=w0.copy(), H=h0.copy()), ours.fit_transform(a, W=w0, H=h0)
    np.testing.assert_allclose(w_ours @ ours.components_, w @ theirs.components_, atol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_pipeline_grid_search_and_clone() -> None:
    a = data()
    pipeline = make_pipeline(MinMaxScaler(clip=True), NMF(2, solver="mu", max_iter=20, random_state=0))
    assert pipeline.fit_transform(a).shape == (20, 2)

    def score(model: NMF, a: np.ndarray, y: object = None) -> float:
        return -float(np.linalg.norm(a - model.inverse_transform(model.transform(a))))

    model = NMF(solver="mu", max_iter=100, random_state=0)
    search = GridSearchCV(model, {"n_components": [1, 3]}, scoring=score, cv=2).fit(a)
    assert search.best_params_ == {"n_components": 3}
    copy = clone(search.best_estimator_)
    assert copy.get_params() == search.best_estimator_.get_params() and not hasattr(copy, "components_")


def test_warnings_are_scikit_learns() -> None:
    for fit in (NMF.fit, NMF.fit_transform):
        with pytest.warns(ConvergenceWarning, match="max_iter = 2") as seen:
            fit(NMF(2, max_iter=2), data())
        assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        NMF(2, max_iter=2, tol=0).fit(data())


def start(k: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.random((20, k)), rng.random((k, 8))


@pytest.mark.parametrize("kind", [np.asarray, np.ndarray.tolist, lambda x: x.astype(">f8")], ids=["own", "list", "big"])
def test_a_given_start_says_how_many_components(kind: Callable) -> None:
    w, h = start()
    model = NMF(init="custom", max_iter=1, tol=0)
    kept = w.copy(), h.copy()
    # The data are what the start makes: a sweep leaves it as it is, and no other start is there after one.
    assert model.fit_transform(w @ h, W=kind(w), H=kind(h)).shape == (20, 3)
    np.testing.assert_allclose(model.components_, h, rtol=1e-6)
    assert model.n_components_ == 3
    np.testing.assert_array_equal(w, kept[0])
    np.testing.assert_array_equal(h, kept[1])


W, H = start()
WRONG_STARTS = {
    "W alone": (W, None, ValueError, "H is missing"),
    "H alone": (None, H, ValueError, "W is missing"),
    "neither": (None, None, ValueError, "W and H is missing"),
    "too few samples": (W[:5], H, ValueError, r"wrong first dimension passed to NMF \(input W\). Expected 20"),
    "other features": (W, H[:, :3], ValueError, r"wrong second dimension passed to NMF \(input H\). Expected 8"),
    "widths differ": (W[:, :2], H, ValueError, r"wrong second dimension passed to NMF \(input W\). Expected 3"),
    "one axis": (W[:, 0], H, ValueError, "2D"),
    "negative": (W, -H, ValueError, r"Negative values in data passed to NMF \(input H\)"),
    "zeros": (0 * W, H, ValueError, r"NMF \(input W\) is full of zeros"),
    "NaN": (np.where(W < 0.1, np.nan, W), H, ValueError, "W contains NaN"),
    "infinite": (W, np.where(H < 0.1, np.inf, H), ValueError, "H contains infinity"),
    "complex": (W + 1j, H, ValueError, "Complex"),
    "masked": (np.ma.masked_less(W, 0.5), H, ValueError, "W is a masked array"),
    "other float": (W.astype(np.float32), H, TypeError, "same dtype as X, float64, but W has float32"),
    "integers": (W, np.ones_like(H, int), ValueError, "H has int"),
    "sparse": (sparse.csr_array(W), H, TypeError, "dense"),
}


@pytest.mark.parametrize(("w", "h", "error", "message"), WRONG_STARTS.values(), ids=WRONG_STARTS)
def test_starts_that_are_refused(w: object, h: object, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        NMF(init="custom").fit(data(), W=w, H=h)


def test_a_start_has_the_components_that_were_asked_for() -> None:
    w, h = start()
    for k, wanted in ((2, 2), (None, 8)):
        with pytest.raises(ValueError, match=f"Expected {wanted}, but got 3"):
            NMF(k, init="custom").fit(data(), W=w, H=h)


def test_a_start_that_is_not_used_is_not_silent() -> None:
    w, h = start()
    with pytest.warns(RuntimeWarning, match="provided W or H are ignored") as seen:
        NMF(3, max_iter=1, tol=0).fit(data(), W=w, H=h)
    assert seen[0].filename == __file__


def test_nothing_of_a_fit_is_reported_after_batches() -> None:
    a = data()
    model = NMF(3, max_iter=300, random_state=0).fit(a)
    error, sweeps = model.reconstruction_err_, model.n_iter_
    assert sweeps > 2
    assert model.partial_fit(9 * a).n_iter_ == 1 and not hasattr(model, "reconstruction_err_")
    assert model.partial_fit(a).n_iter_ == 2
    assert model.transform(a).shape == (20, model.n_components_) and len(model.components_) == 3
    model.fit(a)
    assert (model.reconstruction_err_, model.n_iter_) == (error, sweeps)
    assert model.partial_fit(a).n_iter_ == 1


def test_batches_and_given_starts_exclude_each_other() -> None:
    a, (w, h) = data(), start()
    for given in ({}, {"W": w, "H": h}):
        with pytest.raises(ValueError, match="partial_fit starts from its first batch"):
            NMF(3, init="custom").partial_fit(a, **given)
    with pytest.raises(ValueError, match="partial_fit starts from its first batch"):
        NMF(3).partial_fit(a, H=h)


def test_what_was_refused_is_not_fitted() -> None:
    a, model = data(), NMF(3)
    with pytest.raises(ValueError, match="Negative values"):
        model.partial_fit(-a)
    with pytest.raises(ValueError, match="max_iter"):
        model.set_params(max_iter=0).fit(a)
    with pytest.raises(NotFittedError):
        model.transform(a)
    with pytest.raises(NotFittedError):
        model.inverse_transform(a[:, :3])


def test_inverse_transform_takes_all_kinds_of_codes() -> None:
    pd = pytest.importorskip("pandas")
    model = NMF(3, max_iter=300, random_state=0).fit(data())
    codes = np.where(start()[0] < 0.5, 0, start()[0])
    right = codes @ model.components_
    kinds = (
        codes.tolist(),
        pd.DataFrame(codes, columns=["a", "b", "c"]),
        codes.astype(">f8"),
        np.asfortranarray(codes),
    )
    containers = (sparse.csr_array, sparse.csc_matrix, sparse.coo_array)
    for given in (*kinds, *(container(codes) for container in containers)):
        found = model.inverse_transform(given)
        assert type(found) is np.ndarray
        np.testing.assert_allclose(found, right, rtol=1e-12)
    np.testing.assert_array_equal(model.inverse_transform(np.eye(3, dtype=int)), model.components_)
    assert model.inverse_transform(codes[:0]).shape == (0, 8)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.ones((4, 5)), "X has 5 columns, but there are 3 components"),
        (sparse.csr_array(np.ones((4, 2))), "X has 2 columns, but there are 3 components"),
        (np.ones(3), "2D"),
        (np.full((2, 3), np.nan), "NaN"),
        (np.ma.masked_array(np.ones((1, 3)), [[0, 1, 0]]), "masked"),
    ],
)
def test_codes_that_are_refused(codes: object, message: str) -> None:
    model = NMF(3, max_iter=300, random_state=0).fit(data())
    with pytest.raises(ValueError, match=message):
        model.inverse_transform(codes)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("solver", "beta_loss"),
    [
        *((solver, "frobenius") for solver in ("cd", "hals", "mu", "anls", "pgd")),
        *(("mu", beta_loss) for beta_loss in ("kullback-leibler", "itakura-saito", np.float64(2), 1.5)),
        ("cd", "kullback-leibler"),
        ("nonsense", "frobenius"),
        ("mu", "nonsense"),
    ],
)
def test_tags_and_methods_tell_the_truth(solver: str, beta_loss: object) -> None:
    model = NMF(3, solver=solver, beta_loss=beta_loss, max_iter=1)

    def takes(work: Callable) -> bool:
        try:
            work()
        except ValueError:
            return False
        return True

    tags, a = get_tags(model), data()
    valid = takes(lambda: model.fit(a))
    assert not takes(lambda: model.fit(-a))
    if valid:
        holes = sparse.csr_array(np.where(a > np.median(a), a, 0))
        assert tags.input_tags.sparse == takes(lambda: model.fit(holes))
        assert get_tags(MiniBatchNMF(beta_loss=beta_loss)).input_tags.sparse == tags.input_tags.sparse
    assert tags.input_tags.positive_only
    assert hasattr(model, "partial_fit") == takes(lambda: clone(model).partial_fit(a))


def test_a_method_that_is_not_there_says_why() -> None:
    with pytest.raises(ValueError, match="NMF.partial_fit: batches for the squared error"):
        NMF(3, solver="mu").partial_fit(data())


def test_masked_data_are_refused() -> None:
    hidden = np.ma.masked_less(data(), 0.5)
    for given in (hidden, list(hidden)):
        with pytest.raises(ValueError, match="masked array"):
            NMF(3).fit(given)


def test_a_sample_without_a_stored_entry_has_codes_of_0() -> None:
    model = NMF(3, max_iter=300, random_state=0).fit(data())
    np.testing.assert_array_equal(model.transform(sparse.csr_matrix((1, data().shape[1]))), np.zeros((1, 3)))


@pytest.mark.slow
def test_sparse_matrices_of_jax_are_scipys() -> None:
    holes = np.where(data() > 0.7, data(), 0).astype(np.float32)
    plain = jsparse.BCOO.fromdense(jnp.asarray(holes))
    halves = jsparse.BCOO((jnp.tile(plain.data / 2, 2), jnp.tile(plain.indices, (2, 1))), shape=plain.shape)
    rows = jsparse.BCOO.fromdense(jnp.asarray(holes), n_dense=1)
    for given in (plain, halves, rows, jsparse.BCSR.fromdense(jnp.asarray(holes))):
        found = readable(given)
        assert sparse.issparse(found) and found.dtype == np.float32
        np.testing.assert_allclose(found.toarray(), holes, rtol=1e-6)
    rounded = readable(jsparse.BCOO.fromdense(jnp.asarray(holes, jnp.bfloat16)))
    np.testing.assert_allclose(rounded.toarray(), holes, rtol=1e-2)
    # Said by what reads them, so the estimators hand them on.
    for method in (NMF(3).fit, NMF(3).partial_fit, MiniBatchNMF(3).fit):
        with pytest.raises(ValueError, match="complex"):
            method(jsparse.BCOO.fromdense(jnp.ones((20, 3), jnp.complex64)))


def test_names_of_columns() -> None:
    pd = pytest.importorskip("pandas")
    a = pd.DataFrame(data(), columns=list("abcdefgh"))
    model = NMF(3, max_iter=300, random_state=0).set_output(transform="pandas")
    codes = model.fit_transform(a)
    assert list(codes.columns) == list(model.get_feature_names_out()) and list(codes.index) == list(a.index)
    assert list(model.partial_fit(a).feature_names_in_) == list("abcdefgh")
    with pytest.raises(ValueError, match="feature names"):
        model.transform(a.rename(columns={"a": "z"}))
    assert model.inverse_transform(model.transform(a)).shape == (20, 8)


def test_solver_names_and_arguments() -> None:
    a = data()
    np.testing.assert_array_equal(
        NMF(2, solver="cd", max_iter=5, tol=0, random_state=0).fit_transform(a),
        NMF(2, solver="hals", max_iter=5, tol=0, random_state=0).fit_transform(a),
    )
    with pytest.raises(ValueError, match="solver"):
        NMF(2, solver="adam").fit(a)
    with pytest.raises(ValueError, match="custom"):
        NMF(2, init="custom").fit(a)
    assert issubclass(decomposition.ConvergenceWarning, UserWarning)
