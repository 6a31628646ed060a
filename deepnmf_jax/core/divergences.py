"""How far a code is from its input, and from the best code: KL divergence, certificate, residual. Safe at zero."""

import jax.numpy as jnp
from jax import Array

from deepnmf_jax.core.dtypes import floats, promoted
from deepnmf_jax.core.updates import TINY, em_factor, em_step, reconstruct


def _in_one_dtype(x: Array, w: Array, h: Array) -> list[Array]:
    arrays = [floats(name, a) for name, a in (("x", x), ("w", w), ("h", h))]
    dtype = promoted(*(a.dtype for a in arrays))
    return [a.astype(dtype) for a in arrays]


def kl_divergence(x: Array, w: Array, h: Array) -> Array:
    """KL divergence sum_s x_s log(x_s / R_s) of the input from its reconstruction R = h w (paper, eq. 2).

    x (..., n), w (k, n), h (..., k) -> (...), in nats; 0 log 0 = 0, so an all-zero x has divergence 0.
    """
    x, w, h = _in_one_dtype(x, w, h)
    r = reconstruct(w, h) + jnp.asarray(TINY, x.dtype)
    positive = x > 0
    log_ratio = jnp.log(jnp.where(positive, x, 1) / jnp.where(positive, r, 1))
    return jnp.sum(x * log_ratio, axis=-1)


def certificate(x: Array, w: Array, h: Array) -> Array:
    """Upper bound log max_i q_i of the excess KL(h) - min KL over all codes; 0 at an optimum.

    By Jensen's inequality, for x, h and rows of w that sum to 1. Shapes as in `kl_divergence`, in nats; 0 where x is 0.
    """
    x, w, h = _in_one_dtype(x, w, h)
    largest = jnp.max(em_factor(x, w, h), axis=-1)
    has_input = jnp.any(x > 0, axis=-1)
    return jnp.where(has_input, jnp.log(jnp.where(has_input, largest, 1)), 0)


def residual(x: Array, w: Array, h: Array) -> Array:
    """Fixed-point residual: L1 distance between h and one more step with epsilon = 1. Shapes as in `kl_divergence`."""
    x, w, h = _in_one_dtype(x, w, h)
    return jnp.sum(jnp.abs(em_step(x, w, h) - h), axis=-1)
