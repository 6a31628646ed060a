"""Settings without a minimum are found, and only those: against all small directions, on disconnected graphs too."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepnmf_jax.decomposition.dn2mfgl.boundedness import check_boundedness
from deepnmf_jax.decomposition.updates.graph import Graph, components, find_neighbors, knn_graph, make_graph
from tests.decomposition.dn2mfgl.dense import from_dense, full_m


def is_copositive(m: np.ndarray) -> bool:
    """Exact for small matrices: no principal submatrix has a positive eigenvector with a negative eigenvalue."""
    n = len(m)
    for mask in range(1, 2**n):
        on = [i for i in range(n) if mask >> i & 1]
        values, vectors = np.linalg.eigh(m[np.ix_(on, on)])
        for value, vector in zip(values, vectors.T, strict=True):
            if value < -1e-9 and ((vector > 1e-12).all() or (vector < -1e-12).all()):
                return False
    return True


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from([0.0, 0.1, 1.0, 10.0]),
    st.sampled_from([0.0, 0.03, 0.1, 0.5, 1.0]),
    st.sampled_from([0.0, 0.01, 0.1, 1.0]),
)
def test_against_the_exact_answer(seed: int, alpha: float, beta: float, nu: float) -> None:
    rng = np.random.default_rng(seed)
    s = np.triu(rng.random((7, 7)) < 0.35, 1) * 1.0
    graph = from_dense(s + s.T)
    m = full_m(graph, alpha, beta, nu)
    verdict = check_boundedness(graph, alpha, beta, nu)
    if verdict.status == "bounded":
        assert is_copositive(m)
    if verdict.status == "unbounded":
        v = verdict.direction
        assert v is not None and verdict.value is not None
        assert (v >= 0).all() and np.linalg.norm(v) == pytest.approx(1)
        assert v @ m @ v == pytest.approx(verdict.value, abs=1e-9) and verdict.value < 0
    if verdict.status == "undecided":
        assert beta > 0


def two_blobs(n: int = 40, distance: float = 50.0) -> Graph:
    x = np.random.default_rng(0).standard_normal((n, 3))
    x[n // 2 :] += distance
    return knn_graph(find_neighbors(x, 5))


def test_a_disconnected_graph() -> None:
    graph = two_blobs()
    assert components(graph).max() == 1
    for setting, word in [((1, 10, 1), "degree"), ((1, 0.1, 0), "component"), ((0.01, 100, 0.01), "degree")]:
        verdict = check_boundedness(graph, *setting)
        assert verdict.status == "unbounded" and word in verdict.reason
    assert check_boundedness(graph, 1, 1, 1).status == "bounded"
    assert check_boundedness(graph, 1, 0, 5).status == "bounded"
    assert check_boundedness(graph, 0, 0, 0).status == "bounded"


def test_a_direction_between_the_tests() -> None:
    """A chain of blobs passes the node and the component test, and a part of it still runs off."""
    blobs = [np.random.default_rng(i).standard_normal((12, 2)) + 9 * i for i in range(4)]
    graph = knn_graph(find_neighbors(np.concatenate(blobs), 6))
    joined = np.concatenate([np.arange(11, 47, 12), np.arange(12, 48, 12)])
    rows = np.r_[graph.rows, joined]
    columns = np.r_[graph.columns, np.arange(12, 48, 12), np.arange(11, 47, 12)]
    weights = np.r_[graph.weights, np.full(6, 0.01)]
    order = np.lexsort((columns, rows))
    graph = make_graph(rows[order], columns[order], weights[order], 48, False, np.float64)
    assert components(graph).max() == 0
    verdict = check_boundedness(graph, 1.0, 0.5, 0.0)
    assert verdict.status == "unbounded" and "direction" in verdict.reason
    v = verdict.direction
    assert v is not None and v @ full_m(graph, 1.0, 0.5, 0.0) @ v == pytest.approx(verdict.value) and verdict.value < 0
    # Little beta is held by the second eigenvalue.
    assert check_boundedness(graph, 1.0, 1e-5, 0.0).status == "bounded"


def test_isolated_samples() -> None:
    x = np.concatenate([np.random.default_rng(0).standard_normal((20, 3)), np.full((1, 3), 100.0)])
    graph = knn_graph(find_neighbors(x, 3), "mutual")
    verdict = check_boundedness(graph, 1, 0.01, 1)
    assert verdict.status == "unbounded" and "has no neighbour" in verdict.reason and "sample" in verdict.reason
    assert check_boundedness(graph, 1, 0, 1).status == "bounded"
