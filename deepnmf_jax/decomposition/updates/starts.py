"""Starting factors for A ~ Z D: random, and from the singular value decomposition (NNDSVD, NNDSVDa).

Boutsidis and Gallopoulos, SVD based initialization, 2008. A (n, p) is dense or sparse, non-negative; results are
Z^T (k, n) and D (k, p). All of them scale with the square root of A, so that the unit of the data does not matter.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from deepnmf_jax.decomposition.io.host import eigh, namespace, on_host
from deepnmf_jax.decomposition.io.host_matrix import HostMatrix
from deepnmf_jax.decomposition.io.nonzeros import Matrix, Sparse
from deepnmf_jax.decomposition.updates.linear_algebra import product

INITS = ("nndsvda", "nndsvd", "nndsvdar", "random")
# Up to this size the smaller Gram matrix is decomposed; above it, a random subspace.
LARGEST_GRAM = 2048
# Of a sparse matrix the Gram matrix is made by so many columns at once, and fewer where they have many entries.
COLUMNS, BLOCK_ENTRIES = 64, 2**24
OVERSAMPLING = 10
SUBSPACE_ITERATIONS = 5


def mean_of(a: Matrix) -> Array:
    """Mean of all entries of A, those not stored included."""
    # A float: the number of entries of a sparse matrix may be beyond 32 bits.
    entries = float(a.shape[0] * a.shape[1])
    return namespace(a).sum((a.data if isinstance(a, Sparse) else a) / entries)


def random_factor(key: Array, mean: Array, shape: tuple[int, int]) -> Array:
    """|N(0, 1)| sqrt(mean / k) for a factor (k, m) of data with the given mean."""
    return jnp.abs(jax.random.normal(key, shape, mean.dtype)) * jnp.sqrt(mean / shape[0])


def random_start(key: Array, a: Matrix, k: int) -> tuple[Array, Array]:
    """Z^T (k, n) and D (k, p) of absolute normal numbers times sqrt(mean(A) / k)."""
    key_z, key_d = jax.random.split(key)
    mean = mean_of(a)
    return random_factor(key_z, mean, (k, a.shape[0])), random_factor(key_d, mean, (k, a.shape[1]))


def leading_singular(key: Any, a: Matrix, k: int) -> tuple[Array, Array, Array]:
    """The k largest singular triples of A, k <= min(n, p): U^T (k, n), s (k,), V^T (k, p), descending.

    Exact through the smaller Gram matrix, which loses singular values below 1e-3 of the largest in float32 (a start
    can do without them); for more than 2048 rows and columns by subspace iteration from random vectors.
    """
    n, p = a.shape
    if min(n, p) <= LARGEST_GRAM:
        if n < p:
            vt, s, ut = leading_singular(key, a.T, k)
            return ut, s, vt
        xp = namespace(a)
        values, vectors = eigh(_gram(a))
        s = xp.sqrt(xp.maximum(values[::-1][:k], 0))
        vt = vectors[:, ::-1][:, :k].T
        return product(vt, a.T) / xp.where(s > 0, s, 1)[:, None], s, vt
    width = min(k + OVERSAMPLING, n, p)
    xp = namespace(a)
    basis = xp.linalg.qr(product(a, jax.random.normal(key, (p, width), a.dtype)))[0]
    for _ in range(SUBSPACE_ITERATIONS):
        basis = xp.linalg.qr(product(a, xp.linalg.qr(product(a.T, basis))[0]))[0]
    u, s, vt = xp.linalg.svd(product(a.T, basis).T, full_matrices=False)
    return product(basis, u).T[:k], s[:k], vt[:k]


def _gram(a: Matrix) -> Array:
    """A^T A (p, p); of a sparse matrix by blocks of columns, so that A is never dense as a whole."""
    if isinstance(a, HostMatrix):
        return a.gram()  # type: ignore[return-value]
    if not isinstance(a, Sparse):
        return product(a.T, a)
    p = a.shape[1]
    width = max(1, min(COLUMNS, p, BLOCK_ENTRIES // a.shape[0]))

    def columns(first: Array) -> Array:
        block = jax.nn.one_hot(first + jnp.arange(width), p, dtype=a.dtype, axis=0)
        return product(a.T, product(a, block))

    blocks = lax.map(columns, width * jnp.arange(-(-p // width)))
    return jnp.moveaxis(blocks, 0, 1).reshape(p, -1)[:, :p]


def nndsvd_start(key: Any, a: Matrix, k: int, init: str = "nndsvda") -> tuple[Array, Array]:
    """NNDSVD start. Zeros stay ("nndsvd"), become sqrt(mean(A) / k) ("nndsvda"), or random up to 0.01 times that
    ("nndsvdar"). Atoms beyond min(n, p) are random.

    scikit-learn fills with mean(A), which changes the start with the unit of the data.
    """
    xp = namespace(a)
    rank = min(k, *a.shape)
    ut, s, vt = leading_singular(key, a, rank)
    rows = []
    for factor in (ut, vt):
        up, down = xp.maximum(factor, 0), xp.maximum(-factor, 0)
        rows.append((up, down, xp.linalg.norm(up, axis=1), xp.linalg.norm(down, axis=1)))
    (u_up, u_down, u_up_norm, u_down_norm), (v_up, v_down, v_up_norm, v_down_norm) = rows
    choose_up = u_up_norm * v_up_norm >= u_down_norm * v_down_norm
    size = xp.sqrt(s * xp.where(choose_up, u_up_norm * v_up_norm, u_down_norm * v_down_norm))[:, None]

    def atoms(up: Array, down: Array, up_norm: Array, down_norm: Array) -> Array:
        chosen = xp.where(choose_up[:, None], up, down)
        norm = xp.where(choose_up, up_norm, down_norm)[:, None]
        return size * chosen / xp.where(norm > 0, norm, 1)

    zt, d = atoms(u_up, u_down, u_up_norm, u_down_norm), atoms(v_up, v_down, v_up_norm, v_down_norm)
    # Rounding leaves entries around eps where the exact vector has a zero; scikit-learn cuts them at 1e-6 of the unit.
    mean = mean_of(a)
    small = 1e-6 * xp.sqrt(mean)
    value = xp.zeros((), a.dtype) if init == "nndsvd" else xp.sqrt(mean / k)
    fills = [value, value]
    if init == "nndsvdar":
        keys = jax.random.split(jax.random.fold_in(key, 1))
        fills = [0.01 * value * jax.random.uniform(k, f.shape, f.dtype) for k, f in zip(keys, (zt, d), strict=True)]
    zt, d = (xp.where(factor > small, factor, fill) for factor, fill in zip((zt, d), fills, strict=True))
    if rank < k:
        more_z, more_d = random_start(key, a, k)
        zt, d = xp.concatenate([zt, more_z[rank:]]), xp.concatenate([d, more_d[rank:]])
    return zt, d


def best_scale(a: Matrix, zt: Array, d: Array) -> Array:
    """The number c that makes c Z D closest to A, <A, Z D> / ||Z D||^2; 1 where Z D = 0."""
    xp = namespace(a, zt, d)
    if not isinstance(a, Sparse) and zt.shape[0] > min(a.shape):
        reconstruction = product(zt.T, d)
        along, square = xp.sum(a * reconstruction), xp.sum(reconstruction**2)
    else:
        along = xp.sum(product(zt, a) * d)
        square = xp.sum(product(zt, zt.T) * product(d, d.T))
    return xp.where((square > 0) & (along > 0), along / xp.where(square > 0, square, 1), 1)


def init_factors(key: Any, a: Matrix, k: int, init: str = "nndsvda") -> tuple[Array, Array]:
    """Start Z^T (k, n), D (k, p) by one of `INITS`, scaled so that Z D is as close to A as one number can make it."""
    if init == "random":
        zt, d = random_start(key, a, k)
    else:
        zt, d = nndsvd_start(key, a, k, init)
    return zt * best_scale(a, zt, d), d


compiled_start = jax.jit(init_factors, static_argnames=("k", "init"))


def needs_key(a: Matrix, k: int, init: str) -> bool:
    """Whether random numbers enter a start."""
    return init in ("random", "nndsvdar") or k > min(a.shape) or min(a.shape) > LARGEST_GRAM


def start_of(key: Callable[[], Array], a: Matrix, k: int, init: str) -> tuple[Array, Array]:
    """`init_factors`: by numpy where A lies in the memory of this process and no random numbers enter, else compiled.

    `key` makes the key, if there is need of one.
    """
    if isinstance(a, HostMatrix):
        zt, d = init_factors(key() if needs_key(a, k, init) else None, a, k, init)
        return np.asarray(zt), np.asarray(d)  # type: ignore[return-value]
    if needs_key(a, k, init) or not on_host(a):
        return compiled_start(key(), a, k, init)
    return init_factors(None, np.asarray(a), k, init)  # type: ignore[arg-type]
