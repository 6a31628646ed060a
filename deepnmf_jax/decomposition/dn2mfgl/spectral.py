"""Starting codes from the neighbour graph: low eigenvectors of its normalised Laplacian, turned to be non-negative."""

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from scipy import linalg, sparse
from scipy.sparse.linalg import eigsh

from deepnmf_jax.decomposition.updates.graph import Graph, similarity
from deepnmf_jax.decomposition.updates.hals import coordinate_sweep
from deepnmf_jax.decomposition.updates.linear_algebra import product

# Share of the largest code that takes the place of zeros, which a multiplicative rule can never leave.
FILL = 1e-2
DICTIONARY_SWEEPS = 30


def spectral_embedding(graph: Graph, k: int) -> np.ndarray:
    """The k low eigenvectors of the normalised Laplacian, times d^(-1/2): the relaxed normalised cut, (n, k).

    Shi and Malik, Normalized cuts and image segmentation, 2000. Edges alone are multiplied, no matrix is factorized.

    Raises:
        ValueError: k not below the number of samples.
    """
    n = len(graph.degrees)
    if k >= n:
        raise ValueError(f"the last layer has {k} components and there are {n} samples; it must have fewer")
    root = 1 / np.sqrt(np.maximum(np.asarray(graph.degrees, np.float64), np.finfo(np.float64).tiny))
    root = np.where(np.asarray(graph.degrees) > 0, root, 1.0)
    values = np.asarray(graph.weights, np.float64) * root[np.asarray(graph.rows)] * root[np.asarray(graph.columns)]
    # Half of I + S: the eigenvalues lie in [0, 1], and the wanted ones are the largest.
    matrix = 0.5 * (similarity(graph, values) + sparse.identity(n))
    if n <= 4 * k or n <= 50:
        _, vectors = np.linalg.eigh(matrix.toarray())
        vectors = vectors[:, -k:]
    else:
        start = np.random.default_rng(0).standard_normal(n)
        _, vectors = eigsh(matrix, k, which="LA", v0=start, tol=1e-6, ncv=min(n - 1, max(4 * k, 40)))
    return vectors * root[:, None] / np.sqrt(np.mean(root**2))


def spectral_codes(graph: Graph, k: int) -> np.ndarray:
    """Non-negative codes (k, n) whose rows have length 1: the embedding, rotated towards indicators of k groups.

    The rotation is that of Damle, Minden and Ying, Simple, direct and efficient multi-way spectral clustering, 2019:
    pivoted QR finds k samples that differ most, which are turned onto the axes. No random numbers are used.
    """
    embedding = spectral_embedding(graph, k)
    pivots = linalg.qr(embedding.T, pivoting=True, mode="r")[1][:k]
    left, _, right = np.linalg.svd(embedding[pivots].T)
    codes = np.maximum(embedding @ (left @ right), 0).T
    codes += FILL * codes.max()
    return codes / np.linalg.norm(codes, axis=1, keepdims=True)


def dictionary_for(z: Array, v: Array) -> Array:
    """H (m, k) >= 0 that brings H V close to Z (m, n) for given codes V (k, n), without zeros."""
    gram, right = product(v, v.T), product(v, z.T)
    start = jnp.full((v.shape[0], z.shape[0]), jnp.mean(z) / jnp.maximum(jnp.sum(jnp.mean(v, axis=1)), 1e-30), z.dtype)
    h = lax.fori_loop(0, DICTIONARY_SWEEPS, lambda _, h: coordinate_sweep(h, right, gram), start)
    return jnp.maximum(h, 1e-3 * jnp.mean(h)).T
