"""Dn2MFGL on faces, where the folder DEEPNMF_FACES has them: robustness to bad samples."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from deepnmf_jax import Dn2MFGL
from deepnmf_jax.decomposition import ConvergenceWarning


def load(name: str) -> np.ndarray:
    path = Path(os.environ.get("DEEPNMF_FACES", "")) / f"{name}.npz"
    if "DEEPNMF_FACES" not in os.environ or not path.exists():
        pytest.skip(f"no {name}.npz: set DEEPNMF_FACES to a folder with it")
    with np.load(path, allow_pickle=False) as file:
        x = file["x"].astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.slow
def test_bad_samples_do_not_spoil_the_others() -> None:
    """A tenth of the samples is noise of unit length: weights per sample fit the clean ones better than per feature."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    x = load("jaffe")
    rng = np.random.default_rng(0)
    bad = rng.choice(len(x), 21, replace=False)
    clean = np.setdiff1d(np.arange(len(x)), bad)
    x[bad] = rng.random((21, x.shape[1]))
    x[bad] /= np.linalg.norm(x[bad], axis=1, keepdims=True)
    errors = {}
    for robust in ("sample", "feature"):
        model = Dn2MFGL((10,), alpha=0, beta=0, nu=0, robust=robust, init="pretrained", max_iter=300).fit(x)
        residual = x - model.embedding_ @ model.components_
        errors[robust] = np.linalg.norm(residual[clean]) / np.linalg.norm(x[clean])
    print(errors)
    assert errors["sample"] <= 0.19 and errors["sample"] < errors["feature"]
