"""`NMF(known_D=)`: rows and entries of the dictionary that are known come out as they went in, and help the others."""

import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest

from deepnmf_jax import NMF
from deepnmf_jax.decomposition import ConvergenceWarning
from deepnmf_jax.decomposition.known import known_of, started
from deepnmf_jax.decomposition.updates.solvers import SOLVERS

N, P, K = 40, 10, 4
KINDS = [*((solver, 2.0) for solver in SOLVERS), ("mu", 1.0), ("mu", 0.5)]


@pytest.fixture(autouse=True)
def limits_may_be_reached() -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)


def mixtures(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A (N, P), the parts it was made of (K, P), and what is known: a row, zeros of another, numbers of a third."""
    rng = np.random.default_rng(seed)
    parts = rng.random((K, P)) * (rng.random((K, P)) > 0.4) + 1e-3 * np.eye(K, P)
    known = np.full((3, P), np.nan)
    known[0] = parts[0]
    known[1, parts[1] == 0] = 0
    known[2, :3] = parts[2, :3]
    return rng.random((N, K)) @ parts, parts, known


def assert_known(d: np.ndarray, known: np.ndarray) -> None:
    held = ~np.isnan(known)
    np.testing.assert_array_equal(np.asarray(d)[: len(known)][held], known[held].astype(d.dtype))


@pytest.mark.parametrize(
    ("solver", "beta"),
    [KINDS[0], *(pytest.param(*kind, marks=pytest.mark.slow) for kind in KINDS[1:])],
)
def test_what_is_known_stays(solver: str, beta: float) -> None:
    a, _parts, known = mixtures()
    model = NMF(K, solver=solver, beta_loss=beta, known_D=known, max_iter=60, tol=0)
    z, d = model.fit(a)
    assert_known(d, known)
    assert np.all(np.diff(model.loss_history_) <= 1e-9 * model.loss_history_[0])
    assert np.linalg.norm(a - z @ d) < 0.2 * np.linalg.norm(a)
    np.testing.assert_allclose(model.encode(a), z, rtol=1e-3, atol=1e-3 * z.max())
    again = pickle.loads(pickle.dumps(model))
    assert_known(again.fit(a)[1], known)


def test_a_known_spectrum_is_found_back_where_a_plain_fit_mixes_it() -> None:
    """With two of four spectra known, the codes of those come out; a plain fit has other atoms as well."""
    a, parts, _ = mixtures(1)
    codes = np.linalg.lstsq(parts.T, a.T, rcond=None)[0].T
    z, _d = NMF(K, known_D=parts[:2], max_iter=3000, tol=1e-7).fit(a)
    plain, _ = NMF(K, max_iter=3000, tol=1e-7).fit(a)

    def correlations(z: np.ndarray) -> np.ndarray:
        return np.corrcoef(z.T, codes[:, :2].T)[:-2, -2:]

    assert np.diagonal(correlations(z)[:2]).min() > 0.98
    assert np.diagonal(correlations(z)[:2]).min() > correlations(plain).max(axis=0).min() + 0.02


def test_all_that_is_known_leaves_the_codes_alone() -> None:
    a, parts, _ = mixtures()
    z, d = NMF(K, known_D=parts, max_iter=20).fit(a)
    np.testing.assert_array_equal(d, parts)
    np.testing.assert_allclose(z, NMF(K).with_dictionary(parts, a).encode(a), atol=1e-9)


def test_the_unit_of_the_data_does_not_matter() -> None:
    a, _parts, known = mixtures()
    _z, d = NMF(K, known_D=known, max_iter=30, tol=0).fit(a)
    scale = 4.0**10
    more = NMF(K, known_D=known * scale**0.5, max_iter=30, tol=0).fit(a * scale)
    np.testing.assert_allclose(more[1], d * scale**0.5, rtol=1e-9)
    # Codes may be large or small where spectra are in a unit of their own.
    z_small, d_small = NMF(K, known_D=known * 1e-6, max_iter=30, tol=0).fit(a)
    assert_known(d_small, known * 1e-6)
    assert np.linalg.norm(a - z_small @ d_small) < 0.2 * np.linalg.norm(a)


def test_what_was_checked_does_not_change_with_the_array_of_the_caller() -> None:
    a, _, known = mixtures()
    given = known.copy()
    model = NMF(K, known_D=given, max_iter=5, tol=0)
    given[0] = -1
    assert_known(model.fit(a)[1], known)


@pytest.mark.parametrize("more", [{"shuffle": True}, {"n_restarts": 3}, {"init": "random"}, {"warm_start": True}])
def test_every_start_has_it(more: dict) -> None:
    a, _, known = mixtures()
    model = NMF(K, known_D=known, max_iter=20, tol=0, **more)
    for _ in range(2):
        assert_known(model.fit(a)[1], known)
    rng = np.random.default_rng(0)
    assert_known(model.fit(a, init=(rng.random((N, K)), rng.random((K, P))))[1], known)
    assert_known(model.fit(np.zeros((N, P)))[1], known)


@pytest.mark.slow
def test_batches() -> None:
    a, _, known = mixtures()
    model = NMF(K, known_D=known)
    # Batches that are nothing beside a later one are forgotten; what is known is not.
    for batch in (np.zeros((3, P)), 1e-20 * a[:5], a[:20], a[20:]):
        model.partial_fit(batch)
    assert_known(model.D, known)
    _z, d = NMF(K, known_D=known, max_iter=20, tol=0).fit([a[:15], a[15:]])
    assert_known(d, known)
    once = NMF(K, known_D=known)
    once.fit(iter([a[:15], a[15:]]))
    assert_known(once.D, known)


@pytest.mark.slow
def test_epochs_over_batches_are_sweeps_over_the_matrix() -> None:
    a, _, known = mixtures()
    more = {"known_D": known, "max_iter": 200, "tol": 1e-7, "alpha_W": 1e-3, "ortho_H": 1e-3}
    whole, parts = NMF(K, **more), NMF(K, **more)
    whole.fit(a)
    parts.fit([a[:15], a[15:]])
    assert parts.loss_history_[-1] == pytest.approx(whole.loss_history_[-1], rel=1e-2)


def test_dead_atoms_come_back_as_far_as_they_are_free() -> None:
    a, _, known = mixtures()
    rng = np.random.default_rng(0)
    z, d = rng.random((N, K)), rng.random((K, P))
    for atom in (1, 3):
        z[:, atom], d[atom] = 0, 0
    z[:, 0] = 0
    model = NMF(K, known_D=known, max_iter=60, tol=0)
    _, found = model.fit(a, init=(z, d))
    assert model.report_.n_revived >= 2 and found[1].any() and found[3].any()
    assert_known(found, known)


def test_a_start_keeps_the_share_of_each_atom() -> None:
    _, _, known = mixtures()
    rng = np.random.default_rng(0)
    z, d = rng.random((N, K)), rng.random((K, P))
    zt, filled = started(z.T, d, known_of(1e6 * known, K, P, 1.0, d.dtype))
    assert_known(filled, 1e6 * known)
    share = [np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1) for a, b in ((z.T, d), (zt, filled))]
    np.testing.assert_allclose(share[1], share[0])


def test_save_and_load(tmp_path: Path) -> None:
    a, _, known = mixtures()
    model = NMF(K, known_D=known.astype("f4"), max_iter=5, tol=0)
    model.fit(a)
    model.save(tmp_path / "m.npz")
    again = NMF.load(tmp_path / "m.npz")
    np.testing.assert_array_equal(again.known_D, model.known_D)
    np.testing.assert_array_equal(again.encode(a), model.encode(a))
    assert_known(again.fit(a)[1], known.astype("f4"))


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (np.ones(P), "shape"),
        (np.ones((K + 1, P)), "shape"),
        (np.ones((0, P)), "shape"),
        (-np.ones((1, P)), "negative"),
        (np.full((1, P), np.inf), "infinite"),
        (np.zeros((1, P)), "row 0"),
    ],
)
def test_what_cannot_be_known(known: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=f"known_D.*{message}|{message}.*known_D"):
        NMF(K, known_D=known)


def test_what_does_not_fit_the_data() -> None:
    a, _, _ = mixtures()
    model = NMF(K, known_D=np.ones((1, P + 1)))
    for call in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match=f"{P + 1} columns and A {P}"):
            call(a)
    with pytest.raises(ValueError, match="multiply known_D"):
        NMF(K, known_D=1e30 * np.ones((1, P))).fit(a)


def test_in_the_protocol_of_scikit_learn() -> None:
    base = pytest.importorskip("sklearn.base")
    from deepnmf_jax.sklearn import NMF as Theirs

    a, _, known = mixtures()
    model = base.clone(Theirs(K, known_H=known, max_iter=20, tol=0, random_state=0)).fit(a)
    assert_known(model.components_, known)
    assert_known(model.partial_fit(a).components_, known)
