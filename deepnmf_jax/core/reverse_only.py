"""Derivatives that exist in reverse mode only: like those of `jax.custom_vjp`, but in forward mode an error of ours.

A function made of `jax.custom_jvp` returns `reverse_tangent(...)` as its tangent: a linear map whose transpose is known
and whose value is not. Reverse mode (jax.grad, jax.vjp, jax.jacrev) traces and transposes it; forward mode (jax.jvp,
jax.jacfwd, calling what jax.linearize returns) asks for its value and is refused.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

# Of residuals and the cotangent of the output: the cotangents of the tangents.
Transpose = Callable[..., Sequence[Array]]


def reverse_tangent(
    output: Array, residuals: Sequence[Array], tangents: Sequence[Array], transpose: Transpose, reason: str
) -> Array:
    """The tangent of `output`, as a linear function of `tangents` that is only known by its transpose.

    Args:
        output: gives the shape and dtype.
        residuals: what `transpose` takes first.
        tangents: of the inputs.
        transpose: (*residuals, cotangent of the output) -> a cotangent for each of the tangents.
        reason: what the error in forward mode says.

    Raises:
        ValueError: `reason`; in forward mode alone, and inside `jax.jit` when the program is compiled.
    """
    return _tangent.bind(output, *residuals, *tangents, count=len(tangents), transpose=transpose, reason=reason)


def _refuse(*_: Any, reason: str, **__: Any) -> Any:
    raise ValueError(reason)


def _transposed(cotangent: Any, output: Any, *inputs: Any, count: int, transpose: Transpose, reason: str) -> list[Any]:
    residuals, tangents = inputs[:-count], inputs[-count:]
    wanted = [ad.is_undefined_primal(tangent) for tangent in tangents]
    if type(cotangent) is ad.Zero:
        cotangents: list[Any] = [
            ad.Zero(t.aval) if undefined else None for t, undefined in zip(tangents, wanted, strict=True)
        ]
    else:
        cotangents = list(transpose(*residuals, cotangent))
    found = [c if undefined else None for c, undefined in zip(cotangents, wanted, strict=True)]
    return [None] * (1 + len(residuals)) + found


def _batched(
    inputs: Sequence[Any], axes: Sequence[Any], *, count: int, transpose: Transpose, reason: str
) -> tuple[Array, int]:
    (size,) = {a.shape[axis] for a, axis in zip(inputs, axes, strict=True) if axis is not None}

    def in_front(a: Array, axis: Any) -> Array:
        # An input that all share is repeated, so that its cotangent is the sum of theirs.
        if axis is None:
            return jnp.broadcast_to(a, (size, *a.shape))
        return jnp.moveaxis(a, axis, 0)

    output, *tangents = (in_front(inputs[i], axes[i]) for i in (0, *range(len(inputs) - count, len(inputs))))
    transpose = jax.vmap(transpose, in_axes=(*axes[1:-count], 0))
    return _tangent.bind(output, *inputs[1:-count], *tangents, count=count, transpose=transpose, reason=reason), 0


_tangent = Primitive("tangent_in_reverse_mode_only")
_tangent.def_impl(_refuse)
_tangent.def_abstract_eval(lambda output, *_, **__: output)
ad.primitive_transposes[_tangent] = _transposed
ad.primitive_jvps[_tangent] = _refuse
batching.primitive_batchers[_tangent] = _batched
mlir.register_lowering(_tangent, _refuse)
