"""NMF inference: the non-negative code h of an input x under fixed weights w."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from deepnmf_jax.core import checks, gradients
from deepnmf_jax.core.normalization import row_sums
from deepnmf_jax.core.updates import em_factor, em_step


def uniform_start(x: Array, k: int) -> Array:
    """h(0) = 1/k for each row of x (..., n), and 0 for a row of zeros, which no activity explains: -> (..., k)."""
    has_input = jnp.any(x > 0, axis=-1, keepdims=True)
    return jnp.broadcast_to(jnp.where(has_input, 1.0 / k, 0.0), (*x.shape[:-1], k)).astype(x.dtype)


def iterate(x: Array, w: Array, *, num_iters: int, epsilon: float) -> Array:
    """`num_iters` applications of `em_step` to the uniform start. x (..., n), w (k, n), of one dtype -> h (..., k).

    With epsilon = 1 the step h * q does not depend on the scale of h, so one normalisation after the last step
    does what one in each would.
    """
    start = uniform_start(x, w.shape[0])
    if epsilon != 1.0:
        return jax.lax.fori_loop(0, num_iters, lambda _, h: em_step(x, w, h, epsilon), start)
    h = jax.lax.fori_loop(0, num_iters, lambda _, h: h * em_factor(x, w, h), start)
    return h / row_sums(h)


@partial(jax.jit, static_argnames=("num_iters", "epsilon", "gradient", "cg_steps"))
def infer_unchecked(x: Array, w: Array, num_iters: int, epsilon: float, gradient: str, cg_steps: int) -> Array:
    """`infer` for arguments known to be right, as the layers' are by construction."""
    forward = partial(iterate, num_iters=num_iters, epsilon=epsilon)
    return gradients.differentiable(forward, x, w, gradient=gradient, cg_steps=cg_steps)


def infer(
    x: Array,
    w: Array,
    *,
    num_iters: int = 20,
    epsilon: float = 1.0,
    gradient: str = "approximate",
    cg_steps: int = 4,
) -> Array:
    """Activities of an NMF layer: `num_iters` iterations of h_i <- h_i + epsilon h_i (sum_s w_is x_s / R_s - 1).

    These are the EM steps for the KL divergence between x and its reconstruction R = h w (paper, eq. 2, 3 and 6),
    started at h = 1/k. The divergence never rises from one step to the next.

    Args:
        x: inputs (..., n), non-negative, each row summing to 1 or all 0 (`normalize_patches` makes them so).
        w: weights (k, n), non-negative, each row summing to 1 or all 0 (`normalize_weights`).
        num_iters: number of iterations, at least 1. It is part of the model: 20 need not be close to convergence.
        epsilon: step size in the paper's convention, in (0, 1]. The authors' code calls e / (1 - e) by that name.
        gradient: how the result is differentiated. "approximate": one step (paper, eq. 13, 17 to 19), which keeps
            only x, w and h; "unrolled": autodiff through all iterations; "implicit": adjoint of the fixed point by
            conjugate gradients, which starts from the approximate one. Far from convergence, or where an input cannot
            tell the active units apart, the last can be many times longer than the unrolled one; more steps make it so.
        cg_steps: conjugate-gradient steps of "implicit", at least 0 (0 is the approximate gradient).

    Returns:
        h (..., k), in the dtype of x, computed in float32 at least. Rows sum to 1, or are 0 where x is 0 or no row of w
            has an input in common with it.

    Raises:
        ValueError: shapes, dtypes or settings that do not fit; and, for concrete arrays, negative or non-finite
            values and rows whose sum is neither 1 nor 0 (within 1e-3; 1e-2 in bfloat16). Under `jit` values are not
            looked at; `infer_checked` does that under `jax.experimental.checkify`.
    """
    x, w = jnp.asarray(x), jnp.asarray(w)
    checks.check_arguments(x, w, num_iters, epsilon, gradient, cg_steps)
    checks.check_values(x, w)
    return infer_unchecked(x, w, int(num_iters), float(epsilon), gradient, int(cg_steps))


def infer_checked(x: Array, w: Array, **settings: Any) -> Array:
    """`infer` whose value checks also work under `jit`, by way of `jax.experimental.checkify`.

    Example: `error, h = checkify.checkify(jax.jit(infer_checked))(x, w); error.throw()`.
    """
    checks.checkify_values(jnp.asarray(x), jnp.asarray(w))
    return infer(x, w, **settings)
