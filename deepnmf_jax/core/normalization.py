"""Rows that sum to 1: weights w from raw weights u (paper, eq. 20), inputs x from raw patches p.

Both backward passes are written out, dividing twice by the sum. Autodiff divides by its square, which underflows
in float32, so that one black patch or one zero row of u would give NaN.
"""

import jax
import jax.numpy as jnp
from jax import Array

# The authors' constant, added to each sum.
SMALLEST_SUM = 1e-19


def row_sums(a: Array) -> Array:
    """Sums along the last axis, kept as an axis, + 1e-19; 1 where they are 0, so that dividing by them is harmless."""
    return divisible(jnp.sum(a, axis=-1, keepdims=True))


def divisible(total: Array) -> Array:
    """Sums + 1e-19, and 1 where they are 0."""
    return jnp.where(total > 0, total + jnp.asarray(SMALLEST_SUM, total.dtype), 1)


def sums_by_product(a: Array) -> Array:
    """Sums along the last axis, kept as an axis, of arrays of many rows. a (..., n) -> (..., 1)."""
    # As a product: XLA's CPU backend is slow at sums of many short rows. Profiles show the name.
    with jax.named_scope("row_sums"):
        return jnp.matmul(a, jnp.ones((a.shape[-1], 1), a.dtype), precision="highest")


def _accumulated(a: Array) -> Array:
    return a.astype(jnp.promote_types(a.dtype, jnp.float32))


@jax.custom_vjp
def normalize_patches(p: Array) -> Array:
    """x = p / (sum p + 1e-19) along the last axis. p (..., n), non-negative -> x (..., n), rows summing to 1 (or 0).

    A row of zeros stays zero and passes no gradient.
    """
    return _normalize_fwd(p)[0]


def _normalize_fwd(p: Array) -> tuple[Array, tuple[Array, Array]]:
    wide = _accumulated(p)
    sums = sums_by_product(wide)
    total = divisible(sums)
    x = (wide / total).astype(p.dtype)
    return x, (x, jnp.where(sums > 0, 1 / total, 0))


def _normalize_bwd(residuals: tuple[Array, Array], g: Array) -> tuple[Array]:
    x, scale = residuals
    return (_scale_back(_accumulated(x), scale, _accumulated(g)).astype(x.dtype),)


def _scale_back(x: Array, scale: Array, g: Array) -> Array:
    """(g - sum g x) / total, with scale = 1 / total, or 0 for a row of zeros. x, g (..., n), scale (..., 1)."""
    return (g - sums_by_product(g * x)) * scale


normalize_patches.defvjp(_normalize_fwd, _normalize_bwd)


@jax.custom_vjp
def normalize_weights(u: Array) -> Array:
    """w = |u| / (sum |u| + 1e-19) along the last axis (paper, eq. 20). u (k, n) of any sign -> w (k, n).

    A row of zeros stays zero and has gradient zero: a dead unit stays dead, as in the authors' code. The derivative of
    |u| at 0 is 0.
    """
    return _weights_fwd(u)[0]


def _weights_fwd(u: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    w, (_, scale) = _normalize_fwd(jnp.abs(u))
    return w, (u, w, scale)


def _weights_bwd(residuals: tuple[Array, Array, Array], g: Array) -> tuple[Array]:
    u, w, scale = residuals
    return ((jnp.sign(u) * _scale_back(_accumulated(w), scale, _accumulated(g))).astype(u.dtype),)


normalize_weights.defvjp(_weights_fwd, _weights_bwd)
