"""Small graphs from matrices, and the matrix M of the objective written out."""

import numpy as np

from deepnmf_jax.decomposition.dn2mfgl.objective import RIDGE
from deepnmf_jax.decomposition.updates.graph import Graph, make_graph, similarity


def from_dense(s: np.ndarray) -> Graph:
    """The graph of a symmetric matrix S (n, n) >= 0 with an empty diagonal."""
    rows, columns = np.nonzero(s)
    return make_graph(rows, columns, s[rows, columns].astype(float), len(s), False, float)


def full_m(graph: Graph, alpha: float, beta: float, nu: float) -> np.ndarray:
    """M (n, n) = alpha L - beta (I - 11^T/n) + nu (11^T - I) + RIDGE I."""
    s = similarity(graph).toarray()
    one, ones = np.eye(len(s)), np.ones(s.shape)
    return alpha * (np.diag(s.sum(1)) - s) - beta * (one - ones / len(s)) + nu * (ones - one) + RIDGE * one
