"""How well components agree: against plain loops, scikit-learn and what is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepnmf_jax.decomposition import stability
from deepnmf_jax.decomposition.metrics import directions
from deepnmf_jax.decomposition.stability import cophenetic_correlation, kmeans, local_density, modes, silhouettes


def clusters(seed: int, k: int, size: int, spread: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Rows (k size, p) of length 1 around k directions that lie apart, and the labels."""
    rng = np.random.default_rng(seed)
    labels = np.tile(np.arange(k), size)
    return directions(np.eye(k, k + 2)[labels] + spread * rng.random((k * size, k + 2))), labels


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(1, 5))
def test_the_density_is_that_of_a_plain_loop(seed: int, m: int, neighbours: int) -> None:
    rows = directions(np.random.default_rng(seed).random((m, 3)))
    neighbours = min(neighbours, m - 1)
    expected = []
    for i, row in enumerate(rows):
        distances = sorted(np.linalg.norm(row - other) for j, other in enumerate(rows) if j != i)
        expected.append(np.mean(distances[:neighbours]))
    held, stability.HELD = stability.HELD, 2 * m
    try:
        np.testing.assert_allclose(local_density(rows, neighbours), expected, atol=1e-7)
    finally:
        stability.HELD = held


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(2, 4), st.integers(4, 12))
def test_silhouettes_are_those_of_scikit_learn(seed: int, k: int, m: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    rows, labels = directions(rng.random((m, 3))), rng.integers(0, k, m)
    labels[:2] = 0, 1
    found = silhouettes(rows, labels, k)
    if len(set(labels)) < m:
        np.testing.assert_allclose(found, metrics.silhouette_samples(rows, labels, metric="cosine"), atol=1e-9)
    assert np.isnan(silhouettes(rows, np.zeros(m, int), 1)).all()


def test_clusters_that_lie_apart_are_found() -> None:
    rows, labels = clusters(0, 5, 8)
    found = kmeans(rows, modes(rows, np.repeat(np.arange(8), 5), 5, 0.2))
    assert len(set(zip(labels.tolist(), found.tolist(), strict=True))) == 5
    assert silhouettes(rows, found, 5).min() > 0.9


def test_what_is_left_of_a_wide_cluster_is_no_mode() -> None:
    """Two components of which one is wide: its skirts have more rows within reach than the other one."""
    rng = np.random.default_rng(0)
    wide = np.stack([np.ones(20), np.linspace(0, 0.4, 20), np.zeros(20)], axis=1)
    narrow = np.array([0.0, 0.0, 1.0]) + 0.01 * rng.random((6, 3))
    rows, fits = directions(np.concatenate([wide, narrow])), np.concatenate([np.arange(20), np.arange(6)])
    found = modes(rows, fits, 2, 0.1)
    assert sorted(np.argmax(found, axis=1).tolist()) == [0, 2]
    assert sorted(np.argmax(modes(rows, np.zeros(26, int), 2, 0.1), axis=1).tolist()) == [0, 0]


def test_two_components_that_are_alike_stay_two() -> None:
    first, second = np.array([1.0, 0.0, 0.0]), np.array([1.0, 0.3, 0.0])
    rows = directions(np.stack([first, second, [0, 0, 1]] * 10))
    found = modes(rows, np.repeat(np.arange(10), 3), 3, 0.35)
    assert np.linalg.norm(found[:, None] - found, axis=2)[~np.eye(3, dtype=bool)].min() > 0.1


def test_a_center_without_rows_goes_where_it_is_needed() -> None:
    rows, labels = clusters(1, 3, 5)
    found = kmeans(rows, np.stack([rows[0], -rows[0], -rows[1]]))
    assert len(set(zip(labels.tolist(), found.tolist(), strict=True))) == 3


def test_the_cophenetic_correlation() -> None:
    rng = np.random.default_rng(0)
    same = np.tile(np.repeat([0, 1, 2], 4), (5, 1))
    assert cophenetic_correlation(same, rng) == pytest.approx(1)
    # A change of names within a fit is none.
    assert cophenetic_correlation((same + np.arange(5)[:, None]) % 3, rng) == pytest.approx(1)
    assert cophenetic_correlation(rng.integers(0, 3, (5, 12)), rng) < 0.9
    assert np.isnan(cophenetic_correlation(np.zeros((5, 12), int), rng))
    many = np.tile(np.arange(stability.SAMPLES + 500) % 3, (2, 1))
    assert cophenetic_correlation(many, rng) == pytest.approx(1)
