"""Real numbers out of whatever holds them, on the host: never cut, never guessed; what is no number is refused.

Whole numbers and truth values become floats, byte orders are turned, repeated entries of sparse matrices are added up
in arrays of our own. Complex numbers, text, dates and hidden entries of masked arrays raise ValueError.
"""

import math
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental.sparse import BCOO, BCSR, JAXSparse


def is_torch(x: Any) -> bool:
    """Whether x is a tensor of torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def is_pandas(x: Any) -> bool:
    """Whether x is a DataFrame or a Series of pandas."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(x, (pandas.DataFrame, pandas.Series))


def is_scipy_sparse(x: Any) -> bool:
    """Whether x is a matrix or array of scipy.sparse."""
    sparse = sys.modules.get("scipy.sparse")
    return sparse is not None and bool(sparse.issparse(x))


def is_sparse(x: Any) -> bool:
    """Whether x is a sparse matrix of scipy, JAX or torch."""
    return (
        is_scipy_sparse(x) or isinstance(x, JAXSparse) or (is_torch(x) and x.layout is not sys.modules["torch"].strided)
    )


def check_real(dtype: Any) -> None:
    """ValueError unless a dtype (of numpy or JAX) is one of real numbers, whole numbers or truth values."""
    if jnp.issubdtype(dtype, jnp.complexfloating):
        raise ValueError(
            "the data is complex, which a factorization into real factors cannot take; give np.abs(A), or real and "
            "imaginary parts as columns of their own"
        )
    # For numpy a time span is a whole number.
    real = any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))
    if not real or jnp.issubdtype(dtype, np.timedelta64):
        raise ValueError(f"cannot read a matrix of numbers from entries of dtype {dtype}; convert them to numbers")


def dtype_of(x: Any) -> np.dtype:
    """dtype of the numbers in x as numpy has it, in the machine's byte order. Of lists of Python's floats: float32."""
    if is_torch(x):
        return np.dtype(str(x.dtype).removeprefix("torch."))
    if is_pandas(x):
        return _common_dtype(x)
    if hasattr(x, "dtype"):
        return np.dtype(x.dtype).newbyteorder("=") if isinstance(x.dtype, np.dtype) else np.dtype("O")
    array = host(x)
    if isinstance(x, (list, tuple)) and array.dtype == np.float64:
        rows = [dtype_of(row) for row in x if hasattr(row, "dtype")]
        return np.result_type(*rows) if rows else np.dtype("float32")
    return array.dtype


def largest(x: Any) -> float:
    """The largest size of an entry; 0 where there is none."""
    if is_sparse(x):
        x = entries_of(x).values
    if isinstance(x, Array):
        return max(abs(int(jnp.max(x, initial=0))), abs(int(jnp.min(x, initial=0))))
    x = host(x)
    return max(abs(int(np.max(x, initial=0))), abs(int(np.min(x, initial=0))))


def has_hidden(x: Any) -> bool:
    """Whether x is a masked array, or a list with masked rows, that hides entries."""
    # numpy forgets the masks of rows when it makes a matrix of them.
    parts = x if isinstance(x, (list, tuple)) else (x,)
    return any(isinstance(part, np.ma.MaskedArray) and np.ma.is_masked(part) for part in parts)


def narrowed(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """x in this dtype. ValueError where finite numbers are beyond it."""
    if x.dtype == dtype:
        return x
    with np.errstate(over="ignore"):
        result = x.astype(dtype)
    if x.dtype.kind == "f" and x.dtype.itemsize > dtype.itemsize and np.any(np.isinf(result) & np.isfinite(x)):
        raise ValueError(
            f"the data has numbers up to {np.max(np.abs(x[np.isfinite(x)])):.3g}, beyond {dtype.name}; rescale it"
            + (", or compute with dtype='float64'" if dtype == np.float32 else "")
        )
    return result


def host(x: Any) -> np.ndarray:
    """x, which is not sparse, as a numpy array of real numbers in the machine's byte order, of its own dtype.

    Raises:
        ValueError: what is no array of real numbers; a masked array with hidden entries.
    """
    if has_hidden(x):
        raise ValueError(
            "a masked array has hidden entries, which are not used here; NMF.fit and NMF.encode of one matrix take "
            "them (or mask=), elsewhere fill them with x.filled(value)"
        )
    if is_pandas(x):
        return _from_pandas(x)
    if is_torch(x):
        return _from_tensor(x)
    if isinstance(x, Mapping):
        raise ValueError(f"the data is a dict with keys {', '.join(map(repr, x))}; give one matrix of it")
    try:
        array = np.asarray(x)
    except Exception as error:  # whatever the object's own conversion raises
        raise ValueError(f"cannot read a matrix of numbers from {type(x).__name__}: {error}") from error
    if array.dtype == object:
        array = _from_objects(array, type(x).__name__)
    check_real(array.dtype)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _from_objects(x: np.ndarray, name: str) -> np.ndarray:
    """An array of Python objects as float64, None as NaN. ValueError for what is no real number."""
    pandas = sys.modules.get("pandas")
    result = np.empty(x.shape, np.float64)
    for index, item in np.ndenumerate(x):
        if isinstance(item, (complex, np.complexfloating)):
            check_real(np.dtype(complex))
        text = isinstance(item, (str, bytes, np.character, np.datetime64, np.timedelta64))
        try:
            missing = item is None or (pandas is not None and item is pandas.NA)
            if text or np.ndim(item):
                raise TypeError("text, a date or a container")
            result[index] = math.nan if missing else float(item)
        except (TypeError, ValueError, OverflowError) as error:
            place = f" at {tuple(int(i) for i in index)}" if index else ""
            raise ValueError(
                f"cannot read a matrix of numbers from {name}: {item!r}{place} is no number"[:300]
            ) from error
    return result


def _dtypes(x: Any) -> list[Any]:
    return list(x.dtypes) if x.ndim == 2 else [x.dtype]


def _common_dtype(x: Any) -> np.dtype:
    """dtype that holds all columns: object where one is of objects, float64 where whole numbers may be missing."""
    held = []
    for dtype in _dtypes(x):
        plain = getattr(dtype, "subtype", getattr(dtype, "numpy_dtype", dtype))
        if not isinstance(plain, np.dtype) or dtype.kind not in "biuf":
            return np.dtype(object)
        held.append(plain if isinstance(dtype, np.dtype) or plain.kind == "f" else np.dtype(np.float64))
    return np.result_type(*held).newbyteorder("=") if held else np.dtype("float32")


def _from_pandas(x: Any) -> np.ndarray:
    for dtype in _dtypes(x):
        if dtype.kind == "c":
            check_real(np.dtype(complex))
        if dtype.kind in "mM":
            check_real(np.dtype(f"{dtype.kind}8[ns]"))
    dtype = _common_dtype(x)
    if dtype.kind == "O":
        return _from_objects(x.to_numpy(dtype=object), type(x).__name__)
    if all(isinstance(each, np.dtype) for each in _dtypes(x)):
        return x.to_numpy(dtype=dtype)
    return x.to_numpy(dtype=dtype, na_value=np.nan)


def _from_tensor(x: Any) -> np.ndarray:
    torch = sys.modules["torch"]
    if x.is_complex():
        check_real(np.dtype(complex))
    x = x.detach().resolve_neg()
    x = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    try:
        return x.cpu().numpy()
    except Exception as error:  # quantized tensors, devices without data
        raise ValueError(f"cannot read a matrix of numbers from a tensor on {x.device}: {error}") from error


class Entries(NamedTuple):
    """A sparse matrix of `shape` (n, p): entry i is values[i] at (rows[i], columns[i]), each place once, row by row."""

    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray
    shape: tuple[int, int]

    def dense(self) -> np.ndarray:
        """The matrix (n, p)."""
        result = np.zeros(self.shape, self.values.dtype)
        result[self.rows, self.columns] = self.values
        return result

    def on_scipy(self, dtype: Any) -> Any:
        """The matrix (n, p) as SciPy's, in CSR form."""
        # Loaded by who has a sparse matrix.
        from scipy.sparse import csr_matrix

        return csr_matrix((self.values.astype(dtype), (self.rows, self.columns)), shape=self.shape)


def entries_of(x: Any) -> Entries:
    """The entries of a sparse matrix of scipy, JAX or torch; entries of one place are added up, as all of them do.

    Raises:
        ValueError: it is no matrix, or no matrix of real numbers.
    """
    if len(x.shape) != 2:
        raise ValueError(f"A has shape {tuple(x.shape)}; it must be a matrix (n_samples, n_features)")
    shape = (int(x.shape[0]), int(x.shape[1]))
    if is_scipy_sparse(x):
        x = x.tocoo()
        rows, columns, values = x.row, x.col, x.data
    elif is_torch(x):
        x = x.detach().to_sparse_coo().coalesce()
        if x.dense_dim():
            raise ValueError(f"a tensor with {x.dense_dim()} dense axes is no sparse matrix; give x.to_dense()")
        (rows, columns), values = x.indices().cpu().numpy(), host(x.values())
    else:
        if isinstance(x, BCSR):
            x = x.to_bcoo()
        elif not isinstance(x, BCOO):
            x = BCOO.fromdense(x.todense())
        x = x.update_layout(n_batch=0, n_dense=0)
        (rows, columns), values = np.asarray(x.indices).T, np.asarray(x.data)
        # JAX pads with indices beyond the matrix.
        inside = (rows < shape[0]) & (columns < shape[1])
        rows, columns, values = rows[inside], columns[inside], values[inside]
    check_real(values.dtype)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    return _added_up(rows, columns, values, shape)


def _added_up(rows: np.ndarray, columns: np.ndarray, values: np.ndarray, shape: tuple[int, int]) -> Entries:
    places = rows.astype(np.int64) * shape[1] + columns
    if np.all(places[1:] > places[:-1]):
        return Entries(rows, columns, values, shape)
    if np.any(rows < 0) or np.any(columns < 0):
        raise ValueError("a sparse matrix has indices below 0")
    places, index = np.unique(places, return_inverse=True)
    # In float64, so that no whole number wraps around.
    total: np.ndarray = np.bincount(index, weights=values, minlength=len(places))
    if values.dtype == bool:
        total = total > 0
    return Entries(places // shape[1], places % shape[1], total, shape)
