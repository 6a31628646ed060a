"""Pickle, joblib, deepcopy and processes keep dtype, codes and reports, with JAX's default of no float64."""

import copy
import io
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from deepnmf_jax import NMF, ArchetypalAnalysis, ConvexNMF, Dn2MFGL, SemiNMF, SymmetricNMF
from deepnmf_jax.decomposition import ConvergenceWarning

ROOT = Path(__file__).parents[2]
ESTIMATORS: dict[str, Callable[[], Any]] = {
    "NMF": lambda: NMF(2, max_iter=3, device=jax.devices("cpu")[0], warm_start=True, known_D=[[1, np.nan, 0, 0, 2, 3]]),
    "SemiNMF": lambda: SemiNMF(2, max_iter=3),
    "ConvexNMF": lambda: ConvexNMF(2, max_iter=3),
    "ArchetypalAnalysis": lambda: ArchetypalAnalysis(2, max_iter=3),
    "SymmetricNMF": lambda: SymmetricNMF(2, max_iter=3),
    "Dn2MFGL": lambda: Dn2MFGL((3, 2), alpha=0.1, n_neighbors=3, max_iter=3),
}


def data(dtype: str = "f8") -> np.ndarray:
    return np.random.default_rng(0).random((16, 6)).astype(dtype)


@pytest.fixture(autouse=True)
def limits_may_be_reached() -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)


def by_joblib(model: Any) -> Any:
    joblib = pytest.importorskip("joblib")
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    return joblib.load(file)


def codes_of(model: Any, a: np.ndarray) -> np.ndarray:
    return np.asarray((model.transform if hasattr(model, "transform") else model.encode)(a))


def assert_same(one: Any, other: Any) -> None:
    """All that the estimators hold, bit for bit, dtypes and kinds of arrays included."""
    assert vars(one).keys() == vars(other).keys()
    for name, value in vars(one).items():
        found = vars(other)[name]
        if isinstance(value, (np.ndarray, jax.Array)):
            assert isinstance(found, jax.Array) == isinstance(value, jax.Array) and found.dtype == value.dtype, name
            np.testing.assert_array_equal(np.asarray(found), np.asarray(value))
        elif isinstance(value, list):
            for a, b in zip(value, found, strict=True):
                np.testing.assert_array_equal(a, b)
        elif name == "device":
            assert found in (value, "cpu:0")
        elif name != "certificate_":
            assert found == value, name


@pytest.mark.slow
@pytest.mark.parametrize("name", ESTIMATORS)
def test_all_that_is_held(name: str) -> None:
    assert not jax.config.values["jax_enable_x64"]
    model, a = ESTIMATORS[name](), data()
    a = a @ a.T if name == "SymmetricNMF" else a
    assert_same(model, copy.deepcopy(model))
    model.fit(a)
    before = codes_of(model, a)
    assert before.dtype == np.float64
    for again in (pickle.loads(pickle.dumps(model)), by_joblib(model), copy.deepcopy(model), copy.copy(model)):
        assert_same(model, again)
        after = codes_of(again, a)
        assert after.dtype == np.float64
        np.testing.assert_array_equal(after, before)


def test_batches_go_on_after_pickling() -> None:
    a = data()
    model = NMF(2).partial_fit(a[:8])
    again = pickle.loads(pickle.dumps(model))
    for each in (model, again):
        each.partial_fit(a[8:])
    assert again.D.dtype == np.float64 and again.n_iter_ == 2
    np.testing.assert_array_equal(again.D, model.D)


@pytest.mark.slow
def test_the_estimators_of_scikit_learn_come_back_from_processes() -> None:
    """In a fresh interpreter: what is folded here has no float64 switched on anywhere."""
    pytest.importorskip("sklearn")
    script = """
import warnings, pickle, numpy as np
warnings.simplefilter("ignore")
from sklearn.model_selection import cross_validate
import deepnmf_jax.sklearn as ours
a = np.random.default_rng(0).random((16, 6))
parts = ours.NMF(2, max_iter=3, random_state=0)
clusters = ours.Dn2MFGL((2,), n_clusters=2, alpha=0.1, n_neighbors=2, max_iter=3)
for model in (parts, clusters):
    codes = model.fit(a).transform(a)
    again = pickle.loads(pickle.dumps(model))
    assert codes.dtype == again.transform(a).dtype == np.float64
    assert np.array_equal(again.transform(a), codes)
scored = lambda model, x, y=None: float(model.transform(x).dtype == np.float64)
rows = cross_validate(parts, a, cv=2, n_jobs=2, return_estimator=True, scoring=scored, error_score="raise")
assert rows["test_score"].tolist() == [1, 1]
folds = [np.arange(8, 16), np.arange(8)]
for fold, found in zip(folds, rows["estimator"]):
    wanted = ours.NMF(2, max_iter=3, random_state=0).fit(a[fold])
    assert found.components_.dtype == np.float64 and found.n_iter_ == wanted.n_iter_
    np.testing.assert_allclose(found.components_, wanted.components_, rtol=1e-9)
    np.testing.assert_allclose(found.transform(a), wanted.transform(a), rtol=1e-9, atol=1e-12)
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)
