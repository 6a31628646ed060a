"""NMF inference: the non-negative code h of an input x under fixed weights w."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from deepnmf_jax.compiled import keep_bounded
from deepnmf_jax.core import checks, gradients
from deepnmf_jax.core.iteration import Settings, iterate, plain_steps, python_numbers


@partial(jax.jit, static_argnames="settings")
def infer_unchecked(x: Array, w: Array, settings: Settings) -> Array:
    """`infer` for arguments known to be right, as the layers' are by construction."""
    forward = iterate
    if settings.implementation != "xla":
        from deepnmf_jax.core.kernels.forward import iterate as forward  # Pallas is slow to import

        checks.check_kernel(x, w, settings)
    return gradients.differentiable(
        partial(forward, settings=settings),
        x,
        w,
        gradient=settings.gradient,
        cg_steps=settings.cg_steps,
        steps=plain_steps(settings),
    )


def infer(
    x: Array,
    w: Array,
    *,
    num_iters: int = 20,
    epsilon: float = 1.0,
    gradient: str = "approximate",
    cg_steps: int = 4,
    acceleration: str = "none",
    exponent: float = 8.0,
    tolerance: float = 0.0,
    products: str = "full",
    implementation: str = "xla",
) -> Array:
    """Activities of an NMF layer: `num_iters` iterations of h_i <- h_i + epsilon h_i (sum_s w_is x_s / R_s - 1).

    These are the EM steps for the KL divergence between x and its reconstruction R = h w (paper, eq. 2, 3 and 6),
    started at h = 1/k. The divergence never rises from one step to the next, accelerated or not.

    Args:
        x: inputs (..., n), non-negative, each row summing to 1 or all 0 (`normalize_patches` makes them so).
        w: weights (k, n), non-negative, each row summing to 1 or all 0 (`normalize_weights`).
        num_iters: number of iterations, at least 1. It is part of the model: 20 need not be close to convergence.
        epsilon: step size in the paper's convention, in (0, 1]. The authors' code calls e / (1 - e) by that name.
        gradient: how the result is differentiated. "approximate": one step (paper, eq. 13, 17 to 19), which keeps
            only x, w and h; "scaled": the same times the number of plain steps that the iterations amount to, which
            makes it about as long as the unrolled one far from convergence (for networks with residual paths, whose
            layers it would otherwise hardly reach); "unrolled": autodiff through all iterations; "implicit": adjoint of
            the fixed point by conjugate gradients, which starts from the approximate one. Far from convergence, or
            where an input cannot tell the active units apart, the last can be many times longer than the unrolled one;
            more steps make it so. Forward mode (`jax.jvp`, `jax.jacfwd`, `jax.linearize`) needs "unrolled"; the others
            are rules for going back. `jax.hessian` gives the derivative of the gradient that was asked for.
        cg_steps: conjugate-gradient steps of "implicit", at least 0 (0 is the approximate gradient).
        acceleration: "none"; "adaptive", over-relaxed steps h * q^a whose exponent a, of each input a power of two from
            1 up to `exponent`, is as large as the slopes of the divergence before and after the last step allow; or
            "multistep", steps that foresee how log q changes in `exponent` plain ones from how it changed before, for
            ending where 1 + exponent (num_iters - 1) plain ones do. Both keep a step only where it cannot be worse than
            a plain one, and take the plain one next where it might be. The gradients are those at the result;
            "unrolled" goes through the steps taken. An iteration costs what a plain one costs, a pair of products;
            docs/reports/speed.md says how few of them replace 20 plain ones.
        exponent: plain steps in one of "multistep", the largest exponent of "adaptive"; at least 1.
        tolerance: if above 0, an input whose certificate (`certificate`, log max_i q_i: a bound on the distance of
            its divergence to the smallest one, in nats) is not above it takes no further step, whatever else is in
            the batch, and the loop ends early once all rest. In float32 not below 2e-6. Not for "unrolled", nor for a
            gradient of the gradient by `jax.grad` (`jax.hessian` works).
        products: "full", float32 products in the iterations whatever JAX's default precision is; or "tf32" or
            "bfloat16": their operands rounded to TF32 (10 bits of mantissa) or bfloat16 (7), sums and all else in
            float32. "tf32" is for the tensor cores of a GPU; a device without them, a CPU for one, rounds in the same
            way and gains nothing. The gradient's own products stay as they are.
        implementation: "xla"; or "pallas": the iterations as one GPU kernel that keeps h on the chip
            (`deepnmf_jax.core.kernels`; see docs/reports/gpu.md). It needs a CUDA GPU of compute capability 8.0 or
            more, float32 or bfloat16, at most 512 units, another gradient than "unrolled", and a program for one device
            (or `jax.shard_map` with check_vma=False). Its "tf32" leaves the rounding to the tensor cores, which may cut
            where "xla" rounds. "interpret": the same kernel run by Pallas's interpreter, on any device and slowly, for
            tests.

    Returns:
        h (..., k), in the dtype of x, computed in float32 at least. Rows sum to 1, or are 0 where x is 0 or no row of w
            has an input in common with it.

    Raises:
        ValueError: shapes, dtypes or settings that do not fit, or that the implementation cannot do here; forward mode
            with another gradient than "unrolled"; and, for concrete arrays, negative or non-finite values and rows
            whose sum is neither 1 nor 0 (within 1e-3; 1e-2 in bfloat16). Under `jit` values are not looked at;
            `infer_checked` does that under `jax.experimental.checkify`.
    """
    keep_bounded()
    x, w = jnp.asarray(x), jnp.asarray(w)
    settings = python_numbers(
        Settings(num_iters, epsilon, gradient, cg_steps, acceleration, exponent, tolerance, products, implementation)
    )
    checks.check_arguments(x, w, settings)
    checks.check_values(x, w)
    return infer_unchecked(x, w, settings)


def infer_checked(x: Array, w: Array, **settings: Any) -> Array:
    """`infer` whose value checks also work under `jit`, by way of `jax.experimental.checkify`.

    Example: `error, h = checkify.checkify(jax.jit(infer_checked))(x, w); error.throw()`.
    """
    checks.checkify_values(jnp.asarray(x), jnp.asarray(w))
    return infer(x, w, **settings)
