"""How the result of the fixed-point iteration is differentiated.

One forward, four gradients: "approximate" (the paper's), "scaled" (the same, as many times as there are steps),
"unrolled" (autodiff) and "implicit" (adjoint of the fixed point). All but the unrolled one share a form: with an
adjoint activity v,

    grad_x = (v w) / R,      grad_w = v^T (x / R) - h^T (x / R * grad_x),      R = h w,

with v = h * g for the approximate gradient of a cotangent g, a multiple of it for the scaled one, and v from a linear
system for the implicit one.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from deepnmf_jax.core.dtypes import floats, in_common
from deepnmf_jax.core.reverse_only import reverse_tangent
from deepnmf_jax.core.updates import denominator, em_factor, explained, reconstruct

GRADIENTS = ("approximate", "scaled", "unrolled", "implicit")
LOCAL_RULES = ("kl", "mse")

Forward = Callable[[Array, Array], Array]  # x, w -> h
Adjoint = Callable[[Array, Array, Array, Array], tuple[Array, Array]]  # x, w, h, cotangent of h -> grad_x, grad_w


def differentiable(forward: Forward, x: Array, w: Array, *, gradient: str, cg_steps: int, steps: float) -> Array:
    """h = forward(x, w) with the gradient asked for, computed in float32 at least and returned in the dtype of x.

    `steps` is the factor of the scaled gradient. All but "unrolled" have a reverse mode only: forward mode is a
    ValueError.
    """
    if gradient == "unrolled":
        return forward(*in_common(x, w)).astype(x.dtype)
    adjoint = partial(_scaled_adjoint, steps=steps) if gradient == "scaled" else _adjoint_of(gradient, cg_steps)
    return _with_adjoint(x, w, forward, adjoint, _NO_FORWARD_MODE.format(gradient))


def _adjoint_of(gradient: str, cg_steps: int) -> Adjoint:
    """The adjoint of a gradient but for the factor of the scaled one."""
    return partial(implicit_adjoint, cg_steps=cg_steps) if gradient == "implicit" and cg_steps else approximate_adjoint


_NO_FORWARD_MODE = (
    "gradient = {!r} in forward mode (jax.jvp, jax.jacfwd, jax.linearize); it is a rule for going back, with a reverse "
    "mode only: use jax.grad, jax.vjp or jax.jacrev, or gradient = 'unrolled' (with tolerance = 0 and implementation = "
    "'xla')"
)


def at_result(h: Array, x: Array, w: Array, *, gradient: str, cg_steps: int, steps: Array | float) -> Array:
    """h in the dtype of x, whatever made it, with a gradient that depends on x, w and h alone: any but "unrolled".

    h (..., k) is taken as a constant; x (..., n), w (k, n). `steps` is the factor of the scaled gradient.
    """
    factor = jnp.asarray(steps if gradient == "scaled" else 1, h.dtype)
    adjoint = _adjoint_of(gradient, cg_steps)
    reason = f"spikes with {_NO_FORWARD_MODE.format(gradient).partition(', or gradient')[0]}"
    return _at_result(jax.lax.stop_gradient(h), x, w, jax.lax.stop_gradient(factor), adjoint, reason)


@partial(jax.custom_jvp, nondiff_argnums=(4, 5))
def _at_result(h: Array, x: Array, w: Array, factor: Array, adjoint: Adjoint, reason: str) -> Array:
    return h.astype(x.dtype)


@partial(_at_result.defjvp, symbolic_zeros=True)
def _at_result_jvp(
    adjoint: Adjoint, reason: str, primals: tuple[Array, ...], tangents: tuple[Array, ...]
) -> tuple[Array, Array]:
    wide, x, w, factor = primals
    h = wide.astype(x.dtype)

    def transpose(x: Array, w: Array, wide: Array, factor: Array, g: Array) -> tuple[Array, Array]:
        # The adjoint is linear in g.
        grad_x, grad_w = adjoint(x, w, wide, factor * g.astype(factor.dtype))
        return grad_x.astype(x.dtype), grad_w.astype(w.dtype)

    return h, reverse_tangent(h, (x, w, wide, factor), tangents[1:3], transpose, reason, like=2)


@partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def _with_adjoint(x: Array, w: Array, forward: Forward, adjoint: Adjoint, reason: str) -> Array:
    return forward(*in_common(x, w)).astype(x.dtype)


@partial(_with_adjoint.defjvp, symbolic_zeros=True)
def _with_adjoint_jvp(
    forward: Forward, adjoint: Adjoint, reason: str, primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    x, w = primals
    wide = forward(*in_common(x, w))
    h = wide.astype(x.dtype)

    def transpose(x: Array, w: Array, wide: Array, g: Array) -> tuple[Array, Array]:
        grad_x, grad_w = adjoint(x, w, wide, g)
        return grad_x.astype(x.dtype), grad_w.astype(w.dtype)

    return h, reverse_tangent(h, (x, w, wide), tangents, transpose, reason, like=2)


def approximate_adjoint(x: Array, w: Array, h: Array, g: Array) -> tuple[Array, Array]:
    """The paper's one-step gradient at a given h (eq. 13, 17 to 19).

    It is the exact VJP of one further, unnormalised step T(x, w) = h * q(x, w, h) with h fixed.
    x (..., n), w (k, n), h and its cotangent g (..., k) -> grad_x (..., n), grad_w (k, n) summed over leading axes, in
    float32 at least.
    """
    x, w, h, g = in_common(x, w, h, g)
    return _pull_back(x, w, h, h * g)


def _scaled_adjoint(x: Array, w: Array, h: Array, g: Array, *, steps: float) -> tuple[Array, Array]:
    # The adjoint is linear in g.
    return approximate_adjoint(x, w, h, steps * g)


def implicit_adjoint(x: Array, w: Array, h: Array, g: Array, *, cg_steps: int) -> tuple[Array, Array]:
    """Gradient of the fixed point h(x, w) for the cotangent g, by `cg_steps` steps of conjugate gradients.

    Solves (D M D + max(t - q, 0)) z = D g with D = diag(sqrt(h)), M = w diag(x / R^2) w^T and t the sum of what w
    explains of x, usually 1: one system a row of x, started at z = D g, so that with 0 steps it is
    `approximate_adjoint`. Exact where h is an optimum with independent active units. Before convergence, units that
    still grow (q > t) are treated as if they had converged.

    Shapes as in `approximate_adjoint`. grad_x is that of the iteration without normalisation of h; the normalised one
    differs by the constant (g . h) a row, which the chain through `normalize_patches` removes.
    """
    x, w, h, g = in_common(x, w, h, g)
    d = jnp.sqrt(h)
    z = d * g
    if cg_steps:
        z = _conjugate_gradients(partial(_hessian_product, *_hessian_parts(x, w, h)), z, cg_steps)
    return _pull_back(x, w, h, d * z)


def _pull_back(x: Array, w: Array, h: Array, v: Array) -> tuple[Array, Array]:
    r = denominator(x, reconstruct(w, h))
    f = x / r
    grad_x = jnp.matmul(v, w) / r
    grad_w = _outer(v, f) - _outer(h, f * grad_x)
    return grad_x, grad_w


def _outer(a: Array, b: Array) -> Array:
    """sum over all leading axes of a_i b_s: (..., k), (..., n) -> (k, n)."""
    # Over one axis: XLA's CPU backend would move several to the end first, by a slow copy.
    return jnp.matmul(a.reshape(-1, a.shape[-1]).T, b.reshape(-1, b.shape[-1]))


def _hessian_parts(x: Array, w: Array, h: Array) -> tuple[Array, ...]:
    r = denominator(x, reconstruct(w, h))
    slack = jnp.maximum(explained(x, w) - em_factor(x, w, h), 0)
    return w, jnp.sqrt(h), x / r, r, slack


def _hessian_product(w: Array, d: Array, f: Array, r: Array, slack: Array, z: Array) -> Array:
    y = jnp.matmul(d * z, w)
    return d * jnp.matmul(f * (y / r), w.T) + slack * z


def _conjugate_gradients(product: Callable[[Array], Array], b: Array, num_steps: int) -> Array:
    """Solves product(z) = b for each row on its own, from z = b, with a symmetric, positive semi-definite product.

    A row rests once its residual is 0 to rounding, or its direction is flat (curvature below the root of the rounding
    error): where more units are active than inputs can tell apart, the system is singular and a step along such a
    direction would have no end. jax.scipy.sparse.linalg.cg has one step size for all rows, which mixes the samples.
    """

    def dot(a: Array, c: Array) -> Array:
        return jnp.sum(a * c, axis=-1, keepdims=True)

    eps = jnp.finfo(b.dtype).eps
    smallest, flat = eps**2 * dot(b, b), jnp.sqrt(eps)

    def step(_: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
        z, r, p, rr, moving = carry
        ap = product(p)
        curvature = dot(p, ap)
        moving = moving & (rr > smallest) & (curvature > flat * dot(p, p))
        alpha = jnp.where(moving, rr / jnp.where(moving, curvature, 1), 0)
        z, r = z + alpha * p, r - alpha * ap
        rr_next = dot(r, r)
        beta = jnp.where(moving, rr_next / jnp.where(moving, rr, 1), 0)
        return z, r, r + beta * p, rr_next, moving

    r = b - product(b)
    rr = dot(r, r)
    return jax.lax.fori_loop(0, num_steps, step, (b, r, r, rr, rr > smallest))[0]


def with_local_gradient(h: Array, x: Array, w: Array, rule: str) -> Array:
    """h itself, whose backward gives w the gradient of a local rule in place of any error of the layers above.

    x (..., n), w (k, n), h (..., k). The cotangent reaches h unchanged and no part of it reaches w, so call it as
    `with_local_gradient(infer(x, stop_gradient(w)), x, w, rule)`: lower layers still see the error passed back.
    Rules (paper, section 4.2, and its code), at fixed h and summed over all leading axes, not scaled by the loss:
    "kl", the gradient -h^T (x / R) of the KL divergence; "mse", the gradient -2 h^T (x - R) of |x - R|^2.

    Raises:
        ValueError: another rule; forward mode, which a rule in place of a derivative does not have.
    """
    _check_rule(rule)
    h, x, w = (floats(name, a) for name, a in (("h", h), ("x", x), ("w", w)))
    return _with_local_gradient(h, x, w, rule)


_NO_FORWARD_RULE = (
    "the local rule {!r} in forward mode (jax.jvp, jax.jacfwd, jax.linearize); it stands in place of a derivative and "
    "has a reverse mode only: use jax.grad, jax.vjp or jax.jacrev, or no local rule and gradient = 'unrolled'"
)


def _check_rule(rule: str) -> None:
    if rule not in LOCAL_RULES:
        raise ValueError(f"local rule {rule!r} is unknown; use one of {LOCAL_RULES}")


@partial(jax.custom_jvp, nondiff_argnums=(3,))
def _with_local_gradient(h: Array, x: Array, w: Array, rule: str) -> Array:
    return h


@partial(_with_local_gradient.defjvp, symbolic_zeros=True)
def _with_local_gradient_jvp(
    rule: str, primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]
) -> tuple[Array, Array]:
    h, x, w = primals

    def transpose(h: Array, x: Array, w: Array, g: Array) -> tuple[Array, Array, Array]:
        return g, jnp.zeros_like(x), local_gradient(x, w, h, rule).astype(w.dtype)

    return h, reverse_tangent(h, (h, x, w), tangents, transpose, _NO_FORWARD_RULE.format(rule))


def local_gradient(x: Array, w: Array, h: Array, rule: str) -> Array:
    """Weight gradient of a local rule at fixed h; see `with_local_gradient`.

    x (..., n), w (k, n), h (..., k) -> grad_w (k, n), summed over all leading axes.

    Raises:
        ValueError: a rule other than "kl" and "mse".
    """
    _check_rule(rule)
    x, w, h = in_common(x, w, h)
    r = reconstruct(w, h)
    return -_outer(h, x / denominator(x, r)) if rule == "kl" else -2 * _outer(h, x - r)
