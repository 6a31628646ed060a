"""Accuracy is that of the best map of clusters to classes; clusters far apart are found."""

import numpy as np
import pytest

from deepnmf_jax.decomposition.dn2mfgl import scores


def test_accuracy() -> None:
    truth = np.array([0, 0, 1, 1, 2, 2])
    assert scores.accuracy(truth, [5, 5, 3, 3, 4, 4]) == 1
    assert scores.accuracy(truth, [0, 0, 0, 0, 0, 0]) == pytest.approx(1 / 3)
    # More clusters than classes: one of them stands for nothing.
    assert scores.accuracy(truth, [0, 1, 2, 2, 3, 3]) == pytest.approx(5 / 6)


def test_scores() -> None:
    pytest.importorskip("sklearn")
    truth = np.array([0, 0, 1, 1, 2, 2])
    assert scores.scores(truth, [5, 5, 3, 3, 4, 4]) == {"acc": 1, "nmi": 1, "ari": 1}
    one_cluster = scores.scores(truth, np.zeros(6))
    assert one_cluster == {"acc": pytest.approx(1 / 3), "nmi": 0, "ari": 0}
    with pytest.raises(ValueError, match="truth has shape"):
        scores.scores(truth, [1, 2])


def test_kmeans() -> None:
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    truth = np.arange(60) % 3
    codes = np.eye(3)[truth] + 0.02 * rng.standard_normal((60, 3))
    labels, centers = scores.kmeans(codes, 3)
    np.testing.assert_allclose(centers[labels], np.eye(3)[truth], atol=0.02)
    assert scores.single_start_scores(codes, truth, 3, repeats=4) == 4 * [{"acc": 1, "nmi": 1, "ari": 1}]
