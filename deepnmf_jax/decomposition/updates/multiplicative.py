"""Multiplicative rules: of Lee and Seung, for every beta divergence, and for data of any sign.

They never leave an exact zero. Shapes as in `objective.Half`, but for `beta_step`.
"""

from collections.abc import Callable
from typing import cast

import jax.numpy as jnp
from jax import Array

from deepnmf_jax.decomposition.updates.beta_divergence import beta_terms
from deepnmf_jax.decomposition.updates.linear_algebra import product
from deepnmf_jax.decomposition.updates.objective import Half

NEWTON_STEPS = 8


def multiplicative_step(half: Half, beta: float = 2.0, inner: int = 1) -> Callable[[Array], Array]:
    """X -> X after `inner` multiplicative updates; for beta = 2 without weights products with A are made once."""
    f, a, l1, l2, weights = half
    if beta == 2 and weights is None:
        b, c = product(f, f.T), product(f, a.T)
        return _repeated(lambda x: lee_seung_step(x, c, b, l1, l2), inner)
    once = _repeated(lambda x: beta_step(cast(Array, a), x, f, beta, l1, l2, weights), inner)
    return lambda x: once(x.T).T


def _repeated(step: Callable[[Array], Array], count: int) -> Callable[[Array], Array]:
    def steps(x: Array) -> Array:
        for _ in range(count):
            x = step(x)
        return x

    return steps


def lee_seung_step(x: Array, c: Array, b: Array, l1: Array | float, l2: Array | float) -> Array:
    """X <- X * C / (B X + l1 + l2 X) for non-negative C = F A^T and B = F F^T, penalties not yet in them.

    Where the denominator is 0 so is X or C, and X becomes 0.
    """
    below = product(b, x) + l1 + l2 * x
    return x * c / jnp.where(below > 0, below, 1)


def square_root_step(x: Array, above: Array, below: Array) -> Array:
    """X <- X sqrt(above / below), the rule of Ding, Li and Jordan (2010) for data of any sign; shapes of x.

    Entries whose denominator is 0 stay as they are; no constant is added, so the unit of the data does not matter.
    """
    return x * jnp.sqrt(jnp.where(below > 0, above / jnp.where(below > 0, below, 1), 1))


def beta_step(
    a: Array,
    x: Array,
    f: Array,
    beta: float,
    l1: Array | float = 0.0,
    l2: Array | float = 0.0,
    weights: Array | None = None,
) -> Array:
    """One multiplicative update of x (m, k) that never raises divergence + l1 sum x + 0.5 l2 sum x^2.

    x <- x * (above / (below + l1 + l2 x))^g with g = 1/(2-beta) for beta < 1, 1/(beta-1) for beta > 2, else 1. For
    beta < 2 an L2 penalty in the denominator can raise the objective; there x is multiplied with the root of the exact
    majoriser's derivative instead (for beta = 1 a quadratic equation). Shapes of `beta_divergence`.
    """
    above, below = beta_terms(a, x, f, beta, weights)
    below = below + l1
    if beta >= 2:
        below = below + l2 * x
        factor = above / jnp.where(below > 0, below, 1)
        return x * (factor if beta == 2 else factor ** (1 / (beta - 1)))
    exponent = 2 - beta if beta < 1 else 1.0
    return x * _positive_root(above, below, l2 * x, exponent, 3 - beta)


def _positive_root(above: Array, below: Array, extra: Array, q: float, r: float) -> Array:
    """t >= 0 with below t^q + extra t^r = above, for r >= q >= 1; 0 where above is 0."""
    t = above / jnp.where(below > 0, below, 1)
    t = t if q == 1 else t ** (1 / q)
    # Newton's method from the right of the root of a convex, increasing function falls monotonically onto it.
    start = jnp.where(below > 0, t, jnp.inf)
    safe = jnp.where(extra > 0, extra, 1)
    root = jnp.minimum(start, jnp.where(extra > 0, (above / safe) ** (1 / r), jnp.inf))
    root = jnp.where(jnp.isfinite(root), root, 0)
    for _ in range(NEWTON_STEPS):
        value = below * root**q + extra * root**r - above
        slope = q * below * root ** (q - 1) + r * extra * root ** (r - 1)
        root = jnp.maximum(root - value / jnp.where(slope > 0, slope, 1), 0)
    return jnp.where(extra > 0, root, t)
