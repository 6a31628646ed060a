"""Kinds of arrays: numpy, JAX, torch, lists, scipy.sparse and iterables of batches in; the same kind out.

torch and scipy are never imported here: their arrays can only come from a caller who has imported them.
"""

import math
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental.sparse import BCOO

DTYPES = ("float32", "float64")
# Entries of a dense array that is made from a sparse matrix: 8 GiB in float32.
LARGEST_WRITTEN_OUT = 2**31 - 1


def _is_torch(x: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def is_scipy_sparse(x: Any) -> bool:
    """Whether x is a matrix or array of scipy.sparse."""
    sparse = sys.modules.get("scipy.sparse")
    return sparse is not None and bool(sparse.issparse(x))


def kind_of(x: Any) -> str:
    """ "jax" and "torch" for their arrays, "numpy" for everything else."""
    if isinstance(x, (Array, BCOO)):
        return "jax"
    return "torch" if _is_torch(x) else "numpy"


def is_batches(x: Any) -> bool:
    """Whether x is an iterable of batches: no array, and its items are not rows of numbers."""
    if isinstance(x, (np.ndarray, Array, BCOO, str, bytes, dict)) or _is_torch(x) or is_scipy_sparse(x):
        return False
    if isinstance(x, (list, tuple)):
        return len(x) > 0 and getattr(x[0], "ndim", 0) == 2
    return isinstance(x, Iterable) and not hasattr(x, "__array__")


def check_written_out(x: Any) -> None:
    """ValueError for a sparse matrix that is too large to be written out."""
    if (is_scipy_sparse(x) or isinstance(x, BCOO)) and math.prod(x.shape) > LARGEST_WRITTEN_OUT:
        raise ValueError(
            f"A is sparse, of shape {tuple(x.shape)}, and would be written out here, which is for at most "
            f"{LARGEST_WRITTEN_OUT} entries; NMF with squared error keeps sparse matrices sparse, or reduce A first"
        )


def without_sparse(x: Any) -> Any:
    """x, written out as a dense array if it is sparse."""
    check_written_out(x)
    if is_scipy_sparse(x):
        return x.toarray()
    return x.todense() if isinstance(x, BCOO) else x


def batches_of(batches: Iterable) -> Iterator[Any]:
    """The data of each item of a loader: the item, or its first entry where it is a list or a tuple (data, label).

    Raises:
        ValueError: there is no item.
    """
    item = None
    for item in batches:
        labelled = isinstance(item, (list, tuple)) and item and getattr(item[0], "ndim", 0) >= 2
        yield item[0] if labelled else item
    if item is None:
        raise ValueError("the iterable has no batches; it needs at least one")


def can_restart(batches: Iterable) -> bool:
    """Whether the iterable can be walked through more than once; a generator or another iterator cannot."""
    return not isinstance(batches, Iterator)


def dtype_for(x: Any, dtype: str | None = None) -> np.dtype:
    """The dtype to compute in: the given one, else float64 for float64 data and float32 for all other."""
    if dtype is not None:
        return np.dtype(dtype)
    given = str(getattr(x, "dtype", "")).removeprefix("torch.")
    return np.dtype("float64" if given == "float64" else "float32")


def with_precision(dtype: np.dtype) -> AbstractContextManager:
    """Context in which JAX keeps float64, if that is the dtype and the user has not switched it on for all."""
    if dtype != np.float64 or jax.config.values["jax_enable_x64"]:
        return nullcontext()
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    return jax.experimental.enable_x64()  # type: ignore[attr-defined]


def device_of(device: Any) -> Any:
    """The JAX device named by "cpu", "gpu", "cuda:1", ...; None stays None, devices and shardings stay themselves."""
    if device is None or not isinstance(device, str):
        return device
    name, _, index = device.partition(":")
    platform = "gpu" if name == "cuda" else name
    try:
        return jax.devices(platform)[int(index or 0)]
    except (RuntimeError, IndexError, ValueError) as error:
        have = ", ".join(sorted({d.platform for d in jax.devices()} | {"cpu"}))
        raise ValueError(f"device = {device!r} is not here; this JAX has {have}") from error


def to_jax(x: Any, dtype: np.dtype, device: Any = None) -> Array | BCOO:
    """x as a JAX array of the given dtype (sparse stays sparse), on the device if one is given.

    Raises:
        ValueError: what cannot be read as numbers of that shape.
    """
    if is_scipy_sparse(x):
        x = x.tocoo()
        x.sum_duplicates()
        indices = np.stack([x.row, x.col], axis=1).astype(np.int32)
        data = jnp.asarray(np.asarray(x.data, dtype))
        x = BCOO((data, jnp.asarray(indices)), shape=x.shape, indices_sorted=True, unique_indices=True)
    if isinstance(x, BCOO):
        x = x if x.dtype == dtype else BCOO((x.data.astype(dtype), x.indices), shape=x.shape)
    elif isinstance(x, Array):
        x = x.astype(dtype)
    elif _is_torch(x):
        x = _from_torch(x).astype(dtype)
    else:
        try:
            x = jnp.asarray(np.asarray(x, dtype))
        except (TypeError, ValueError) as error:
            raise ValueError(f"cannot read a matrix of numbers from {type(x).__name__}: {error}") from error
    return x if device is None else jax.device_put(x, device_of(device))


def to_dense(x: Any, dtype: np.dtype, device: Any = None) -> Array:
    """`to_jax` with sparse matrices written out."""
    check_written_out(x)
    array = to_jax(x, dtype, device)
    return array.todense() if isinstance(array, BCOO) else array


def _from_torch(x: Any) -> Array:
    x = x.detach()
    try:
        return jax.dlpack.from_dlpack(x.contiguous())
    except Exception:  # a device that this JAX does not have, or a dtype that DLPack does not carry
        return jnp.asarray(x.cpu().numpy())


def restore(x: Array, kind: str, like: Any = None) -> Any:
    """x as an array of that kind; a torch tensor goes to the device of the tensor `like`."""
    if kind == "jax":
        return x
    if kind == "numpy":
        return np.array(x)
    torch = sys.modules.get("torch")
    if torch is None:
        return np.array(x)
    # A copy: the tensor may be written to, the JAX array may not.
    tensor = torch.from_dlpack(jax.device_put(x, jax.devices("cpu")[0])).clone()
    return tensor.to(like.device) if _is_torch(like) else tensor


def to_numpy(x: Any, dtype: Any = np.float32) -> np.ndarray:
    """x as a dense numpy array; the batches of an iterable are put below one another."""
    if is_batches(x):
        return np.concatenate([to_numpy(batch, dtype) for batch in batches_of(x)])
    check_written_out(x)
    if is_scipy_sparse(x):
        return np.asarray(x.toarray(), dtype)
    if isinstance(x, BCOO):
        x = x.todense()
    if _is_torch(x):
        x = x.detach().cpu().numpy()
    return np.asarray(x, dtype)
