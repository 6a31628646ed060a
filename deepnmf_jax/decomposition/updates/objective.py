"""What is minimised: divergence of Z D from A plus penalties, in scikit-learn's scaling. All functions are pure.

    divergence(A, Z D) + l1_z sum Z + 0.5 l2_z sum Z^2 + l1_d sum D + 0.5 l2_d sum D^2

A (n, p) is dense or a `BCOO` matrix, Z^T (k, n), D (k, p), weights (n, p) or None. The products with A keep Z
transposed, because all updates run along its rows.
"""

from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental.sparse import BCOO

from deepnmf_jax.decomposition.updates.multiplicative import beta_divergence, beta_terms
from deepnmf_jax.decomposition.updates.quadratic import feasible_part, product, projected_gradient
from deepnmf_jax.decomposition.updates.residual_updates import weighted_projected_gradient

# Where the squared error is below this share of ||A||^2, the Gram form has lost its digits in float32.
CANCELLATION = 1e-3


class Penalties(NamedTuple):
    """Weights of the penalties, scalars: L1 and L2 of the codes, L1 and L2 of the dictionary."""

    l1_z: Array | float = 0.0
    l2_z: Array | float = 0.0
    l1_d: Array | float = 0.0
    l2_d: Array | float = 0.0

    def transposed(self) -> "Penalties":
        """The penalties of A^T ~ D^T Z^T."""
        return Penalties(self.l1_d, self.l2_d, self.l1_z, self.l2_z)


def scaled_penalties(alpha_w: float, alpha_h: float | str, l1_ratio: float, n: int, p: int) -> Penalties:
    """scikit-learn's alpha_W, alpha_H ("same": alpha_W) and l1_ratio for n samples and p features."""
    alpha_h = alpha_w if alpha_h == "same" else float(alpha_h)
    return Penalties(
        alpha_w * l1_ratio * p, alpha_w * (1 - l1_ratio) * p, alpha_h * l1_ratio * n, alpha_h * (1 - l1_ratio) * n
    )


def rescaled(penalties: Penalties, scale: float, beta: float = 2.0) -> Penalties:
    """Penalties of the problem with A / scale and factors / sqrt(scale), equal to the old one up to scale^beta."""
    l1, l2 = scale ** (0.5 - beta), scale ** (1 - beta)
    return Penalties(penalties.l1_z * l1, penalties.l2_z * l2, penalties.l1_d * l1, penalties.l2_d * l2)


def penalty(zt: Array, d: Array, penalties: Penalties) -> Array:
    """The four penalty terms, a scalar."""
    l1_z, l2_z, l1_d, l2_d = penalties
    return (
        l1_z * jnp.sum(jnp.abs(zt))
        + 0.5 * l2_z * jnp.sum(zt**2)
        + l1_d * jnp.sum(jnp.abs(d))
        + 0.5 * l2_d * jnp.sum(d**2)
    )


def has_many_atoms(shape: tuple[int, ...], k: int) -> bool:
    """Whether k atoms are so many that products with A, of shape (n, p), cost less than k x k Gram matrices."""
    n, p = shape
    return k * (n + p) > 2 * n * p


def square_sum(a: Array | BCOO) -> Array:
    """Sum of the squares of the entries of A, dense or sparse."""
    return jnp.sum((a.data if isinstance(a, BCOO) else a) ** 2)


def squared_error(a: Array | BCOO, zt: Array, d: Array) -> Array:
    """0.5 ||A - Z D||^2 by Gram matrices; where that cancels and A is dense, by the difference itself."""
    if not isinstance(a, BCOO) and has_many_atoms(a.shape, zt.shape[0]):
        return 0.5 * jnp.sum((a - product(zt.T, d)) ** 2)
    m, n = product(zt, a), product(zt, zt.T)
    total = square_sum(a)
    gram = 0.5 * jnp.maximum(total - 2 * jnp.sum(m * d) + jnp.sum(n * product(d, d.T)), 0)
    if isinstance(a, BCOO):
        return gram
    return jax.lax.cond(gram < CANCELLATION * total, lambda: 0.5 * jnp.sum((a - product(zt.T, d)) ** 2), lambda: gram)


def divergence(a: Array | BCOO, zt: Array, d: Array, beta: float = 2.0, weights: Array | None = None) -> Array:
    """Beta divergence of Z D from A, a scalar; entries of weight 0 do not count."""
    if beta == 2 and weights is None:
        return squared_error(a, zt, d)
    return beta_divergence(cast(Array, a), product(zt.T, d), beta, weights)


def objective(
    a: Array | BCOO, zt: Array, d: Array, penalties: Penalties, beta: float = 2.0, weights: Array | None = None
) -> Array:
    """Divergence plus penalties, a scalar."""
    return divergence(a, zt, d, beta, weights) + penalty(zt, d, penalties)


def codes_gradient(
    a: Array | BCOO, zt: Array, d: Array, penalties: Penalties, beta: float = 2.0, weights: Array | None = None
) -> Array:
    """Projected gradient of the objective with respect to Z^T, (k, n): zero exactly at the best codes."""
    l1, l2 = penalties.l1_z, penalties.l2_z
    if beta == 2 and weights is None and not isinstance(a, BCOO) and has_many_atoms(a.shape, d.shape[0]):
        gradient = product(d, (product(zt.T, d) - a).T) + l1 + l2 * zt
        return feasible_part(zt, gradient)
    if beta == 2 and weights is None:
        b = product(d, d.T) + l2 * jnp.eye(d.shape[0], dtype=d.dtype)
        return projected_gradient(zt, product(d, a.T) - l1, b)
    if beta == 2 and weights is not None:
        return weighted_projected_gradient(zt, d, cast(Array, a), weights, jnp.asarray(l1), jnp.asarray(l2))
    above, below = beta_terms(cast(Array, a), zt.T, d, beta, weights)
    gradient = (below - above).T + l1 + l2 * zt
    return feasible_part(zt, gradient)


def projected_gradient_norm(
    a: Array | BCOO, zt: Array, d: Array, penalties: Penalties, beta: float = 2.0, weights: Array | None = None
) -> Array:
    """2-norm of the projected gradient with respect to both factors, a scalar."""
    flipped = None if weights is None else weights.T
    of_codes = codes_gradient(a, zt, d, penalties, beta, weights)
    of_dictionary = codes_gradient(a.T, d, zt, penalties.transposed(), beta, flipped)
    return jnp.sqrt(jnp.sum(of_codes**2) + jnp.sum(of_dictionary**2))
