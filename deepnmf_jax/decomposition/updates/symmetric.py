"""Symmetric NMF: one sweep over the columns z of Z >= 0 that never raises 0.5 ||A - Z Z^T||^2.

Beside the other columns A is R, and the objective -z^T R z + 0.5 ||z||^4 and a constant. The quartic term is kept, as
in Dragomir, d'Aspremont and Bolte, Quartic first-order methods for low-rank minimization, 2021; -z^T R z lies below its
tangent plus rho ||z - z0||^2, for any rho that is at least the largest eigenvalue of -R. Of the sum the minimum over
z >= 0 is known: z = s v+ / ||v+|| with v = R z0 + rho z0 and s^3 + rho s = ||v+||.

A (n, n) is symmetric, dense or sparse, of any sign; Z^T (k, n).
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental.sparse import BCOO
from scipy.sparse.linalg import ArpackNoConvergence, eigsh

from deepnmf_jax.decomposition.io.host import eigh
from deepnmf_jax.decomposition.io.nonzeros import on_scipy
from deepnmf_jax.decomposition.updates.linear_algebra import largest_eigenvalue_bound, product

# Of a cubic equation whose root is approached from the right, monotonically.
NEWTON_STEPS = 12
# Up to this size all eigenvalues are at hand; above it, Lanczos's method finds the lowest one, with a margin.
LARGEST_DENSE, MARGIN = 512, 1.05
# The share of the safe rho: what it is divided by after a sweep that lowered the objective, and multiplied with else.
BOLDER, WARIER, LEAST_SHARE = 2.0, 4.0, 1e-3


def lowest_eigenvalue(a: Array | BCOO) -> float:
    """How far the eigenvalues of A (n, n) go below 0: a number of at least 0."""
    n = a.shape[0]
    if n <= LARGEST_DENSE:
        return max(0.0, -float(eigh(np.asarray(a.todense() if isinstance(a, BCOO) else a, np.float64))[0][0]))
    matrix = on_scipy(a).astype(np.float64) if isinstance(a, BCOO) else np.asarray(a, np.float64)
    start = np.random.default_rng(0).standard_normal(n)
    try:
        return max(0.0, -MARGIN * float(eigsh(matrix, k=1, which="SA", v0=start, return_eigenvectors=False)[0]))
    except ArpackNoConvergence:
        # No eigenvalue is further from 0 than the largest sum of a row.
        return float(abs(matrix).sum(axis=1).max())


def cubic_root(rho: Array, size: Array) -> Array:
    """s >= 0 with s^3 + rho s = size, for rho, size >= 0."""
    root = jnp.minimum(jnp.cbrt(size), jnp.where(rho > 0, size / jnp.where(rho > 0, rho, 1), jnp.inf))

    def step(_: int, s: Array) -> Array:
        slope = 3 * s**2 + rho
        return s - (s**3 + rho * s - size) / jnp.where(slope > 0, slope, 1)

    return jnp.maximum(lax.fori_loop(0, NEWTON_STEPS, step, root), 0)


class Columns(NamedTuple):
    """zt (k, n); along (k, n), that times A; share () of the safe rho that the next sweep tries."""

    zt: Array
    along: Array
    share: Array


def columns_of(zt: Array, a: Array | BCOO) -> Columns:
    """What `symmetric_sweep` begins with."""
    return Columns(zt, product(zt, a), jnp.ones((), zt.dtype))


def column_steps(zt: Array, along: Array, below: Array | float, share: Array | float = 1.0) -> Array:
    """Z^T (k, n) after one step of each column of Z; a column of zeros stays.

    With share = 1 the objective does not rise; `below` is that of `lowest_eigenvalue`.
    """
    k = len(zt)

    def update(j: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        zt, gram = now
        others = (jnp.arange(k) != j).astype(zt.dtype)[:, None]
        rho = share * (below + largest_eigenvalue_bound(gram * others * others.T))
        v = jnp.maximum(along[j] - product((others[:, 0] * gram[j])[None], zt)[0] + rho * zt[j], 0)
        size = jnp.linalg.norm(v)
        zt = zt.at[j].set(cubic_root(rho, size) * v / jnp.where(size > 0, size, 1))
        # One row and one column of the Gram matrix have changed.
        row = product(zt[j][None], zt.T)[0]
        return zt, gram.at[j].set(row).at[:, j].set(row)

    return lax.fori_loop(0, k, update, (zt, product(zt, zt.T)))[0]


def symmetric_sweep(now: Columns, a: Array | BCOO, below: Array | float) -> Columns:
    """One step of each column; a shorter rho than the safe one is tried first, and taken if the objective falls.

    The safe rho holds for all directions at once. Steps with a thousandth of it nearly always lower the objective too.
    """

    def attempt(share: Array) -> tuple[Array, Array]:
        zt = column_steps(now.zt, now.along, below, share)
        return zt, product(zt, a)

    def value(zt: Array, along: Array) -> Array:
        return 0.5 * jnp.sum(product(zt, zt.T) ** 2) - jnp.sum(zt * along)

    tried = attempt(now.share)
    falls = value(*tried) <= value(now.zt, now.along)
    zt, along = lax.cond(falls, lambda: tried, lambda: attempt(jnp.ones_like(now.share)))
    share = jnp.where(falls, jnp.maximum(now.share / BOLDER, LEAST_SHARE), jnp.minimum(now.share * WARIER, 1))
    return Columns(zt, along, share)
