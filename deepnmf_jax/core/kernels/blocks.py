"""What the kernel is made of, and what differs from one version of Pallas to the next."""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

from deepnmf_jax.core.updates import round_to_tf32

# Other names until jax 0.6, where masked loads and stores are Pallas's own and take the index apart from the block.
_triton: Any = triton
_OLD: Any = None if hasattr(triton, "CompilerParams") else pl
_CompilerParams: Any = _triton.TritonCompilerParams if _OLD else _triton.CompilerParams

_PRECISIONS: dict[str, Any] = {"full": lax.Precision.HIGHEST, "tf32": lax.DotAlgorithmPreset.TF32_TF32_F32}


def compiler_parameters(warps: int, stages: int) -> Any:
    """What `pallas_call` compiles by Triton with: without them a GPU would get Pallas's Mosaic compiler, which cannot
    lower this kernel."""
    return _CompilerParams(num_warps=warps, num_stages=stages)


def load(ref: Any, columns: Any, mask: Array | None) -> Array:
    """Some columns (`pl.ds`) of a block, 0 where the mask is false. -> (rows, columns.size)"""
    if mask is None:
        return ref[:, columns]
    if _OLD:
        return _OLD.load(ref, (slice(None), columns), mask=mask, other=0.0)
    return _triton.load(ref.at[:, columns], mask=mask, other=0.0)


def store(ref: Any, values: Array, mask: Array | None) -> None:
    """Writes a block, where the mask is true."""
    if mask is None:
        ref[:, :] = values
    elif _OLD:
        _OLD.store(ref, (slice(None), slice(None)), values, mask=mask)
    else:
        _triton.store(ref.at[:, :], values, mask=mask)


def inside(start: Any, size: int, end: int, axis: int, shape: tuple[int, int]) -> Array | None:
    """Which of `size` places from `start` lie before `end`, along one axis of a mask; None: all, whatever start is."""
    if end % size == 0:
        return None
    return start + lax.broadcasted_iota(jnp.int32, shape, axis) < end


def both(a: Array | None, b: Array | None) -> Array | None:
    """Where two masks are true."""
    if a is None or b is None:
        return b if a is None else a
    return a & b


def product(a: Array, b: Array, axes: tuple[int, int], products: str, *, interpret: bool) -> Array:
    """The product of two matrices, summed along one axis of each, in float32; "tf32" and "bfloat16" as in `infer`."""
    dimensions = (((axes[0],), (axes[1],)), ((), ()))
    if products == "bfloat16":
        a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
        return lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)
    precision = _PRECISIONS[products]
    if interpret and products == "tf32":  # what tensor cores do, for a device without
        a, b, precision = round_to_tf32(a), round_to_tf32(b), _PRECISIONS["full"]
    return lax.dot_general(a, b, dimensions, precision=precision, preferred_element_type=jnp.float32)


# XLA does not look into a kernel: it would gather a batch that is spread over devices and have each of them do all.
_one_device = Primitive("one_device")
_one_device.def_impl(lambda x: x)
_one_device.def_abstract_eval(lambda x: x)
batching.defvectorized(_one_device)


def one_device(x: Array) -> Array:
    """x itself; its program is refused, when it is lowered, if it is for several devices (`shard_map` is not)."""
    return _one_device.bind(x)


def _one_device_lowering(ctx: Any, x: Any) -> list[Any]:
    devices = getattr(ctx.module_context.axis_context, "num_devices", 1) or 1
    if devices > 1:
        raise ValueError(
            f"implementation = 'pallas' in a program for {devices} devices; XLA cannot divide a kernel among them: use "
            "one device, or jax.shard_map with a part of the batch on each, or implementation = 'xla'"
        )
    return [x]


mlir.register_lowering(_one_device, _one_device_lowering)
