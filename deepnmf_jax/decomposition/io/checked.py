"""Data that a factorization can work on: read, checked before anything is computed, in a unit near 1."""

import contextlib
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental.sparse import BCOO

from deepnmf_jax.compiled import at_once
from deepnmf_jax.core.checks import is_concrete
from deepnmf_jax.decomposition.io.arrays import check_real, is_batches, to_dense, to_jax, to_numpy
from deepnmf_jax.decomposition.io.host import namespace, where_it_lies
from deepnmf_jax.decomposition.io.units import divided, least_unit, unit_near

# Rows and columns are numbered in 32 bits.
LONGEST = 2**31 - 1


class Data(NamedTuple):
    """A (n, p) divided by `scale`, dense or sparse; weights (n, p) or None; zero where there is nothing to factorize.

    `scale` is a power of 4: dividing by it is exact, and so is multiplying factors with its root. `unit` is the one
    near the mean of |A| (of a sparse matrix: of what is stored), 0 where all is 0, and `scale` unless another is given.
    Entries of weight 0 hold 0.
    """

    a: Array | BCOO
    weights: Array | None
    scale: float
    zero: bool
    unit: float = 1.0


def read_data(
    a: Any,
    dtype: np.dtype,
    device: Any = None,
    weights: Any = None,
    mask: Any = None,
    nonnegative: bool = True,
    beta: float = 2.0,
    features: int | None = None,
    scale: float | None = None,
    sparse: bool = True,
    takes_mask: bool = False,
) -> Data:
    """A and its weights as checked JAX arrays.

    Args:
        a: matrix (n, p) of any kind, not an iterable of batches.
        dtype: what to compute in.
        device: where to; None leaves it where it is.
        weights: element weights (n, p) or weights of the samples (n,) or (n, 1), non-negative; None.
        mask: 1 or True where A is known, (n, p); instead of or on top of the weights. Elsewhere A may be NaN.
        nonnegative: whether negative entries are an error.
        beta: of the divergence; zeros are an error for beta <= 0, and so are sparse matrices.
        features: p that A must have, of a fitted dictionary.
        scale: the unit of the fit; None: found from A.
        sparse: whether a sparse A may stay sparse; else it is written out.
        takes_mask: whether the weights that come out are used, so that hidden entries of a masked array may count as
            unknown; else such an array is refused.

    Raises:
        ValueError: no real numbers, wrong rank, empty, NaN, infinite, negative, another number of features, weights of
            another shape, all entries too small for `dtype`, more rows or columns than 32 bits count.
    """
    if is_batches(a):
        raise ValueError(
            "A is an iterable of batches here; NMF.fit and NMF.encode stream those, all else takes one matrix (n, p)"
        )
    if is_traced(a, weights, mask):
        raise ValueError(
            "A, mask or weights is traced by jax.jit, grad or vmap, and this needs values; call it outside, or use "
            "encode (transform) of the fitted estimator inside"
        )
    shown = None
    if takes_mask and isinstance(a, np.ma.MaskedArray):
        a, shown = np.ma.getdata(a), ~np.ma.getmaskarray(a) if np.ma.is_masked(a) else None
    array = to_jax(a, dtype, device) if sparse else to_dense(a, dtype, device)
    check_shape(array.shape, features)
    known = read_weights(weights, mask, array, dtype, device, shown)
    if known is not None:
        array = jnp.where(known > 0, dense(array), 0)
    size = check_values(array, known, nonnegative, beta <= 0)
    if size == 0:
        _check_lost(a, known, dtype)
    unit = unit_near(size, dtype) if size > 0 else 0.0
    scale = (unit or 1.0) if scale is None else scale
    return Data(divided(array, scale, size or math.inf), known, scale, size == 0, unit)


def _check_lost(a: Any, known: Array | None, dtype: np.dtype) -> None:
    """ValueError where A is 0 only because its dtype was made a smaller one."""
    if known is not None:
        return
    given = to_numpy(a.data if isinstance(a, BCOO) else a.tocoo().data if hasattr(a, "tocoo") else a, None)
    if given.dtype.kind == "f" and (largest := float(np.max(np.abs(given), initial=0.0))) > 0:
        raise ValueError(
            f"A has no entry above {largest:.3g}, which is 0 in {dtype}; pass dtype='float64', or divide A by "
            f"{largest:.0e}"
        )


def is_traced(*given: Any) -> bool:
    """Whether an array among those given, or in a list of them, is being traced by jit, grad or vmap."""
    return not is_concrete(*jax.tree.leaves(given))


def read_traced(
    a: Any, dtype: np.dtype, features: int, scale: float, weights: Any = None, mask: Any = None
) -> tuple[Array | BCOO, Array | None]:
    """What `read_data` gives, A in the unit of the fit and the weights, inside jit, grad or vmap.

    The values of traced arrays are not checked; their shapes are, and the values of the others.

    Raises:
        ValueError: another shape or number of features, complex numbers, bad values of concrete weights or masks.
    """
    a = a if isinstance(a, BCOO) else jnp.asarray(a)
    check_shape(a.shape, features)
    check_real(a.dtype)
    a = a.astype(dtype)
    known = None
    for given, is_weights in ((weights, True), (mask, False)):
        if given is None:
            continue
        # Else jit would make constants into traced arrays, whose values cannot be looked at.
        with contextlib.nullcontext() if is_traced(given) else at_once():
            given = jnp.asarray(given) if is_traced(given) else given
            part = read_weights(given if is_weights else None, None if is_weights else given, a, dtype, None)
        known = part if known is None or part is None else known * part
    if known is not None:
        a = jnp.where(known > 0, a, 0)
    # A division by 1 would lose numbers that XLA takes for 0.
    return a if scale == 1 else a / scale, known


def check_shape(shape: tuple[int, ...], features: int | None = None) -> None:
    """ValueError unless the shape is that of a matrix with entries, and with that many columns if given."""
    if len(shape) != 2:
        raise ValueError(
            f"A has shape {shape}; it must be a matrix (n_samples, n_features): reshape images or maps to rows first"
        )
    if max(shape) > LONGEST:
        raise ValueError(f"A has shape {shape}; rows and columns may be {LONGEST} at most, split it into parts")
    if 0 in shape:
        raise ValueError(f"A is empty, of shape {shape}; it needs at least one sample and one feature")
    if features is not None and shape[1] != features:
        raise ValueError(
            f"A has {shape[1]} features, but the dictionary was fitted to {features}; pass the same features"
        )


def read_weights(
    weights: Any, mask: Any, a: Array | BCOO, dtype: np.dtype, device: Any, shown: np.ndarray | None = None
) -> Array | None:
    """Weights times masks as an array of the shape of A; None where none is given. ValueError as in `read_data`.

    `shown` is the mask that A brings along itself, True where an entry is not hidden.
    """
    if weights is None and mask is None and shown is None:
        return None
    if isinstance(a, BCOO):
        raise ValueError("weights and masks need a dense A; convert it with A.toarray() or A.todense()")
    result = jnp.ones(a.shape, dtype)
    for name, given in (("weights", weights), ("mask", mask), ("mask of A", shown)):
        if given is None:
            continue
        array = to_dense(given, dtype, device)
        if array.shape == (a.shape[0],) and name == "weights":
            array = array[:, None]
        if array.shape != a.shape and not (name == "weights" and array.shape == (a.shape[0], 1)):
            raise ValueError(f"{name} has shape {array.shape} and A {a.shape}; they must be the same")
        if is_concrete(array) and not bool(jnp.all(jnp.isfinite(array) & (array >= 0))):
            raise ValueError(f"{name} has entries that are negative, NaN or infinite; use 0 for what shall not count")
        result = result * array
    return result


def read_start(init: Any, data: Data, k: int, device: Any = None) -> tuple[Array, Array]:
    """FactorPair (Z, D) of any kind to start from, as Z^T (k, n) and D (k, p) in the unit of `data`.

    Raises:
        ValueError: other shapes, entries that are negative, NaN or infinite.
    """
    try:
        z, d = init
    except (TypeError, ValueError) as error:
        raise ValueError("init must be a pair (Z, D) of matrices to start from") from error
    z, d = (to_dense(factor, data.a.dtype, device) for factor in (z, d))
    (n, p), root = data.a.shape, math.sqrt(data.scale)
    if z.shape != (n, k) or d.shape != (k, p):
        raise ValueError(f"init has shapes {z.shape} and {d.shape}; Z must be {(n, k)} and D {(k, p)}")
    for name, factor in (("Z", z), ("D", d)):
        if not bool(_is_start(factor)):
            raise ValueError(f"{name} of init has entries that are negative, NaN or infinite")
    return _start_in_unit(z, d, root)


@where_it_lies
def _is_start(factor: Array) -> Array:
    xp = namespace(factor)
    return xp.all(xp.isfinite(factor) & (factor >= 0))


@where_it_lies
def _start_in_unit(z: Array, d: Array, root: float) -> tuple[Array, Array]:
    return z.T / root, d / root


@where_it_lies
def _survey(values: Array) -> tuple[Array, Array, Array, Array]:
    """Whether all entries are finite, the smallest one (0 where none is negative), the largest absolute value, and the
    mean of those (over the largest where that is below 1: the sum of very small numbers over their count is 0)."""
    xp = namespace(values)
    sizes = xp.abs(values)
    # From 0: a sparse matrix may have no entries at all.
    smallest, largest = xp.min(values, initial=0), xp.max(sizes, initial=0)
    unit = xp.where(largest > 0, xp.minimum(largest, 1), 1)
    mean = xp.sum(sizes / unit / float(max(values.size, 1)))
    return xp.isfinite(largest) & xp.isfinite(smallest), smallest, largest, mean


def check_values(
    a: Array | BCOO, weights: Array | None, nonnegative: bool, positive: bool, lift: float | None = None
) -> float:
    """Mean of |A|, of a sparse matrix of what is stored; above 0 where A is not 0.

    With `lift`, A has been divided by it: numbers that XLA takes for 0 are looked at where they are none.

    Raises:
        ValueError: says how many entries are NaN, infinite, negative (or zero), and the first place.
    """
    values = a.data if isinstance(a, BCOO) else a
    finite, smallest, largest, mean = _survey(values)
    if lift is None and float(largest) < least_unit(a.dtype):
        lift = float(jnp.finfo(a.dtype).tiny)
        return check_values(divided(a, lift), weights, nonnegative, positive, lift)
    if not bool(finite):
        host = to_numpy(values, None)
        bad = ~np.isfinite(host)
        where = "" if isinstance(a, BCOO) else f", the first at {tuple(int(i) for i in np.argwhere(bad)[0])}"
        what = "NaN" if np.isnan(host[bad][0]) else "infinite"
        raise ValueError(
            f"A has {int(bad.sum())} entries that are NaN or infinite in {values.dtype} (first: {what}{where}); for "
            "missing values pass mask= with 0 there"
        )
    if nonnegative and float(smallest) < 0:
        count = int(jnp.sum(values < 0))
        raise ValueError(
            f"A has {count} negative entries (smallest {float(smallest):.3g}), but this factorization needs A >= 0; "
            "clip or shift the data, or use SemiNMF"
        )
    if positive:
        zeros = values == 0 if weights is None else (values == 0) & (weights > 0)
        if bool(jnp.any(zeros)) or isinstance(a, BCOO):
            count = int(jnp.sum(zeros)) + math.prod(a.shape) - values.size
            raise ValueError(
                f"A has {count} zeros, for which a beta_loss of 0 or less is infinite; add a small number to A or use "
                "a beta_loss above 0"
            )
    found = min(float(largest), 1.0) * float(mean) * (lift or 1.0)
    return max(found, math.ulp(0.0)) if float(largest) > 0 else 0.0


def dense(a: Array | BCOO) -> Array:
    """a as a dense array."""
    return a.todense() if isinstance(a, BCOO) else a


def with_missing_filled(data: Data) -> Array | BCOO:
    """A with the mean of its column (of A, where a column is unknown) in place of entries of weight 0, for a start."""
    if data.weights is None:
        return data.a
    seen = data.weights > 0
    a = dense(data.a)
    mean = jnp.sum(a) / jnp.maximum(jnp.sum(seen), 1)
    counts = jnp.sum(seen, axis=0)
    columns = jnp.where(counts > 0, jnp.sum(a, axis=0) / jnp.maximum(counts, 1), mean)
    return jnp.where(seen, a, columns)
