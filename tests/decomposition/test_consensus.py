"""Consensus of many fits: planted components, blocks, arguments."""

from typing import Any

import jax
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental.sparse import BCOO

from deepnmf_jax import NMF
from deepnmf_jax.decomposition import ConvergenceWarning, consensus, consensus_of_each
from deepnmf_jax.decomposition.consensus import Consensus, bytes_of_one
from deepnmf_jax.decomposition.io.nonzeros import nonzeros_of
from deepnmf_jax.decomposition.metrics import match_atoms
from deepnmf_jax.decomposition.updates.fit import Factorization, sweeps
from deepnmf_jax.decomposition.updates.loop import Descent
from deepnmf_jax.decomposition.updates.objective import Target
from deepnmf_jax.decomposition.updates.solvers import SolverSettings


def planted(seed: int, n: int, k: int, parts: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Samples of `parts` of k components each, A (n, 2 k) and D (k, 2 k).

    A component has five features, three of which the next one has too, so that a fit may take two for one.
    """
    rng = np.random.default_rng(seed)
    d, z = np.zeros((k, 2 * k)), np.zeros((n, k))
    for j in range(k):
        d[j, (2 * j + np.arange(5)) % (2 * k)] = 1
    for _ in range(parts):
        chosen = np.concatenate([rng.permutation(k) for _ in range(-(-n // k))])[:n]
        z[np.arange(n), chosen] += rng.uniform(0.5, 1.5, n)
    return np.maximum(z @ d + noise * rng.standard_normal((n, 2 * k)), 0).astype(np.float32), d


def least_cosine(found: Any, d: np.ndarray) -> float:
    return float(match_atoms(found, d).cosines.min())


@pytest.mark.slow
def test_planted_components_and_their_number_are_found_where_single_fits_fail() -> None:
    a, d = planted(2, n=240, k=60, parts=2, noise=0.03)
    stability = consensus_of_each(a, [58, 60, 62], 20, keep=True)
    assert stability.best == 60
    found = stability.results[1]
    assert found.replicates is not None
    singles = [least_cosine(single, d) for single in found.replicates.dictionaries]
    singles.append(least_cosine(NMF(60).fit(a)[1], d))
    assert max(singles) < 0.9 and least_cosine(found.dictionary, d) > 0.99
    assert found.error < 1.01 * found.restart_errors.min()
    assert stability.results[0].error > 1.5 * found.error > 1.4 * stability.results[2].error
    lines = stability.table().splitlines()
    assert len(lines) == 5 and lines[3].startswith(f"| **60** | {found.stability:.3f} |")


@pytest.fixture(scope="module")
def small() -> tuple[np.ndarray, np.ndarray, Consensus]:
    a, d = planted(0, n=40, k=4, parts=1, noise=0.01)
    return a, d, consensus(a, 4, 6, keep=True)


@pytest.mark.slow
def test_what_is_returned(small: tuple[np.ndarray, np.ndarray, Consensus]) -> None:
    a, d, found = small
    assert least_cosine(found.dictionary, d) > 0.99
    lengths = np.linalg.norm(found.dictionary, axis=1)
    np.testing.assert_allclose(lengths, lengths[0], rtol=1e-5)
    assert np.log2(lengths[0]) == pytest.approx(round(np.log2(lengths[0])), abs=1e-5)
    np.testing.assert_array_equal(found.model.encode(a), found.codes)
    assert found.error == pytest.approx(np.linalg.norm(a - found.codes @ found.dictionary), rel=1e-4)
    assert found.model.reconstruction_err_ == found.error
    assert found.replicates is not None
    codes, dictionaries = found.replicates
    assert codes.shape == (6, 40, 4) and dictionaries.shape == (6, 4, 8)
    errors = [np.linalg.norm(a - z @ d) for z, d in zip(codes, dictionaries, strict=True)]
    np.testing.assert_allclose(found.restart_errors, errors, rtol=1e-3)
    assert found.labels.shape == found.kept.shape == found.density.shape == (6, 4) and found.converged.all()
    assert found.stability > 0.9 and found.silhouettes.shape == (4,) and found.cophenetic > 0.9


def test_each_cluster_has_the_components_it_is_the_median_of(small: tuple[np.ndarray, np.ndarray, Consensus]) -> None:
    _, _, found = small
    assert found.replicates is not None
    rows = found.replicates.dictionaries / np.linalg.norm(found.replicates.dictionaries, axis=2, keepdims=True)
    for j, row in enumerate(found.dictionary):
        median = np.median(rows[(found.labels == j) & found.kept], axis=0)
        np.testing.assert_allclose(median / np.linalg.norm(median), row / np.linalg.norm(row), atol=1e-5)
    usage = [
        sum(
            np.linalg.norm(found.replicates.dictionaries[i, j]) * found.replicates.codes[i, :, j].sum()
            for i, j in np.argwhere((found.labels == label) & found.kept)
        )
        for label in range(4)
    ]
    assert usage == sorted(usage, reverse=True)


@pytest.mark.slow
def test_blocks_and_the_kind_of_the_data_change_nothing(small: tuple[np.ndarray, np.ndarray, Consensus]) -> None:
    a, _, found = small
    one = bytes_of_one(Target(jax.numpy.asarray(a)), 4, 2.0)
    for again in (consensus(a, 4, 6, memory=4 * one), consensus(a, 4, 6, memory=1)):
        np.testing.assert_allclose(again.dictionary, found.dictionary, atol=1e-4)
        assert again.replicates is None and again.restart_errors.shape == (6,)
    sparse = consensus(scipy.sparse.csr_array(a), 4, 6)
    np.testing.assert_allclose(sparse.dictionary, found.dictionary, atol=1e-3)
    in_jax = consensus(jax.numpy.asarray(a), 4, 6)
    assert isinstance(in_jax.codes, jax.Array) and isinstance(in_jax.dictionary, jax.Array)


@settings(deadline=None, max_examples=3)
@given(st.integers(-40, 40))
def test_the_unit_of_the_data_does_not_matter(exponent: int) -> None:
    a, _ = planted(0, n=40, k=4, parts=1, noise=0.01)
    found, other = consensus(a, 4, 3), consensus(a * np.float32(4.0) ** exponent, 4, 3)
    np.testing.assert_array_equal(other.dictionary, found.dictionary * np.float32(2.0) ** exponent)
    np.testing.assert_array_equal(other.labels, found.labels)
    assert other.error == pytest.approx(found.error * 4.0**exponent)


@pytest.mark.slow
def test_missing_entries_and_other_divergences() -> None:
    a, d = planted(1, n=40, k=4, parts=1, noise=0.01)
    known = np.random.default_rng(0).random(a.shape) > 0.1
    masked = consensus(np.where(known, a, np.nan), 4, 3, mask=known)
    assert least_cosine(masked.dictionary, d) > 0.99
    kl = consensus(a, 4, 3, solver="mu", beta_loss="kullback-leibler")
    z, d = kl.codes.astype(np.float64), kl.dictionary.astype(np.float64)
    known = a > 0
    divergence = np.sum(a[known] * np.log(a[known] / (z @ d)[known])) - a.sum() + (z @ d).sum()
    assert kl.error == pytest.approx(np.sqrt(2 * divergence), rel=1e-3)


@pytest.mark.slow
def test_a_dead_component_is_in_no_cluster() -> None:
    a = np.outer(np.arange(1, 9), np.eye(3)[0]).astype(np.float32)
    found = consensus(a, 1, 3)
    assert np.isnan(found.stability) and found.cophenetic != found.cophenetic
    np.testing.assert_allclose(found.codes @ found.dictionary, a, rtol=1e-5)
    with pytest.raises(ValueError, match="have an effect"):
        consensus(a, 4, 2, alpha_W=0.5, l1_ratio=1.0)


def test_fewer_distinct_components_than_concepts_are_refused() -> None:
    a = np.outer(np.arange(1, 11), np.arange(1, 9)).astype(np.float32)
    with pytest.raises(ValueError, match="1 distinct components, less than 2; take fewer concepts"):
        consensus_of_each(a, [2], n_restarts=5, max_iter=60, tol=1e-2)


def test_the_progress_and_the_limit(capsys: pytest.CaptureFixture[str]) -> None:
    a, _ = planted(0, n=40, k=4, parts=1, noise=0.01)
    with pytest.warns(ConvergenceWarning, match="of 3 fits stopped at max_iter"):
        consensus(a, 4, 3, max_iter=10, tol=1e-12, verbose=True)
    assert "k = 4, fits 1 to 3 of 3" in capsys.readouterr().err


TAKES_MORE = pytest.mark.skipif(jax.__version_info__ < (0, 7), reason="XLA of JAX 0.6 takes half as much again")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("solver", "beta", "shape", "k", "stored"),
    [
        pytest.param("hals", 2.0, (300, 200), 10, 1.0, marks=TAKES_MORE),
        ("mu", 1.0, (300, 200), 10, 1.0),
        ("hals", 2.0, (90, 40), 30, 1.0),
        ("hals", 2.0, (900, 200), 10, 0.05),
        ("mu", 1.0, (900, 200), 10, 0.05),
        ("mu", 1.5, (900, 200), 10, 0.05),
    ],
)
def test_the_memory_of_one_fit_is_not_estimated_too_low(
    solver: str, beta: float, shape: tuple, k: int, stored: float
) -> None:
    """Against what XLA takes for two fits more."""
    rng = np.random.default_rng(0)
    a = rng.random(shape, np.float32) * (rng.random(shape) < stored)
    matrix = jax.numpy.asarray(a) if stored == 1 else nonzeros_of(BCOO.fromdense(a), k, beta)
    target, settings_ = Target(matrix), SolverSettings(solver, beta, 3)
    taken = []
    for count in (2, 4):
        starts = [np.ones((count, k, m), np.float32) for m in shape]
        state = Factorization(*starts, np.zeros((count, k), np.int32), np.zeros(count, bool), np.zeros(count, np.int32))
        none = np.zeros(count, np.int32)
        numbers = np.ones(count, np.float32), none, np.ones((count, 64), np.float32), none, none > 0
        memory = sweeps.lower(Descent(state, *numbers), 10, target, settings_, 1e-4).compile().memory_analysis()
        taken.append(memory.temp_size_in_bytes + memory.output_size_in_bytes + memory.argument_size_in_bytes)
    estimate = bytes_of_one(target, k, beta)
    assert 0.3 * estimate < (taken[1] - taken[0]) / 2 <= estimate


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"n_restarts": 1}, "n_restarts"),
        ({"density_threshold": 0}, "density_threshold"),
        ({"neighbours": 1.5}, "neighbours"),
        ({"memory": 0}, "memory"),
        ({"keep": 2}, "keep"),
        ({"init": "nndsvd", "n_components": 3}, "init, n_components"),
        ({"A": np.zeros((4, 3))}, "0 everywhere"),
        ({"A": -np.ones((4, 3))}, "negative"),
        ({"A": [np.ones((4, 3)), np.ones((4, 3))]}, "one matrix"),
    ],
)
def test_bad_arguments(arguments: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        consensus(**{"A": np.ones((4, 3)), "nb_concepts": 2} | arguments)
    with pytest.raises(ValueError, match="ks"):
        consensus_of_each(np.ones((4, 3)), [1, 2])
