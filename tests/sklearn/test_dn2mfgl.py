"""Dn2MFGL in scikit-learn's protocol."""

import warnings

import numpy as np
import pytest

sklearn = pytest.importorskip("sklearn")

from scipy import sparse  # noqa: E402
from sklearn.base import clone, is_clusterer  # noqa: E402
from sklearn.exceptions import ConvergenceWarning, NotFittedError  # noqa: E402
from sklearn.utils import get_tags  # noqa: E402

from deepnmf_jax import decomposition  # noqa: E402
from deepnmf_jax.sklearn import Dn2MFGL  # noqa: E402


@pytest.mark.slow
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


@pytest.mark.parametrize("kind", [Dn2MFGL, decomposition.Dn2MFGL])
def test_tags_tell_the_truth(kind: type) -> None:
    codes_alone, clusters = kind((2,)), kind((2,), n_clusters=3, dtype="float32")
    assert (is_clusterer(codes_alone), is_clusterer(clusters)) == (False, True)
    for model, kept in ((codes_alone, ["float64", "float32"]), (clusters, ["float32"])):
        tags = get_tags(model)
        assert tags.transformer_tags.preserves_dtype == kept
        assert tags.input_tags.sparse and tags.input_tags.positive_only


def test_methods_of_clusters_are_there_with_clusters() -> None:
    model = Dn2MFGL((2,), n_clusters=None)
    for name in ("predict", "fit_predict"):
        assert not hasattr(model, name) and hasattr(Dn2MFGL((2,), n_clusters=2), name) and hasattr(Dn2MFGL, name)
        with pytest.raises(ValueError, match=f"Dn2MFGL.{name}: needs n_clusters"):
            getattr(model, name)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_clusters_that_no_fit_has_made() -> None:
    x = np.random.default_rng(0).random((20, 6))
    model = Dn2MFGL((2,), alpha=1.0, max_iter=10).fit(x).set_params(n_clusters=2)
    for estimator in (model, Dn2MFGL((2,), n_clusters=2)):
        with pytest.raises(NotFittedError, match="this Dn2MFGL has no clusters yet; call fit first"):
            estimator.predict(x)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_tables_in_and_out() -> None:
    pd = pytest.importorskip("pandas")
    x = np.random.default_rng(0).random((20, 6))
    plain = Dn2MFGL((2,), n_clusters=2, alpha=1.0, max_iter=10).fit(sparse.csr_array(x))
    model = clone(plain).set_output(transform="pandas")
    table = pd.DataFrame(x, columns=list("abcdef"))
    codes = model.fit_transform(table)
    assert list(codes.columns) == ["dn2mfgl0", "dn2mfgl1"] and list(model.feature_names_in_) == list("abcdef")
    np.testing.assert_array_equal(codes, plain.embedding_)
    np.testing.assert_array_equal(model.predict(table), plain.predict(x))
    assert isinstance(model.transform(table), pd.DataFrame)
