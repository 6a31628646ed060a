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
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

# Of residuals and the cotangent of the output: the cotangents of the tangents.
Transpose = Callable[..., Sequence[Array]]


def reverse_tangent(
    output: Array,
    residuals: Sequence[Array],
    tangents: Sequence[Any],
    transpose: Transpose,
    reason: str,
    like: int = 0,
) -> Array:
    """The tangent of `output`, as a linear function of `tangents` that is only known by its transpose.

    Between forward and backward nothing is kept but the residuals: neither the output nor tangents that are zero.

    Args:
        output: gives the dtype.
        residuals: what `transpose` takes first.
        tangents: of the inputs. With `defjvp(..., symbolic_zeros=True)` JAX says which are zero; these are left out.
        transpose: (*residuals, cotangent of the output) -> a cotangent for each of the tangents.
        reason: what the error in forward mode says.
        like: which of the residuals has the shape of the output.

    Raises:
        ValueError: `reason`; in forward mode alone, and inside `jax.jit` when the program is compiled.
    """
    moving = tuple(i for i, tangent in enumerate(tangents) if not isinstance(tangent, SymbolicZero))
    if not moving:
        return jnp.zeros_like(output)
    given: dict[str, Any] = {"moving": moving, "like": like, "dtype": output.dtype}
    own = [_varying_as(tangents[i], output) for i in moving]
    return _tangent.bind(*residuals, *own, transpose=transpose, reason=reason, **given)


def _varying_as(tangent: Array, output: Array) -> Array:
    """The tangent as one that differs between the devices of a `jax.shard_map` where the output does.

    Weights that all devices share have a cotangent on each; of this cast JAX knows that these are to be summed.
    """
    axes = tuple(_varying_axes(output) - _varying_axes(tangent))
    if not axes:
        return tangent
    lax: Any = jax.lax  # pcast has taken the place of pvary
    return lax.pcast(tangent, axes, to="varying") if hasattr(lax, "pcast") else lax.pvary(tangent, axes)


def _varying_axes(a: Array) -> frozenset[str]:
    """Axes of the mesh along which the array differs; releases of JAX keep them in different places, or nowhere."""
    kind: Any = a.aval
    newer = getattr(kind, "manual_axis_type", None)
    return frozenset(newer.varying if newer else getattr(kind, "vma", ()))


def _refuse(*_: Any, reason: str, **__: Any) -> Any:
    raise ValueError(reason)


def _transposed(cotangent: Any, *inputs: Any, moving: tuple[int, ...], transpose: Transpose, **_: Any) -> list[Any]:
    residuals, tangents = inputs[: -len(moving)], inputs[-len(moving) :]
    wanted = [ad.is_undefined_primal(tangent) for tangent in tangents]
    if type(cotangent) is ad.Zero:
        cotangents: list[Any] = [
            ad.Zero(t.aval) if undefined else None for t, undefined in zip(tangents, wanted, strict=True)
        ]
    else:
        every = list(transpose(*residuals, cotangent))
        cotangents = [every[i] for i in moving]
    return [None] * len(residuals) + [c if undefined else None for c, undefined in zip(cotangents, wanted, strict=True)]


def _batched(
    inputs: Sequence[Any], axes: Sequence[Any], *, moving: tuple[int, ...], like: int, transpose: Transpose, **more: Any
) -> tuple[Array, int]:
    (size,) = {a.shape[axis] for a, axis in zip(inputs, axes, strict=True) if axis is not None}
    inputs, axes, first = list(inputs), list(axes), len(inputs) - len(moving)
    # What all share is repeated: a tangent, so that its cotangent is the sum of theirs, and what gives the shape.
    for i in (like, *range(first, len(inputs))):
        shared = axes[i] is None
        inputs[i] = (
            jnp.broadcast_to(inputs[i], (size, *inputs[i].shape)) if shared else jnp.moveaxis(inputs[i], axes[i], 0)
        )
        axes[i] = 0
    transpose = jax.vmap(transpose, in_axes=(*axes[:first], 0))
    return _tangent.bind(*inputs, moving=moving, like=like, transpose=transpose, **more), 0


def _shape(*inputs: Any, like: int, dtype: Any, **_: Any) -> Any:
    return inputs[like].update(dtype=dtype, weak_type=False)


_tangent = Primitive("tangent_in_reverse_mode_only")
_tangent.def_impl(_refuse)
_tangent.def_abstract_eval(_shape)
ad.primitive_transposes[_tangent] = _transposed
ad.primitive_jvps[_tangent] = _refuse
batching.primitive_batchers[_tangent] = _batched
mlir.register_lowering(_tangent, _refuse)
