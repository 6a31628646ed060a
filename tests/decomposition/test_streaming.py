"""Data in batches: the same factorization, one pass of a generator, partial_fit."""

import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.sparse import BCOO
from scipy.sparse import csr_array

from deepnmf_jax.decomposition import NMF, ConvergenceWarning, beta_batches, statistics
from deepnmf_jax.decomposition.io.nonzeros import nonzeros_of
from deepnmf_jax.decomposition.updates.objective import Penalties, Target, objective
from deepnmf_jax.decomposition.updates.solvers import SolverSettings, sweep
from tests.decomposition.test_nmf import K, N, data, relative_error


@pytest.fixture(autouse=True)
def limits_may_be_reached() -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)


@pytest.mark.slow
def test_batches_equal_the_whole() -> None:
    a = data()
    batches = [a[:7], a[7:19], a[19:]]
    model = NMF(K, max_iter=25, tol=0)
    z, _ = model.fit(batches)
    assert isinstance(z, np.ndarray)
    assert relative_error(a, z, model.D) < 0.06
    np.testing.assert_allclose(model.encode(batches), z, rtol=1e-6, atol=1e-9)


@pytest.mark.usefixtures("float64")
def test_an_epoch_over_batches_is_a_sweep_over_the_matrix() -> None:
    a, settings, penalties = data(), SolverSettings(inner=3), Penalties(0.1, 0.2, 0.3, 0.4)
    batches, squares = [jnp.asarray(b) for b in (a[:7], a[7:19], a[19:])], float(np.sum(a**2))
    start, d = np.array(NMF(K).init_random_z(a).T), jnp.asarray(NMF(K).init_random_d(a))
    codes, zt, expected = [start[:, :7], start[:, 7:19], start[:, 19:]], start, d
    step = jax.jit(sweep, static_argnames=("settings",))
    for _ in range(5):
        codes, d, value = statistics.epoch(batches, codes, d, penalties, settings, squares)
        zt, expected = step(zt, expected, Target(a, penalties), settings=settings)
    np.testing.assert_allclose(np.concatenate(codes, axis=1), zt, atol=1e-11)
    np.testing.assert_allclose(d, expected, atol=1e-11)
    assert value == pytest.approx(float(objective(zt, expected, Target(a, penalties))), rel=1e-10)


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("beta", "sparse"), [(1.0, False), (1.0, True), (0.5, False), (1.5, True)])
def test_an_epoch_of_another_divergence_is_a_sweep_over_the_matrix(beta: float, sparse: bool) -> None:
    a, settings, penalties = data(), SolverSettings("mu", beta), Penalties(0.1, 0.2, 0.3, 0.4)
    parts = [jnp.asarray(b) for b in (a[:7], a[7:19], a[19:])]
    batches = [nonzeros_of(BCOO.fromdense(b), K, beta) if sparse else b for b in parts]
    start, d = np.array(NMF(K).init_random_z(a).T), jnp.asarray(NMF(K).init_random_d(a))
    codes, zt, expected = [start[:, :7], start[:, 7:19], start[:, 19:]], start, d
    step, values = jax.jit(sweep, static_argnames=("settings",)), []
    for _ in range(3):
        before = expected
        codes, d, value = beta_batches.epoch(batches, codes, d, penalties, settings)
        zt, expected = step(zt, expected, Target(a, penalties), settings=settings)
        values.append(value)
    np.testing.assert_allclose(np.concatenate(codes, axis=1), zt, rtol=1e-10)
    np.testing.assert_allclose(d, expected, rtol=1e-10)
    assert value == pytest.approx(float(objective(zt, before, Target(a, penalties), beta)), rel=1e-10)
    assert values == sorted(values, reverse=True)


@pytest.mark.usefixtures("float64")
def test_the_sums_over_batches_are_of_their_majorisers() -> None:
    a, rng, settings = data(), np.random.default_rng(0), SolverSettings("mu", 1.0)
    first, second = rng.random((K, a.shape[1])), rng.random((K, a.shape[1]))
    zts = rng.random((2, K, 10))
    sums = beta_batches.no_sums(jnp.asarray(first))
    for batch, zt, d in zip((a[:10], a[10:20]), zts, (first, second), strict=True):
        sums = beta_batches.gather(sums, jnp.asarray(d), jnp.asarray(zt), jnp.asarray(batch), settings.beta)
    found = np.asarray(beta_batches.improved(jnp.asarray(second), sums, Penalties(l1_d=0.3), settings.beta))
    above, below = np.zeros_like(first), np.full_like(first, 0.3)
    for batch, zt, d in zip((a[:10], a[10:20]), zts, (first, second), strict=True):
        above += d * (zt @ (batch / (zt.T @ d)))
        below += zt.sum(1)[:, None]
    np.testing.assert_allclose(found, above / below, rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("sparse", [False, True])
def test_kullback_leibler_in_batches(sparse: bool, tmp_path: Path) -> None:
    a = data()
    kind = csr_array if sparse else np.asarray
    batches = [kind(a[:10]), kind(a[10:20]), kind(a[20:])]
    model = NMF(K, solver="mu", beta_loss=1, max_iter=45, tol=0)
    z, _ = model.fit(batches)
    whole = NMF(K, solver="mu", beta_loss=1, max_iter=15, tol=0)
    whole.fit(a)
    assert model.reconstruction_err_ < 2 * whole.reconstruction_err_ and z.shape == (len(a), K)
    assert np.all(np.diff(model.loss_history_) <= 1e-6 * model.loss_history_[0])
    stream = NMF(K, solver="mu", beta_loss=1)
    for batch in batches:
        stream.partial_fit(batch)
    stream.save(tmp_path / "stream.npz")
    again = NMF.load(tmp_path / "stream.npz")
    for each in (stream, again):
        each.partial_fit(batches[0])
    np.testing.assert_array_equal(stream.D, again.D)
    w = np.asarray(stream.encode(kind(a)) @ stream.D)
    error = np.sum(a * np.log(np.where(a > 0, a, 1) / np.maximum(w, 1e-30)) - a + w)
    assert error < 3 * whole.reconstruction_err_**2


def test_known_entries_stay_in_batches_of_another_divergence() -> None:
    a = data()
    known = np.full((K, a.shape[1]), np.nan)
    known[0, :3], known[1, 1] = (0.0, 0.25, 2.0), 0.0
    batches = [csr_array(a[:10]), csr_array(a[10:20]), csr_array(a[20:])]
    stream, epochs = (
        NMF(K, solver="mu", beta_loss=1, known_D=known, max_iter=4, tol=0, ortho_H=0.1, alpha_W=1e-3) for _ in range(2)
    )
    for batch in batches:
        stream.partial_fit(batch)
    epochs.fit(batches)
    for model in (stream, epochs):
        np.testing.assert_array_equal(np.asarray(model.D)[~np.isnan(known)], known[~np.isnan(known)])
        assert (np.asarray(model.D)[2:] > 0).any()


def test_a_generator_is_one_pass() -> None:
    a = data()
    model = NMF(K)
    z, d = model.fit(a[i : i + 10] for i in range(0, N, 10))
    assert z.shape == (N, K) and relative_error(a, model.encode(a), d) < 0.2
    with pytest.raises(ValueError, match="walked through once"):
        model.fit((a for _ in range(2)), max_iter=5)


class Shuffled:
    def __init__(self, a: np.ndarray) -> None:
        self.a, self.rng = a, np.random.default_rng(0)

    def __iter__(self) -> object:
        return iter(np.split(self.rng.permutation(self.a), 3))


def test_shuffled_batches_are_refused() -> None:
    model = NMF(K)
    with pytest.raises(ValueError, match="shuffles"):
        model.fit(Shuffled(data()))
    assert not model.fitted
    with pytest.raises(ValueError, match="no batches"):
        model.fit(iter(()), max_iter=1)


def test_partial_fit_learns() -> None:
    a = data()
    model = NMF(K)
    model.partial_fit(a[:10])
    first = relative_error(a, model.encode(a), model.D)
    for _ in range(20):
        for start in range(0, N, 10):
            model.partial_fit(a[start : start + 10])
    assert relative_error(a, model.encode(a), model.D) < min(first, 0.06)


def streamed(batches: list[np.ndarray], **arguments: object) -> NMF:
    model = NMF(K, **arguments)
    for batch in batches:
        model.partial_fit(batch)
    return model


@pytest.mark.slow
def test_a_stream_forgets_batches_beside_which_it_is_everything() -> None:
    a = data(dtype=np.float32)
    plain = streamed([a[:10]] * 3)
    for first in (np.zeros_like(a[:4]), a[:4] * np.float32(1e-25), a[:1] * np.float32(1e-40)):
        model = streamed([first, *[a[:10]] * 3])
        np.testing.assert_array_equal(model.D, plain.D)
        assert model.n_iter_ == plain.n_iter_ == 3
        d = NMF(K, max_iter=3, tol=0).fit([first, a[:10]])[1]
        assert relative_error(a[:10], NMF(K, max_iter=3, tol=0).fit([a[:10]])[0], d) < 0.3
    # Later ones teach nothing, and do no harm.
    for later in (np.zeros_like(a[:4]), a[:4] * np.float32(1e-25)):
        np.testing.assert_allclose(streamed([*[a[:10]] * 3, later]).D, plain.D, rtol=0.02, atol=0.02)


def test_a_stream_of_nothing_is_a_dictionary_of_nothing() -> None:
    a = data(dtype=np.float32)
    model = streamed([np.zeros_like(a[:4])] * 2)
    assert not np.any(model.D) and not np.any(model.encode(a))
    np.testing.assert_array_equal(model.partial_fit(a[:10]).D, streamed([a[:10]]).D)
    assert not np.any(NMF(K).fit([np.zeros_like(a[:4])] * 2)[1])
    with pytest.raises(ValueError, match="empty"):
        model.partial_fit(a[:0])


def test_columns_and_atoms_that_come_late() -> None:
    a = data(dtype=np.float32)
    blind = a[:10].copy()
    blind[:, : a.shape[1] // 2] = 0
    model = streamed([blind[:1], blind, *[a[:10]] * 12])
    assert relative_error(a[:10], model.encode(a[:10]), model.D) < 0.15


def test_what_is_reported_of_batches_and_of_a_file(tmp_path: Path) -> None:
    a = data(dtype=np.float32)
    model = NMF(K, max_iter=3, tol=0)
    model.fit(a)
    model.save(tmp_path / "m.npz")
    again = NMF.load(tmp_path / "m.npz")
    model.fit([a[:10], a[10:]])
    assert len(model.loss_history_) == model.n_iter_ == 3 and len(again.loss_history_) == 2
    for name in ("report_", "restart_errors_", "n_dead_"):
        assert getattr(model, name) is None and getattr(again, name) is None


def test_a_fit_is_no_report_of_the_batches_after_it() -> None:
    a = data(dtype=np.float32)
    model = NMF(K, max_iter=3, tol=0)
    model.fit(a)
    model.partial_fit(a[:10])
    assert model.n_iter_ == 1
    for name in ("loss_history_", "reconstruction_err_", "report_", "restart_errors_", "n_dead_", "converged_"):
        assert getattr(model, name) is None
