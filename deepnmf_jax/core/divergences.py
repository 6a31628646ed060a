"""How far a code is from its input, and from the best code: KL divergence, certificate, residual. Safe at zero."""

import jax.numpy as jnp
from jax import Array

from deepnmf_jax.core.dtypes import floats, in_common
from deepnmf_jax.core.updates import TINY, em_factor, em_step, explained, reconstruct


def _in_one_dtype(x: Array, w: Array, h: Array) -> list[Array]:
    """In float32 at least: in 16 bits an upper bound would be none."""
    return in_common(*(floats(name, a) for name, a in (("x", x), ("w", w), ("h", h))))


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
    """Upper bound of the excess KL(h) - min KL over all codes; 0 at an optimum: log max_i q_i.

    By Jensen's inequality, for x, h and rows of w that sum to 1. Where w has inputs that are 0 in all rows, t being the
    share of the others in x: t log max_i q_i / t. Shapes as in `kl_divergence`, in nats; 0 where t is 0.
    """
    x, w, h = _in_one_dtype(x, w, h)
    total = jnp.sum(x, axis=-1)
    share = explained(x, w)[..., 0] / jnp.where(total > 0, total, 1)
    largest = jnp.max(em_factor(x, w, h), axis=-1)
    return share * jnp.log(jnp.where(share > 0, largest / jnp.where(share > 0, share, 1), 1))


def residual(x: Array, w: Array, h: Array) -> Array:
    """Fixed-point residual: L1 distance between h and one more step with epsilon = 1. Shapes as in `kl_divergence`."""
    x, w, h = _in_one_dtype(x, w, h)
    return jnp.sum(jnp.abs(em_step(x, w, h) - h), axis=-1)
