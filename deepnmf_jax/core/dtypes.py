"""Which floating-point type numbers are computed in. Unlike JAX's own promotion, the same in its strict mode.

And scalars of any library as Python's, so that their dtype does not reach a result.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike


def is_concrete(*arrays: object) -> bool:
    """Whether the values of all arrays can be looked at (they are not being traced by jit, grad or vmap)."""
    return not any(isinstance(a, jax.core.Tracer) for a in arrays)


def plain(value: Any) -> Any:
    """The number, truth value or string of Python in a scalar of numpy, JAX or torch, or in an array without axes.

    Anything else, and what is being traced, comes back as it is.
    """
    if getattr(value, "ndim", None) != 0 or not hasattr(value, "item") or not is_concrete(value):
        return value
    # The item of a long double is a long double.
    return float(value) if isinstance(value, np.longdouble) else value.item()


def floats(name: str, a: ArrayLike) -> Array:
    """The array in its own floating-point type; whole numbers and truth values as float32.

    Raises:
        ValueError: other types; or a concrete array that is not 0 but so small that XLA takes it as 0.
    """
    a = jnp.asarray(a)
    if jnp.issubdtype(a.dtype, jnp.integer) or a.dtype == bool:
        return a.astype(jnp.float32)
    if not jnp.issubdtype(a.dtype, jnp.floating):
        raise ValueError(f"{name} has dtype {a.dtype}; it must hold real numbers")
    if is_concrete(a):
        # numpy, because XLA's programs for CPUs read such numbers as 0.
        largest = float(np.abs(np.asarray(a).astype(np.float64)).max(initial=0))
        smallest = float(jnp.finfo(promoted(a.dtype, jnp.float32)).tiny)
        if 0 < largest < smallest:
            raise ValueError(
                f"{name} has no entry above {largest:.3g}, and numbers of {a.dtype} below {smallest:.3g} are taken as "
                "0: multiply it by a large number"
            )
    return a


def promoted(*dtypes: DTypeLike) -> np.dtype:
    """The type that holds the numbers of all of them."""
    with jax.numpy_dtype_promotion("standard"):
        return np.dtype(jnp.result_type(*dtypes))


def accumulated(a: Array) -> Array:
    """The array in float32, or in its own type where that is wider."""
    return a.astype(promoted(a.dtype, jnp.float32))


def in_common(*arrays: ArrayLike) -> list[Array]:
    """The arrays in their common type, float32 at least."""
    given = [jnp.asarray(a) for a in arrays]
    dtype = promoted(jnp.float32, *(a.dtype for a in given))
    return [a.astype(dtype) for a in given]
