"""Sparse graphs of nearest neighbours, and products with them: edges and weights, nothing of n x n entries.

Samples are rows, (n, m). A graph is a list of directed edges, each undirected edge twice, ordered by its first end.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from scipy import sparse
from scipy.sparse import csgraph

from deepnmf_jax.core.checks import check_choice
from deepnmf_jax.decomposition.updates.linear_algebra import product

JOINS = ("union", "mutual")
EDGE_WEIGHTS = ("binary", "heat", "local_scaling", "shared")
# Squared distances held at once: 2^23 of them are 64 MB in float64.
BLOCK_ENTRIES = 2**23
# An edge of weight 0 would be no edge.
LEAST = 1e-8


class Graph(NamedTuple):
    """rows (e,), columns (e,): ends of the directed edges, rows ascending. weights (e,): S > 0. degrees (n,): S 1."""

    rows: Array
    columns: Array
    weights: Array
    degrees: Array


class Neighbors(NamedTuple):
    """indices (n, k) of the nearest samples, ascending by distance; distances (n, k), not squared."""

    indices: np.ndarray
    distances: np.ndarray


@jax.jit
def _nearest(rows: Array, first: Array, x: Array, squares: Array, exclude_self: Array) -> Array:
    numbers = first + jnp.arange(rows.shape[0])
    distances = squares[numbers][:, None] + squares[None] - 2 * product(rows, x.T)
    distances = jnp.maximum(distances, 0)
    itself = numbers[:, None] == jnp.arange(x.shape[0])
    return jnp.where(itself & exclude_self, jnp.inf, distances)


def find_neighbors(x: Array | np.ndarray, n_neighbors: int, exclude_self: bool = True) -> Neighbors:
    """The nearest samples of every sample by Euclidean distance, in blocks of rows. Ties go to the lower index.

    Args:
        x: samples (n, m).
        n_neighbors: k, at least 1.
        exclude_self: False returns the k + 1 nearest with the sample itself among the candidates, as the released
            `constructW.m` does: among more than k exact copies of a sample it may then be missing.

    Raises:
        ValueError: fewer than n_neighbors + 1 samples.
    """
    x = jnp.asarray(x)
    n = x.shape[0]
    if n < 2:
        raise ValueError("X has a single sample (n_samples = 1), which has no neighbours; pass two or more")
    if n <= n_neighbors:
        raise ValueError(
            f"n_neighbors = {n_neighbors} with {n} samples; a sample needs that many others: lower n_neighbors "
            f"to at most {n - 1}, or pass more samples"
        )
    count = n_neighbors if exclude_self else n_neighbors + 1
    block = min(n, max(1, BLOCK_ENTRIES // n))
    squares = jnp.sum(x * x, axis=1)
    indices, values = np.empty((n, count), np.int64), np.empty((n, count), x.dtype)
    for start in range(0, n, block):
        # A last block of another length would be compiled anew; it starts earlier instead.
        first = min(start, n - block)
        rows = lax.dynamic_slice_in_dim(x, first, block)
        distances = np.asarray(_nearest(rows, first, x, squares, exclude_self))
        values[first : first + block], indices[first : first + block] = _smallest(distances, count)
    return Neighbors(indices, np.sqrt(values))


def _smallest(distances: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` smallest entries of each row, ascending, equal ones by index: values and indices (b, count)."""
    bound = np.partition(distances, count - 1, axis=1)[:, count - 1 : count]
    # Whatever is as small as the last one is a candidate; padding keeps rows with ties and without in one array.
    rows, columns = np.nonzero(distances <= bound)
    order = np.lexsort((columns, distances[rows, columns], rows))
    rows, columns = rows[order], columns[order]
    first = np.searchsorted(rows, np.arange(len(distances)))
    indices = columns[first[:, None] + np.arange(count)]
    return np.take_along_axis(distances, indices, axis=1), indices


def knn_graph(
    neighbors: Neighbors, join: str = "union", edge_weights: str = "binary", normalize: bool = False
) -> Graph:
    """The graph of lists of neighbours.

    Args:
        neighbors: of `find_neighbors`. The sample itself among its neighbours is no edge.
        join: "union" (an edge where one is a neighbour of the other) or "mutual" (where both are).
        edge_weights: "binary"; "heat", exp(-d^2 / s^2) with s the mean distance over all neighbours; "local_scaling",
            exp(-d^2 / (s_i s_j)) with s_i the distance from i to its last neighbour (Zelnik-Manor and Perona 2004);
            "shared", the square of |N_i and N_j| / |N_i or N_j|, N_i the sample i and its neighbours (after Jarvis and
            Patrick 1973): an edge between groups has few neighbours in common.
        normalize: divide S_ij by sqrt(d_i d_j), so that alpha means the same for samples of many and few neighbours.

    Raises:
        ValueError: an unknown name.
    """
    check_choice("join", join, JOINS)
    check_choice("edge_weights", edge_weights, EDGE_WEIGHTS)
    n, k = neighbors.indices.shape
    rows, columns = np.repeat(np.arange(n), k), neighbors.indices.ravel()
    distances = neighbors.distances.ravel()
    kept = rows != columns
    rows, columns, distances = rows[kept], columns[kept], distances[kept]
    low, high = np.minimum(rows, columns), np.maximum(rows, columns)
    pairs, first, counts = np.unique(low * n + high, return_index=True, return_counts=True)
    if join == "mutual":
        pairs, first = pairs[counts == 2], first[counts == 2]
    low, high, distances = pairs // n, pairs % n, distances[first].astype(np.float64)
    weights = _weights(low, high, distances, neighbors, edge_weights)
    rows, columns, weights = np.r_[low, high], np.r_[high, low], np.r_[weights, weights]
    order = np.lexsort((columns, rows))
    return make_graph(rows[order], columns[order], weights[order], n, normalize, neighbors.distances.dtype)


def _weights(low: np.ndarray, high: np.ndarray, distances: np.ndarray, neighbors: Neighbors, kind: str) -> np.ndarray:
    if kind == "binary":
        return np.ones(len(distances))
    if kind == "shared":
        around = np.concatenate([np.arange(len(neighbors.indices))[:, None], neighbors.indices], axis=1)
        both = np.sum(around[low][:, :, None] == around[high][:, None, :], axis=(1, 2))
        return np.maximum((both / (2 * around.shape[1] - both)) ** 2, LEAST)
    if kind == "heat":
        scale = np.full(len(neighbors.distances), neighbors.distances.mean())
    else:
        scale = neighbors.distances[:, -1].astype(np.float64)
    products = scale[low] * scale[high]
    # Exact copies of one another: distance 0 over scale 0, the closest that there is.
    ratio = np.divide(distances**2, products, out=np.zeros_like(distances), where=products > 0)
    return np.maximum(np.exp(-ratio), LEAST)


def make_graph(
    rows: np.ndarray, columns: np.ndarray, weights: np.ndarray, n: int, normalize: bool, dtype: np.dtype | type
) -> Graph:
    """A graph of directed edges ordered by row, both directions given."""
    degrees = np.bincount(rows, weights, n)
    if normalize:
        weights = weights / np.sqrt(degrees[rows] * degrees[columns])
        degrees = np.bincount(rows, weights, n)
    return Graph(
        jnp.asarray(rows, jnp.int32),
        jnp.asarray(columns, jnp.int32),
        jnp.asarray(weights, dtype),
        jnp.asarray(degrees, dtype),
    )


def times_similarity(v: Array, graph: Graph) -> Array:
    """V S (r, n) of V (r, n), through the edges alone."""
    moved = v.T[graph.columns] * graph.weights[:, None]
    return jax.ops.segment_sum(moved, graph.rows, num_segments=v.shape[1], indices_are_sorted=True).T


def laplacian_gram(v: Array, graph: Graph) -> Array:
    """V L V^T (r, r) of V (r, n), as a sum over edges of products of differences: no difference of large numbers."""
    differences = _differences(v, graph)
    return 0.5 * product((graph.weights[:, None] * differences).T, differences)


def laplacian_energies(v: Array, graph: Graph) -> Array:
    """The diagonal of `laplacian_gram`, (r,): v_k^T L v_k >= 0 of every row."""
    return 0.5 * product(graph.weights[None], _differences(v, graph) ** 2)[0]


def _differences(v: Array, graph: Graph) -> Array:
    codes = v.T
    return codes[graph.rows] - codes[graph.columns]


def nearest_of(neighbors: Neighbors, k: int) -> Neighbors:
    """The k nearest of the neighbours."""
    return Neighbors(neighbors.indices[:, :k], neighbors.distances[:, :k])


def similarity(graph: Graph, weights: np.ndarray | None = None) -> sparse.csr_matrix:
    """S (n, n) as SciPy's sparse matrix in float64; with other weights (e,) of the same edges, if given."""
    values = np.asarray(graph.weights if weights is None else weights, np.float64)
    n = len(graph.degrees)
    return sparse.csr_matrix((values, (np.asarray(graph.rows), np.asarray(graph.columns))), shape=(n, n))


def components(graph: Graph) -> np.ndarray:
    """Connected component of every sample, (n,), numbered from 0 in the order of their first samples."""
    return csgraph.connected_components(similarity(graph), directed=False)[1]
