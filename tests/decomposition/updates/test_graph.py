"""Neighbours are those of all distances, whatever the blocks; graphs are symmetric, with the weights they name."""

import numpy as np
import pytest

from deepnmf_jax.decomposition.updates.graph import EDGE_WEIGHTS, components, find_neighbors, knn_graph, similarity
from tests.decomposition.dn2mfgl.dense import from_dense


def test_neighbors() -> None:
    x = np.random.default_rng(0).random((30, 4))
    found = find_neighbors(x, 4)
    distances = np.linalg.norm(x[:, None] - x[None], axis=-1) + 1e9 * np.eye(30)
    np.testing.assert_array_equal(found.indices, np.argsort(distances, axis=1)[:, :4])
    np.testing.assert_allclose(found.distances, np.sort(distances, axis=1)[:, :4], rtol=1e-6)
    near = np.zeros((30, 30), bool)
    np.put_along_axis(near, found.indices, True, axis=1)
    for join, edges in (("union", near | near.T), ("mutual", near & near.T)):
        for weights in EDGE_WEIGHTS:
            graph = knn_graph(found, join, weights, normalize=join == "union")
            s = similarity(graph).toarray()
            np.testing.assert_array_equal(s, s.T)
            np.testing.assert_allclose(s.sum(1), graph.degrees)
            assert (s >= 0).all()
            np.testing.assert_array_equal(s > 0, edges)


def test_ties_go_to_the_lower_index() -> None:
    x = np.array([[0.0], [1.0], [-1.0], [1.0], [-1.0]])
    np.testing.assert_array_equal(find_neighbors(x, 3).indices[0], [1, 2, 3])
    # As the released code does it, the sample itself is one of its neighbours.
    np.testing.assert_array_equal(find_neighbors(x, 2, exclude_self=False).indices[0], [0, 1, 2])


def test_shared_neighbors_weigh_an_edge() -> None:
    """On a line of five points: 0 and 1 share both and themselves, 1 and 2 have three of four in common, ..."""
    x = np.array([[0.0], [1.0], [2.1], [3.3], [4.6]])
    found = find_neighbors(x, 2)
    np.testing.assert_array_equal(np.sort(found.indices, axis=1), [[1, 2], [0, 2], [1, 3], [2, 4], [2, 3]])
    expected = np.zeros((5, 5))
    for (i, j), weight in {(0, 1): 1, (0, 2): 0.25, (1, 2): 0.25, (2, 3): 0.25, (2, 4): 0.25, (3, 4): 1}.items():
        expected[i, j] = expected[j, i] = weight
    np.testing.assert_allclose(similarity(knn_graph(found, edge_weights="shared")).toarray(), expected, rtol=1e-6)


def test_unknown_names_are_refused() -> None:
    found = find_neighbors(np.arange(5.0)[:, None], 2)
    with pytest.raises(ValueError, match="join = 'both' is unknown; use one of 'union', 'mutual'"):
        knn_graph(found, "both")
    with pytest.raises(ValueError, match="edge_weights = 'cosine' is unknown"):
        knn_graph(found, edge_weights="cosine")


def test_blocks_of_neighbors_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).random((23, 4))
    whole = find_neighbors(x, 3)
    monkeypatch.setattr("deepnmf_jax.decomposition.updates.graph.BLOCK_ENTRIES", 23 * 5)
    np.testing.assert_array_equal(find_neighbors(x, 3).indices, whole.indices)


def test_components() -> None:
    s = np.zeros((6, 6))
    for i, j in ((0, 3), (3, 5), (1, 2)):
        s[i, j] = s[j, i] = 1
    np.testing.assert_array_equal(components(from_dense(s)), [0, 1, 1, 0, 2, 0])
