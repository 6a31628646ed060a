"""Kinds of arrays: numpy, JAX, torch, pandas, lists, scipy.sparse and iterables of batches in; the same kind out.

torch, pandas and scipy are never imported here: their arrays can only come from a caller who has imported them. How
numbers are read from each kind is in `reading.py`.
"""

import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental.sparse import BCOO, JAXSparse
from jax.sharding import Sharding

from deepnmf_jax.compiled import keep_bounded
from deepnmf_jax.core.checks import is_concrete, plain
from deepnmf_jax.decomposition.io import reading
from deepnmf_jax.decomposition.io.reading import check_real, is_scipy_sparse, is_torch

DTYPES = ("float32", "float64")
# Entries of a dense array that is made from a sparse matrix: 8 GiB in float32.
LARGEST_WRITTEN_OUT = 2**31 - 1
# Whole numbers up to this size are exact in float32.
EXACT = 2**24


def kind_of(x: Any) -> str:
    """ "jax" and "torch" for their arrays, "numpy" for everything else."""
    if isinstance(x, (Array, JAXSparse)):
        return "jax"
    return "torch" if is_torch(x) else "numpy"


def is_batches(x: Any) -> bool:
    """Whether x is an iterable of batches: no array, and its items are not rows of reading."""
    if isinstance(x, (np.ndarray, Array, JAXSparse, str, bytes, memoryview, Mapping)):
        return False
    if is_torch(x) or is_scipy_sparse(x):
        return False
    if isinstance(x, (list, tuple)):
        return len(x) > 0 and (isinstance(x[0], Mapping) or _is_matrix(x[0]) or _is_labelled(x[0]))
    return isinstance(x, Iterable) and not hasattr(x, "__array__")


def _is_matrix(x: Any) -> bool:
    return getattr(x, "ndim", 0) >= 2


def _is_labelled(item: Any) -> bool:
    return isinstance(item, (list, tuple)) and len(item) > 0 and _is_matrix(item[0])


def batches_of(batches: Iterable) -> Iterator[Any]:
    """The data of each item of a loader: the item, or its first entry where it is a list or a tuple (data, label).

    Raises:
        ValueError: there is no item, or an item is a dict, in which anything may be the data.
    """
    item = None
    for item in batches:
        if isinstance(item, Mapping):
            raise ValueError(
                f"a batch is a dict with keys {', '.join(map(repr, item))}; give its matrix alone, as in "
                "[batch['image'] for batch in loader]"
            )
        yield item[0] if _is_labelled(item) else item
    if item is None:
        raise ValueError("the iterable has no batches; it needs at least one")


def can_restart(batches: Iterable) -> bool:
    """Whether the iterable can be walked through more than once; a generator or another iterator cannot."""
    return not isinstance(batches, Iterator)


def dtype_for(x: Any, dtype: str | None = None) -> np.dtype:
    """The dtype to compute in: the given one, else float64 for float64 data and float32 for all other.

    Whole numbers that float32 would round are computed in float64, and so are arrays of Python objects.
    """
    if dtype is not None:
        return np.dtype(dtype)
    if is_batches(x):
        return np.dtype("float32")
    held = reading.dtype_of(x)
    if held.kind == "O" or (held.kind == "f" and held.itemsize >= 8):
        return np.dtype("float64")
    if held.kind in "iu" and held.itemsize >= 4 and is_concrete(x) and reading.largest(x) > EXACT:
        return np.dtype("float64")
    return np.dtype("float32")


def with_precision(dtype: np.dtype) -> AbstractContextManager:
    """Context of a computation: JAX keeps float64, if that is the dtype and the user has not switched it on for all.

    Before it, compiled programs are given up if there are too many.
    """
    keep_bounded()
    if dtype != np.float64 or jax.config.values["jax_enable_x64"]:
        return nullcontext()
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    return jax.experimental.enable_x64()  # type: ignore[attr-defined]


def check_device(device: Any) -> Any:
    """The device as an estimator keeps it: None, a string, a JAX device or sharding; torch's devices by their names.

    Raises:
        ValueError: anything else. Whether the device is here is seen when it is used (`device_of`).
    """
    torch, device = sys.modules.get("torch"), plain(device)
    if torch is not None and isinstance(device, torch.device):
        return str(device)
    if device is None or isinstance(device, (str, jax.Device, Sharding)):
        return device
    raise ValueError(f"device = {device!r}; give None, 'cpu', 'gpu', 'cuda:1', or a device of JAX or torch")


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


def name_of(device: Any) -> Any:
    """A device of JAX by its name, which can be written to a file; anything else as it is."""
    return f"{device.platform}:{device.id}" if isinstance(device, jax.Device) else device


def check_written_out(x: Any) -> None:
    """ValueError for a sparse matrix that is too large to be written out."""
    if reading.is_sparse(x) and math.prod(x.shape) > LARGEST_WRITTEN_OUT:
        raise ValueError(
            f"A is sparse, of shape {tuple(x.shape)}, and would be written out here, which is for at most "
            f"{LARGEST_WRITTEN_OUT} entries; NMF with squared error keeps sparse matrices sparse, or reduce A first"
        )


def without_sparse(x: Any) -> Any:
    """x, written out as a dense numpy array if it is sparse."""
    check_written_out(x)
    return reading.entries_of(x).dense() if reading.is_sparse(x) else x


def to_jax(x: Any, dtype: np.dtype, device: Any = None) -> Array | BCOO:
    """x as a JAX array of the given dtype on the device, if one is given. Sparse x: a `BCOO`, repeated entries added.

    Raises:
        ValueError: what cannot be read as real numbers; a sparse x that is no matrix; hidden entries of a masked array.
    """
    array: Array | BCOO
    if isinstance(x, BCOO) and (_is_plain(x) or not is_concrete(x.data, x.indices)):
        check_real(x.dtype)
        known = {"indices_sorted": x.indices_sorted, "unique_indices": x.unique_indices}
        array = BCOO((x.data.astype(dtype), x.indices), shape=x.shape, **known)
    elif reading.is_sparse(x):
        entries = reading.entries_of(x)
        indices = np.stack([entries.rows, entries.columns], axis=1).astype(np.int32)
        values = jnp.asarray(reading.narrowed(entries.values, dtype))
        array = BCOO((values, jnp.asarray(indices)), shape=entries.shape, indices_sorted=True, unique_indices=True)
    elif isinstance(x, Array):
        check_real(x.dtype)
        array = x.astype(dtype)
    elif is_torch(x):
        array = _from_torch(x, dtype)
    else:
        # jnp.asarray would compile a program that copies.
        array = jax.device_put(reading.narrowed(reading.host(x), dtype), may_alias=False)
    return array if device is None else jax.device_put(array, device_of(device))


def _is_plain(x: BCOO) -> bool:
    """Whether nothing is to be added up, and all axes are sparse."""
    return x.unique_indices and x.n_sparse == x.ndim == 2


def to_dense(x: Any, dtype: np.dtype, device: Any = None) -> Array:
    """`to_jax` with sparse matrices written out. ValueError also for one too large for that."""
    check_written_out(x)
    array = to_jax(x, dtype, device)
    return array.todense() if isinstance(array, BCOO) else array


def _from_torch(x: Any, dtype: np.dtype) -> Array:
    """A dense tensor, by DLPack where JAX has its device."""
    if x.is_complex():
        check_real(np.dtype("complex64"))
    # torch may keep a sign beside the numbers, as in z.conj().imag, which DLPack does not hand on.
    x = x.detach().resolve_neg().to(getattr(sys.modules["torch"], dtype.name))
    try:
        return jax.dlpack.from_dlpack(x.contiguous())
    except Exception:  # a device that this JAX does not have
        return jnp.asarray(reading.host(x))


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
    return tensor.to(like.device) if is_torch(like) else tensor


def empty_like(x: Any) -> Any:
    """An empty tensor on the device of the tensor x: it holds on to the device without holding on to the data."""
    return sys.modules["torch"].empty(0, device=x.device)


def to_numpy(x: Any, dtype: Any = np.float32) -> np.ndarray:
    """x as a dense numpy array, of its own dtype for None; the batches of an iterable are put below one another."""
    if is_batches(x):
        return np.concatenate([to_numpy(batch, dtype) for batch in batches_of(x)])
    array = reading.host(without_sparse(x))
    return array if dtype is None else reading.narrowed(array, np.dtype(dtype))


__all__ = [
    "DTYPES",
    "batches_of",
    "can_restart",
    "check_device",
    "check_real",
    "check_written_out",
    "device_of",
    "dtype_for",
    "empty_like",
    "is_batches",
    "kind_of",
    "name_of",
    "restore",
    "to_dense",
    "to_jax",
    "to_numpy",
    "with_precision",
    "without_sparse",
]
