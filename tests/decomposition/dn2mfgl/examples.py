"""Factors, data and graphs of one shape, so that a program that takes them is compiled once."""

import jax.numpy as jnp
import numpy as np

from deepnmf_jax.decomposition.dn2mfgl.objective import Problem, Strengths
from deepnmf_jax.decomposition.updates.graph import Graph, find_neighbors, knn_graph

M, N, SIZES = 9, 14, (6, 3)


def example(
    seed: int, strengths: Strengths, sizes: tuple[int, ...] = SIZES
) -> tuple[tuple[np.ndarray, ...], np.ndarray, Problem]:
    """H_1 ... H_l and V, for samples at unit length and their graph."""
    rng = np.random.default_rng(seed)
    x = rng.random((M, 3)) @ rng.random((3, N)) + 0.2 * rng.random((M, N))
    x /= np.linalg.norm(x, axis=0)
    h = tuple(rng.random(shape) + 1e-3 for shape in zip((M, *sizes[:-1]), sizes, strict=True))
    graph = knn_graph(find_neighbors(x.T, 3))
    # The same number of edges in every example.
    missing = 2 * 3 * N - len(graph.rows)
    padding = (jnp.full(missing, N - 1, jnp.int32), jnp.full(missing, N - 1, jnp.int32), jnp.zeros(missing))
    graph = Graph(*(jnp.concatenate(pair) for pair in zip(graph[:3], padding, strict=True)), graph.degrees)
    return h, rng.random((sizes[-1], N)) + 1e-3, Problem(x, graph, strengths)


def strengths_of(alpha: float, beta: float, nu: float, lam: float = 0.01, inner: float = 0.0) -> Strengths:
    """Of a factorization with two layers; inner: weight of the first."""
    return Strengths(alpha, beta, nu, lam, 1e-3, jnp.array([inner, 1.0]))
