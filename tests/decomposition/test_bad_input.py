"""Bad data and bad arguments: clear errors, and nothing half-fitted."""

import warnings
from typing import Any

import numpy as np
import pytest

from deepnmf_jax.decomposition import NMF, ConvergenceWarning, ConvexNMF, SemiNMF
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


@pytest.mark.parametrize(("kind", "penalty"), [(NMF, "alpha_W"), (SemiNMF, "l1_penalty"), (ConvexNMF, "l1_penalty")])
def test_a_penalty_that_leaves_nothing_of_the_data_leaves_the_fit(kind: Any, penalty: str) -> None:
    a, model = data(), kind(K, max_iter=5, **{penalty: 1.0})
    _, d = model.fit(a)
    error, codes = model.reconstruction_err_, model.encode(a)
    with pytest.raises(ValueError, match="lower the penalty"):
        model.fit(1e-18 * a)
    np.testing.assert_array_equal(model.D, d)
    np.testing.assert_array_equal(model.encode(a), codes)
    assert model.reconstruction_err_ == error


@pytest.mark.parametrize(
    ("arguments", "unit", "later"), [({}, 1e-30, 1e-16), ({"solver": "mu", "beta_loss": 0}, 1.0, 1e18)]
)
def test_a_batch_with_such_a_penalty_leaves_the_sums(arguments: dict[str, Any], unit: float, later: float) -> None:
    a = data()
    model, plain = (NMF(K, **arguments).partial_fit(unit * a) for _ in range(2))
    d, model.alpha_W = model.D, 1.0
    # Beside this batch the first one would be nothing.
    with pytest.raises(ValueError, match="lower the penalty"):
        model.partial_fit(later * a)
    np.testing.assert_array_equal(model.D, d)
    model.alpha_W = 0.0
    np.testing.assert_array_equal(model.partial_fit(unit * a).D, plain.partial_fit(unit * a).D)


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
