"""Beta divergences (Frobenius 2, Kullback-Leibler 1, Itakura-Saito 0 and between) and their multiplicative rule.

Fevotte and Idier, Algorithms for nonnegative matrix factorization with the beta-divergence, 2011. a (m, q) is the
data, x (m, k) the factor sought, f (k, q) the other one, w = x f the reconstruction.
"""

import jax.numpy as jnp
from jax import Array

from deepnmf_jax.core.updates import em_factor
from deepnmf_jax.decomposition.updates.quadratic import product

NEWTON_STEPS = 8


def floor_of(dtype: jnp.dtype, beta: float) -> Array:
    """Smallest reconstruction that the powers of `beta` are taken of, so that none of them overflows."""
    return jnp.asarray(float(jnp.finfo(dtype).max) ** (-0.25 / max(2 - beta, 1)), dtype)


def beta_divergence(a: Array, w: Array, beta: float, weights: Array | None = None) -> Array:
    """Sum of the beta divergences of a (m, q) from w (m, q), times `weights` if given: a scalar.

    beta = 2 is half the squared error, 1 the generalised Kullback-Leibler divergence, 0 that of Itakura and Saito.
    """
    if beta == 2:
        each = 0.5 * (a - w) ** 2
    else:
        w = jnp.maximum(w, floor_of(w.dtype, beta))
        positive = a > 0
        some = jnp.where(positive, a, 1)
        if beta == 1:
            each = jnp.where(positive, a * jnp.log(some / w), 0) - a + w
        elif beta == 0:
            each = jnp.where(positive, a / w - jnp.log(some / w) - 1, 0)
        else:
            power = jnp.where(positive, some**beta, 0)
            each = (power + (beta - 1) * w**beta - beta * a * w ** (beta - 1)) / (beta * (beta - 1))
    return jnp.sum(each if weights is None else weights * each)


def beta_terms(a: Array, x: Array, f: Array, beta: float, weights: Array | None = None) -> tuple[Array, Array]:
    """Negative and positive part of the gradient with respect to x: ((A W^(beta-2)) F^T, W^(beta-1) F^T), each (m, k).

    For beta = 1 the first is the step of the network's inference (paper, eq. 3), with A for x and F for w.
    """
    if beta == 1:
        weighted = a if weights is None else weights * a
        every = jnp.ones_like(a) if weights is None else weights
        return em_factor(weighted, f, x), product(every, f.T)
    w = product(x, f)
    if beta == 2:
        above, below = a, w
    else:
        w = jnp.maximum(w, floor_of(w.dtype, beta))
        above, below = a * w ** (beta - 2), w ** (beta - 1)
    if weights is not None:
        above, below = weights * above, weights * below
    return product(above, f.T), product(below, f.T)


def beta_step(a: Array, x: Array, f: Array, beta: float, l1: Array, l2: Array, weights: Array | None = None) -> Array:
    """One multiplicative update of x (m, k) that never raises divergence + l1 sum x + 0.5 l2 sum x^2.

    x <- x * (above / (below + l1 + l2 x))^g with g = 1/(2-beta) for beta < 1, 1/(beta-1) for beta > 2, else 1. For
    beta < 2 an L2 penalty in the denominator can raise the objective; there x is multiplied with the root of the exact
    majoriser's derivative instead (for beta = 1 a quadratic equation). Exact zeros stay.
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
