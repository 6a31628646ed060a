"""Dn2MFGL in scikit-learn's protocol: the checks of theirs that do not depend on the codes of single samples."""

import warnings

import numpy as np
import pytest

sklearn = pytest.importorskip("sklearn")

from sklearn.base import clone  # noqa: E402
from sklearn.exceptions import ConvergenceWarning, NotFittedError  # noqa: E402
from sklearn.utils.estimator_checks import estimator_checks_generator  # noqa: E402

from deepnmf_jax import decomposition  # noqa: E402
from deepnmf_jax.sklearn import Dn2MFGL  # noqa: E402

# The whole battery compiles for minutes. Left out too: those that compare `transform` with `fit_transform`, whose
# codes know their neighbours, and the one that clusters negative data.
CHEAP = {
    "check_estimator_cloneable", "check_estimator_tags_renamed", "check_no_attributes_set_in_init",
    "check_fit_score_takes_y", "check_estimators_unfitted", "check_n_features_in_after_fitting",
    "check_estimators_nan_inf", "check_complex_data", "check_get_params_invariance", "check_set_params",
    "check_dont_overwrite_attributes", "check_positive_only_tag_during_fit", "check_fit2d_predict1d",
}  # fmt: skip


def name_of(check: object) -> str:
    return getattr(getattr(check, "func", check), "__name__", "")


MODEL = Dn2MFGL((2,), n_clusters=2, n_neighbors=2, max_iter=5)
CHECKS = [pair for pair in estimator_checks_generator(MODEL, legacy=True, mark=None) if name_of(pair[1]) in CHEAP]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("estimator", "check"), CHECKS, ids=lambda x: name_of(x))
def test_estimator_checks(estimator: Dn2MFGL, check: object) -> None:
    check(estimator)  # type: ignore[operator]


def test_it_is_the_core() -> None:
    x = np.random.default_rng(0).random((20, 6))
    model = Dn2MFGL((2,), alpha=1.0, max_iter=10)
    with pytest.raises(NotFittedError):
        model.transform(x)
    with pytest.warns(ConvergenceWarning):
        codes = model.fit_transform(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", decomposition.ConvergenceWarning)
        core = decomposition.Dn2MFGL((2,), alpha=1.0, max_iter=10).fit(x)
    np.testing.assert_array_equal(codes, core.embedding_)
    np.testing.assert_array_equal(model.transform(x), core.transform(x))
    assert list(model.get_feature_names_out()) == ["dn2mfgl0", "dn2mfgl1"]
    assert clone(model).get_params() == core.get_params()
