"""The estimator in scikit-learn's protocol."""

import warnings

import numpy as np
import pytest

from deepnmf_jax import decomposition

sklearn = pytest.importorskip("sklearn")

from sklearn.base import clone  # noqa: E402
from sklearn.exceptions import ConvergenceWarning  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import MinMaxScaler  # noqa: E402
from sklearn.utils.estimator_checks import estimator_checks_generator  # noqa: E402

from deepnmf_jax.sklearn import NMF  # noqa: E402


def data(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.random((20, 3)) @ rng.random((3, 8)) + 0.05 * rng.random((20, 8))


# The protocol is that of every solver. The programs of "mu" compile fastest, but it takes no batches (`partial_fit`).
WITH_BATCHES = {"check_fit_score_takes_y", "check_n_features_in_after_fitting"}


def name_of(check: object) -> str:
    return getattr(getattr(check, "func", check), "__name__", "")


CHECKS = [
    pair
    for solver in ("mu", "hals")
    for pair in estimator_checks_generator(NMF(2, solver=solver, max_iter=30), legacy=True, mark=None)
    if (name_of(pair[1]) in WITH_BATCHES) == (solver == "hals")
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("estimator", "check"), CHECKS, ids=name_of)
def test_estimator_checks(estimator: NMF, check: object) -> None:
    check(estimator)  # type: ignore[operator]


def test_it_is_the_core() -> None:
    a = data()
    model = NMF(3, random_state=0, max_iter=300)
    w = model.fit_transform(a)
    assert isinstance(model.fit(a), NMF)
    np.testing.assert_array_equal(w, model.transform(a))
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
    with pytest.warns(ConvergenceWarning, match="max_iter = 2"):
        NMF(2, max_iter=2).fit(data())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        NMF(2, max_iter=2, tol=0).fit(data())


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
