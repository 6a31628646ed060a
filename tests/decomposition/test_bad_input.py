"""Bad data and bad arguments: clear errors, and nothing half-fitted."""

import warnings

import numpy as np
import pytest

from deepnmf_jax.decomposition import NMF, ConvergenceWarning
from tests.decomposition.test_nmf import K, N, P, data


@pytest.fixture(autouse=True)
def limits_may_be_reached() -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda a: -a, "negative entries"),
        (lambda a: np.where(a > a.mean(), np.nan, a), "NaN"),
        (lambda a: np.where(a > a.mean(), np.inf, a), "infinite"),
        (lambda a: a[0], "must be a matrix"),
        (lambda a: a[None], "must be a matrix"),
        (lambda a: a[:0], "empty"),
        (lambda a: a[:, :0], "empty"),
        (lambda a: [["a", "b"]], "cannot read"),
    ],
)
def test_bad_data(change: object, match: str) -> None:
    """D15: asserts, gone under python -O, and infinite values that pass."""
    model = NMF(K, max_iter=5)
    with pytest.raises(ValueError, match=match):
        model.fit(change(data()))  # type: ignore[operator]
    assert model.D is None and not model.fitted
    _, d = model.fit(data())
    for method in (model.fit, model.encode):
        with pytest.raises(ValueError, match=match):
            method(change(data()))  # type: ignore[operator]
    np.testing.assert_array_equal(model.D, d)


def test_bad_arguments() -> None:
    """D12: the released classes ignore unknown arguments."""
    for arguments, match in [
        ({"nb_concepts": 0}, "nb_concepts = 0"),
        ({"nb_concepts": 2.5}, "whole number"),
        ({}, "nb_concepts"),
        ({"nb_concepts": 2, "n_components": 2}, "once"),
        ({"nb_concepts": 2, "solver": "adam"}, "'hals', 'mu', 'anls', 'pgd'"),
        ({"nb_concepts": 2, "init": "zeros"}, "nndsvda"),
        ({"nb_concepts": 2, "tol": -1}, "tol = -1"),
        ({"nb_concepts": 2, "beta_loss": "kullback-leibler"}, "needs solver = 'mu'"),
        ({"nb_concepts": 2, "alpha_W": -1}, "alpha_W"),
        ({"nb_concepts": 2, "l1_ratio": 2}, "l1_ratio"),
        ({"nb_concepts": 2, "dtype": "float16"}, "dtype"),
    ]:
        with pytest.raises(ValueError, match=match):
            NMF(**arguments)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="tolerance"):
        NMF(K, tolerance=5)  # type: ignore[call-arg]
    a = data()
    with pytest.raises(ValueError, match="call fit first"):
        NMF(K).encode(a)
    with pytest.raises(ValueError, match="call fit first"):
        NMF(K).get_dictionary()
    model = NMF(K, max_iter=5)
    model.fit(a)
    with pytest.raises(ValueError, match="features"):
        model.encode(a[:, :-1])
    with pytest.raises(ValueError, match="one column a concept"):
        model.decode(np.ones((2, K + 1)))
    with pytest.raises(ValueError, match="mask has shape"):
        model.fit(a, mask=np.ones((N, P + 1)))
    with pytest.raises(ValueError, match="weights has entries"):
        model.fit(a, weights=-np.ones(N))
    with pytest.raises(ValueError, match="zeros"):
        NMF(K, solver="mu", beta_loss="itakura-saito").fit(a * (a > a.mean()))
    with pytest.raises(ValueError, match="is not here"):
        NMF(K, device="tpu:7").fit(a)
