"""Files that version 0.1.0 has written (folder `saved`) are read by this one."""

from pathlib import Path

import numpy as np
import pytest

from deepnmf_jax import NMF, ConvexNMF, Dn2MFGL
from tests.decomposition.test_nmf import K, data

FOLDER = Path(__file__).parent / "saved"


def test_a_fit() -> None:
    model, a = NMF.load(FOLDER / "nmf.npz"), data()
    assert (model.solver, model.alpha_W, model.l1_ratio, model.n_iter_) == ("pgd", 0.01, 0.5, 30)
    assert len(model.loss_history_) == 4 and not model.converged_
    # Codes are found to a tolerance, and that version found other ones within it.
    assert np.linalg.norm(a - model.decode(model.encode(a))) == pytest.approx(model.reconstruction_err_, rel=1e-5)


def test_a_fit_of_batches_goes_on() -> None:
    model, fresh, a = NMF.load(FOLDER / "nmf_batches.npz"), NMF(K), data()
    for start in (0, 10, 20):
        fresh.partial_fit(a[start : start + 10])
    for each in (model, fresh):
        each.partial_fit(a[5:12])
    np.testing.assert_allclose(model.D, fresh.D, rtol=1e-4)
    assert model.n_iter_ == 4


def test_atoms_made_of_samples() -> None:
    model = ConvexNMF.load(FOLDER / "convex_nmf.npz")
    np.testing.assert_allclose(model.W @ (data() - 0.3), model.D, atol=1e-12)


def test_clusters() -> None:
    model, a = Dn2MFGL.load(FOLDER / "dn2mfgl.npz"), data()
    assert model.choice_.alpha == 0.1 and model.boundedness_ == "bounded" and set(model.labels_) == {0, 1}
    assert [h.shape for h in model.dictionaries_] == [(12, 5), (5, 3)]
    unit = a / np.linalg.norm(a, axis=1, keepdims=True)
    assert np.linalg.norm(unit - model.embedding_ @ model.components_) < 0.15 * np.linalg.norm(unit)
