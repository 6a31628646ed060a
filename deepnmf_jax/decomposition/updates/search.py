"""Codes for a fixed dictionary: where the search begins, and how far it is from its end."""

from collections.abc import Callable
from typing import cast

import jax.numpy as jnp
from jax import Array

from deepnmf_jax.decomposition.io.nonzeros import Nonzeros
from deepnmf_jax.decomposition.updates.beta_divergence import beta_terms
from deepnmf_jax.decomposition.updates.linear_algebra import product
from deepnmf_jax.decomposition.updates.objective import Half, gradient_of
from deepnmf_jax.decomposition.updates.solvers import SolverSettings

# Up to this many atoms codes by the multiplicative rule get Newton steps as well: beyond, a step costs too many sweeps.
NEWTON_UP_TO = 128
# What is left of the gradient may be rounding below so many units of rounding.
ROUNDING = 1000


def lands(settings: SolverSettings, k: int) -> bool:
    """Whether the search for k codes a sample has Newton steps between its sweeps.

    Coordinate descent lands on the bound by itself; the multiplicative rule comes near it for ever.
    """
    return settings.beta != 2 and k <= NEWTON_UP_TO


def start_of(half: Half, multiplicative: bool) -> Array:
    """Z^T (k, n) to start from: 0, or for the multiplicative rule a constant per sample that fits its sum."""
    if not multiplicative:
        return jnp.zeros(half.shape, half.dtype)
    d, a = half.f, half.a
    sums = a.row_sums() if isinstance(a, Nonzeros) else product(a, jnp.ones((a.shape[1], 1), d.dtype))[:, 0]
    total = jnp.sum(d)
    return jnp.broadcast_to(sums / jnp.where(total > 0, total, 1), half.shape)


def gradient_left(half: Half, beta: float) -> Callable[[Array], Array]:
    """Z^T -> projected gradient left, relative: per sample to the largest one at Z = 0, the largest over the samples.

    For the multiplicative rule, which does not start at 0, relative to the largest of its negative part at the start.
    """
    gradient = gradient_of(half, beta)
    first = start_of(half, beta != 2)
    if half.has_gram(beta):
        unit = jnp.max(half.gram()[0], axis=0)
    elif beta == 2:
        unit = jnp.max(jnp.abs(gradient(first)), axis=0)
    else:
        unit = jnp.max(beta_terms(cast(Array | Nonzeros, half.a), first.T, half.f, beta, half.weights)[0], axis=1)
    unit = jnp.where(unit > 0, unit, 1)
    return lambda zt: jnp.max(jnp.max(jnp.abs(gradient(zt)), axis=0) / unit, initial=0)


def is_rounding(before: Array, now: Array) -> Array:
    """Whether what is left of the gradient is small and falls no more, because of rounding."""
    return (now > 0.5 * before) & (now < ROUNDING * jnp.finfo(now.dtype).eps)
