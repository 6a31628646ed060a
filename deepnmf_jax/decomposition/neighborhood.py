"""The graph over samples that `NMF` may be given: their nearest neighbours, a matrix of the user's, labels of some."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.experimental.sparse import BCOO
from scipy import sparse

from deepnmf_jax.core.checks import check_integer
from deepnmf_jax.decomposition.io import arrays, reading
from deepnmf_jax.decomposition.io.checked import Data, with_missing_filled
from deepnmf_jax.decomposition.updates.graph import Graph, find_neighbors, knn_graph, make_graph, similarity

# Of each sample, where nobody says how many: as in Cai et al. 2011.
NEIGHBORS = 5
# Edges within the labelled classes, of which there are the squares of their sizes.
MOST_EDGES = 2**24


def graph_of(graph: Any, labels: Any, data: Data) -> Graph:
    """The graph over the samples of A (n, p), of what `NMF.fit` was given as `graph` and `labels`.

    Edges between samples of different labels are taken out; two samples of one label get 1 / (size of the class) more,
    so that their part of the term is the sum of squared distances of the codes to the mean of their class.

    Raises:
        ValueError: a matrix that is not (n, n), symmetric and non-negative; labels that are not n whole numbers from -1
            (unknown) on; no edge at all; neighbours wanted of a sparse A.
    """
    n = data.a.shape[0]
    s = _similarity(graph, data)
    if labels is not None:
        known = _labels(labels, n)
        s = s.tocoo()
        mixed = (known[s.row] >= 0) & (known[s.col] >= 0) & (known[s.row] != known[s.col])
        s = sparse.coo_matrix((s.data[~mixed], (s.row[~mixed], s.col[~mixed])), shape=(n, n)) + _within_classes(known)
    s = sparse.csr_matrix(s)
    s.setdiag(0)
    s.eliminate_zeros()
    s.sort_indices()
    if not s.nnz:
        raise ValueError(
            "the graph has no edge, so that alpha_graph has nothing to bind: label two samples of a class, or pass "
            "neighbours (graph=5) or a matrix"
        )
    rows = np.repeat(np.arange(n), np.diff(s.indptr))
    return make_graph(rows, s.indices, s.data, n, False, data.a.dtype)


def _similarity(graph: Any, data: Data) -> sparse.spmatrix:
    n = data.a.shape[0]
    if graph is None or (np.ndim(graph) == 0 and not reading.is_sparse(graph)):
        count = NEIGHBORS if graph is None else check_integer("graph (unless a matrix)", graph, 0)
        if count == 0:
            return sparse.csr_matrix((n, n))
        if isinstance(data.a, BCOO):
            raise ValueError("neighbours are found in a dense A; pass graph=, an (n, n) matrix of similarities")
        filled = jnp.asarray(with_missing_filled(data))
        return similarity(knn_graph(find_neighbors(filled, count)))
    if reading.is_sparse(graph):
        s = reading.entries_of(graph).on_scipy(np.float64)
    else:
        s = sparse.csr_matrix(arrays.to_numpy(graph, np.float64))
    if s.shape != (n, n):
        raise ValueError(f"graph has shape {s.shape}; it must be {(n, n)}, a similarity of each pair of samples")
    if not np.all(np.isfinite(s.data)) or np.any(s.data < 0):
        raise ValueError("graph has entries that are negative, NaN or infinite; similarities are numbers from 0 on")
    if abs(s - s.T).max() > 1e-6 * s.max():
        raise ValueError("graph is not symmetric; pass S + S.T, or the larger of the two")
    return s


def _labels(labels: Any, n: int) -> np.ndarray:
    given = np.asarray(labels)
    if given.shape != (n,) or given.dtype.kind not in "iu":
        raise ValueError(
            f"labels have shape {given.shape} and dtype {given.dtype}; they must be ({n},) whole numbers, -1 where a "
            "sample has none"
        )
    if given.min() < -1:
        raise ValueError(f"labels hold {given.min()}; classes are numbered from 0 on, and -1 is a sample without one")
    return given.astype(np.int64)


def _within_classes(labels: np.ndarray) -> sparse.coo_matrix:
    members = [np.flatnonzero(labels == label) for label in np.unique(labels[labels >= 0])]
    if sum(len(own) ** 2 for own in members) > MOST_EDGES:
        raise ValueError(
            f"labels of {sum(map(len, members))} samples bind more than {MOST_EDGES} pairs; label fewer of them "
            "(-1 for the others), or pass a graph of your own"
        )
    none = np.zeros(0, int)
    rows = np.concatenate([none, *(np.repeat(own, len(own)) for own in members)])
    columns = np.concatenate([none, *(np.tile(own, len(own)) for own in members)])
    weights = np.concatenate([np.zeros(0), *(np.full(len(own) ** 2, 1 / len(own)) for own in members)])
    return sparse.coo_matrix((weights, (rows, columns)), shape=(len(labels), len(labels)))
