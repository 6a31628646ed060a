"""Argument checks of the core, and their messages."""

import importlib
from math import inf
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import checkify

from deepnmf_jax.core.dtypes import is_concrete, plain
from deepnmf_jax.core.gradients import GRADIENTS
from deepnmf_jax.core.iteration import ACCELERATIONS, IMPLEMENTATIONS, PRODUCTS, Settings
from deepnmf_jax.core.kernels.tiles import MOST_UNITS

DTYPES = ("float32", "float64", "bfloat16")


def check_choice(name: str, value: object, allowed: tuple) -> Any:
    """`value` as Python has it (see `plain`). ValueError unless it is one of `allowed`."""
    value = plain(value)
    try:
        known = value in allowed
    except (TypeError, ValueError):  # an array has no single answer
        known = False
    if not known:
        raise ValueError(f"{name} = {value!r} is unknown; use one of {', '.join(map(repr, allowed))}")
    return value


def check_flag(name: str, value: object) -> bool:
    """`value` as Python's bool. ValueError for anything but a truth value, numbers included."""
    value = plain(value)
    if not isinstance(value, bool):
        raise ValueError(f"{name} = {value!r}, but it must be True or False")
    return value


def check_integer(name: str, value: object, smallest: int, largest: int | None = None) -> int:
    """`value` as Python's int. ValueError unless it is a whole number of at least `smallest`, at most `largest`.

    Truth values are no numbers, and 2.0 is none that is whole by its type.
    """
    number = plain(value)
    whole = isinstance(number, int) and not isinstance(number, bool)
    if not whole or number < smallest or (largest is not None and number > largest):
        allowed = f"of at least {smallest}" if largest is None else f"from {smallest} to {largest}"
        raise ValueError(f"{name} = {value!r}, but it must be a whole number {allowed}")
    return number


def check_seed(name: str, value: object) -> int:
    """`value` as Python's int. ValueError unless it is a whole number from 0 to 2**32 - 1.

    JAX cuts larger seeds to 32 bits unless float64 is switched on: two seeds would be one.
    """
    return check_integer(name, value, 0, 2**32 - 1)


def check_number(
    name: str, value: object, smallest: float = -inf, largest: float = inf, *, above: bool = False, below: bool = False
) -> float:
    """`value` as Python's int or float. ValueError unless it is a finite number from `smallest` to `largest`.

    Args:
        name: of the argument, for the message.
        value: number of Python or numpy, or array without axes; truth values are no numbers.
        smallest: of the allowed numbers.
        largest: of the allowed numbers.
        above: whether `smallest` itself is excluded.
        below: whether `largest` itself is excluded.
    """
    number = plain(value)
    if isinstance(number, (int, float)) and not isinstance(number, bool) and abs(number) < inf:
        enough = smallest < number if above else smallest <= number
        if enough and (number < largest if below else number <= largest):
            return number
    if -inf < smallest and largest < inf:
        allowed = f"number in {'(' if above else '['}{smallest}, {largest}{')' if below else ']'}"
    elif -inf < smallest:
        allowed = f"number {'above' if above else 'of at least'} {smallest}"
    elif largest < inf:
        allowed = f"number {'below' if below else 'of at most'} {largest}"
    else:
        allowed = "finite number"
    raise ValueError(f"{name} = {value!r}, but it must be a {allowed}")


def check_settings(settings: Settings) -> None:
    """ValueError for settings of `infer` outside what they allow, or that exclude each other."""
    check_integer("num_iters", settings.num_iters, 1)
    check_number("epsilon", settings.epsilon, 0, 1, above=True)
    check_choice("gradient", settings.gradient, GRADIENTS)
    check_integer("cg_steps", settings.cg_steps, 0)
    check_choice("acceleration", settings.acceleration, ACCELERATIONS)
    check_choice("products", settings.products, PRODUCTS)
    check_choice("implementation", settings.implementation, IMPLEMENTATIONS)
    check_number("exponent", settings.exponent, 1)
    check_number("tolerance", settings.tolerance, 0)
    if settings.epsilon != 1 and (settings.acceleration != "none" or settings.tolerance):
        raise ValueError(
            f"epsilon = {settings.epsilon!r} with acceleration = {settings.acceleration!r} and tolerance = "
            f"{settings.tolerance!r}; accelerated steps and the stopping rule need epsilon = 1"
        )
    if settings.gradient == "unrolled" and settings.tolerance:
        raise ValueError(
            f"tolerance = {settings.tolerance!r} with gradient = 'unrolled'; a loop that may end early cannot be "
            "unrolled: use tolerance = 0, or another gradient"
        )
    if settings.implementation != "xla":
        _check_implementation(settings)


def _check_implementation(settings: Settings) -> None:
    if settings.gradient == "unrolled":
        raise ValueError(
            f"implementation = {settings.implementation!r} with gradient = 'unrolled'; the kernel keeps no iteration "
            "to go back through: use gradient = 'approximate' or 'implicit', or implementation = 'xla'"
        )
    if settings.implementation == "pallas" and not has_cuda():
        raise ValueError(
            f"implementation = 'pallas' on {jax.default_backend()!r}, JAX's default device; the kernel needs a CUDA "
            "GPU of compute capability 8.0 or more: use implementation = 'xla', or 'interpret' to test it (slow)"
        )
    try:
        importlib.import_module("jax.experimental.pallas.triton")
    except ImportError as error:
        raise ValueError(
            f"implementation = {settings.implementation!r} with JAX {jax.__version__}, which has no Triton backend of "
            "Pallas; use implementation = 'xla', or a JAX that has it (0.6 to 0.12)"
        ) from error


def has_cuda() -> bool:
    """Whether JAX's default device is a CUDA GPU that has TF32 and bfloat16 (compute capability 8.0 or more)."""
    if jax.default_backend() != "gpu":
        return False
    device = jax.devices()[0]
    return "rocm" not in device.client.platform_version.lower() and float(device.compute_capability) >= 8


def check_arguments(x: Array, w: Array, settings: Settings) -> None:
    """ValueError for shapes, dtypes and settings of `infer` that do not fit; looks at no value, so works under jit."""
    check_settings(settings)
    check_shapes(x, w)


def check_shapes(x: Array, w: Array) -> None:
    """ValueError for shapes and dtypes of inputs x (..., n) and weights w (k, n) that do not fit."""
    for name, a in (("x", x), ("w", w)):
        if a.dtype.name not in DTYPES:
            raise ValueError(f"{name} has dtype {a.dtype.name}; use one of {', '.join(DTYPES)} (1e-19 is 0 in float16)")
    if w.ndim != 2:
        raise ValueError(f"w has shape {w.shape}; it must be (k, n), one row a unit")
    if x.ndim < 1 or x.shape[-1] != w.shape[1]:
        raise ValueError(f"x has shape {x.shape} and w {w.shape}; the last axis of both must be n, one entry an input")
    if 0 in w.shape:
        raise ValueError(f"w has shape {w.shape}; it needs at least one unit and one input")


def check_kernel(x: Array, w: Array, settings: Settings) -> None:
    """ValueError for dtypes and shapes that the kernel cannot do. x (..., n), w (k, n)."""
    how = f"implementation = {settings.implementation!r}"
    if jnp.result_type(x, w) == jnp.float64:
        raise ValueError(
            f"{how} with x in {x.dtype.name} and w in {w.dtype.name}; the kernel computes in float32: use float32 or "
            "bfloat16, or implementation = 'xla'"
        )
    if w.shape[0] > MOST_UNITS:
        raise ValueError(
            f"{how} with k = {w.shape[0]} units; the kernel keeps all activities of an input on the chip, at most "
            f"{MOST_UNITS}: use fewer units, groups of them, or implementation = 'xla'"
        )


def _row_tolerance(a: Array) -> float:
    return 1e-2 if a.dtype == jnp.bfloat16 else 1e-3


_HOW_TO_MEND = {
    "x": "pass the raw patches through normalize_patches(jax.nn.relu(...))",
    "w": "pass the raw weights through normalize_weights(...)",
}


def check_values(x: Array, w: Array) -> None:
    """ValueError for concrete x or w with negative or non-finite entries, or rows that sum to neither 1 nor 0."""
    for name, a in (("x", x), ("w", w)):
        if not is_concrete(a):
            continue
        values = np.asarray(a).astype(np.float64)
        if bad := int((~np.isfinite(values)).sum()):
            raise ValueError(f"{name} has {bad} entries that are NaN or infinite; all must be finite")
        if bad := int((values < 0).sum()):
            raise ValueError(f"{name} has {bad} negative entries (smallest {values.min():.3g}); {_HOW_TO_MEND[name]}")
        sums = values.sum(axis=-1)
        off = ~((np.abs(sums - 1) <= _row_tolerance(a)) | (sums == 0))
        if off.any():
            raise ValueError(
                f"{name} has {int(off.sum())} rows whose sum is neither 1 nor 0 (one is {sums[off].flat[0]:.6g}); "
                + _HOW_TO_MEND[name]
            )


def checkify_values(x: Array, w: Array) -> None:
    """The checks of `check_values` as `checkify.check`, for traced arrays."""
    for name, a in (("x", x), ("w", w)):
        sums = jnp.sum(a.astype(jnp.promote_types(a.dtype, jnp.float32)), axis=-1)
        unit = (jnp.abs(sums - 1) <= _row_tolerance(a)) | (sums == 0)
        checkify.check(jnp.all(jnp.isfinite(a)), f"{name} has entries that are NaN or infinite; all must be finite")
        checkify.check(jnp.all(a >= 0), f"{name} has negative entries; {_HOW_TO_MEND[name]}")
        checkify.check(jnp.all(unit), f"{name} has rows whose sum is neither 1 nor 0; {_HOW_TO_MEND[name]}")
