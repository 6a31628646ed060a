"""Data in batches: the same factorization, one pass of a generator, partial_fit."""

import warnings

import numpy as np
import pytest

from deepnmf_jax.decomposition import NMF, ConvergenceWarning
from deepnmf_jax.decomposition.streaming import _Epochs
from deepnmf_jax.decomposition.updates.objective import Penalties
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
    # From the same start, an epoch over batches is an epoch over the matrix.
    first, second = _Epochs(model, batches), _Epochs(model, [a])
    second.d, second.scale = first.d, first.scale
    start = np.array(NMF(K).init_random_z(a).T)
    several, one = [start[:, :7], start[:, 7:19], start[:, 19:]], [start]
    for _ in range(5):
        several, value = first.epoch(several, Penalties(0.1, 0.2, 0.3, 0.4), float(np.sum(a**2)))
        one, expected = second.epoch(one, Penalties(0.1, 0.2, 0.3, 0.4), float(np.sum(a**2)))
    np.testing.assert_allclose(np.concatenate(several, axis=1), one[0], atol=1e-11)
    np.testing.assert_allclose(first.d, second.d, atol=1e-11)
    assert value == pytest.approx(expected, rel=1e-10)
    assert value < 0.5 * np.sum(a**2)


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
