"""Dn2MFGL on faces, from the folder DEEPNMF_FACES or ../shared/faces: refusals, robustness to bad samples."""

import warnings

import numpy as np
import pytest

from deepnmf_jax import Dn2MFGL
from deepnmf_jax.decomposition import ConvergenceWarning
from deepnmf_jax.decomposition.dn2mfgl.boundedness import check_boundedness
from deepnmf_jax.decomposition.updates.graph import components, find_neighbors, knn_graph
from tests.decomposition.test_quality import load


def unit(name: str) -> np.ndarray:
    x = load(name)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("setting", "status", "reason"),
    [
        ((1, 10, 1), "unbounded", "degree"),
        ((1, 0.1, 0), "unbounded", "component"),
        ((1, 1, 0.1), "unbounded", "direction"),
        ((1, 1, 1), "bounded", "no entry"),
    ],
)
def test_settings_on_umist(setting: tuple[float, float, float], status: str, reason: str) -> None:
    graph = knn_graph(find_neighbors(unit("umist"), 5))
    assert components(graph).max() == 1
    verdict = check_boundedness(graph, *setting)
    assert verdict.status == status and reason in verdict.reason


@pytest.mark.slow
def test_bad_samples_do_not_spoil_the_others() -> None:
    """A tenth of the samples is noise three times as long: weights per sample spare the others."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    x = unit("jaffe")
    rng = np.random.default_rng(0)
    bad = rng.choice(len(x), 21, replace=False)
    clean = np.setdiff1d(np.arange(len(x)), bad)
    noise = rng.random((21, x.shape[1]))
    given = x.copy()
    given[bad] = 3 * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    errors = {}
    for robust in ("sample", "feature"):
        arguments = {"alpha": 0, "init": "pretrained", "max_iter": 300, "normalize": False}
        model = Dn2MFGL((10,), robust=robust, **arguments).fit(given)
        residual = x - model.embedding_ @ model.components_
        errors[robust] = np.linalg.norm(residual[clean]) / np.linalg.norm(x[clean])
    print(errors)
    assert errors["sample"] <= 0.19 and errors["feature"] >= 0.21
