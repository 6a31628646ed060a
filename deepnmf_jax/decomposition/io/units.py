"""Units of data: powers of 4 near its size, by which it and the roots of it can be divided without rounding.

XLA takes numbers below the smallest normal one for 0. Data of such a size is moved by numpy, which does not.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental.sparse import BCOO

from deepnmf_jax.decomposition.io.host import beside, where_it_lies

# Two units that differ by more: squares of the one vanish beside those of the other, in float64 too.
FAR = 2.0**40
# Entries this much smaller than the unit may be lost to XLA's zero.
ROOM = 2.0**24


def least_unit(dtype: np.dtype) -> float:
    """The smallest unit that XLA can divide data of that dtype by."""
    return float(np.finfo(dtype).tiny) * ROOM


def unit_near(size: float, dtype: np.dtype) -> float:
    """The power of 4 nearest to `size` (above 0) that the dtype holds, subnormal ones included."""
    limits = np.finfo(dtype)
    lowest, highest = -((limits.nmant - limits.minexp) // 2), (limits.maxexp - 1) // 2
    return 4.0 ** min(max(round(math.log(size, 4)), lowest), highest)


def power(unit: float, exponent: float) -> float:
    """unit^exponent, infinite where Python raises OverflowError."""
    try:
        return unit**exponent
    except OverflowError:
        return math.inf


def are_far(one: float, other: float) -> bool:
    """Whether two units are so different that data of the one is nothing beside, or beyond all of, the other's."""
    return not 1 / FAR <= one / other <= FAR


def unit_of_objective(unit: float, beta: float = 2.0) -> float:
    """What objectives of data divided by `unit` are multiplied with: unit^beta.

    Raises:
        ValueError: float64 does not hold numbers of that size.
    """
    found = power(unit, beta)
    if 1e-290 <= found <= 1e290:
        return found
    raise ValueError(
        f"the data has entries of the size of {unit:.0e}, whose {'squares' if beta == 2 else f'powers of {beta:g}'} "
        f"float64 cannot hold; divide it by {unit:.0e}"
    )


def reconstruction_error(divergence: Any, unit: float) -> Any:
    """The root of twice divergences of scaled data, which `unit` (`unit_of_objective`) takes back to that of the data.

    In float64, which holds the square of whatever float32 does. Rounding below 0 is 0.
    """
    return np.sqrt(2 * np.maximum(np.asarray(divergence, np.float64), 0) * unit)


def divided(a: Array | BCOO, unit: float, size: float = math.inf) -> Array | BCOO:
    """A / unit, exactly; `size` is that of the entries of A, if they may be smaller than the unit."""
    if unit == 1:
        return a
    if min(unit, size) >= least_unit(a.dtype):
        return beside(_divide(a, unit), a)
    exponent = -round(math.log2(unit))
    if isinstance(a, BCOO):
        return BCOO((_shifted(a.data, exponent), a.indices), shape=a.shape)
    return _shifted(a, exponent)


def multiplied(a: Array, unit: float) -> Array:
    """A unit, exactly as far as the dtype holds it."""
    if unit == 1:
        return a
    return a * unit if unit >= least_unit(a.dtype) else _shifted(a, round(math.log2(unit)))


@where_it_lies
def _divide(a: Array | BCOO, unit: Array | float) -> Array | BCOO:
    return BCOO((a.data / unit, a.indices), shape=a.shape) if isinstance(a, BCOO) else a / unit


def _shifted(a: Array, exponent: int) -> Array:
    """A times 2^exponent, by numpy."""
    with np.errstate(over="ignore", under="ignore"):
        moved = np.ldexp(np.asarray(a), exponent)
    return jax.device_put(jnp.asarray(moved), a.sharding)


def towards_one(x: Array) -> Array:
    """x (n, m) >= 0, rows of very small or large numbers times a power of 2, exactly: for what keeps no unit.

    Compiled code too, which takes numbers below the smallest normal one for 0, sees them: their bits, read as a whole
    number, count units of the smallest one there is.
    """
    limits = jnp.finfo(x.dtype)
    whole = jnp.int32 if limits.bits == 32 else jnp.int64

    def bits_of(number: float) -> Array:
        return lax.bitcast_convert_type(jnp.asarray(number, x.dtype), whole)

    # The bits of numbers of one sign are in the order of the numbers.
    bits = lax.bitcast_convert_type(x, whole)
    largest = jnp.max(bits, axis=1, keepdims=True)
    small, large = largest < bits_of(2.0 ** (limits.minexp // 2)), largest > bits_of(2.0 ** (limits.maxexp // 2))
    factor = jnp.where(small, 2.0**-limits.minexp, jnp.where(large, 2.0 ** -(limits.maxexp // 2), 1)).astype(x.dtype)
    lost = small & (bits < bits_of(2.0**limits.minexp))
    # The derivative is that of the product for all.
    return x * factor + lax.stop_gradient(jnp.where(lost, bits.astype(x.dtype) * 2.0**-limits.nmant, 0))
