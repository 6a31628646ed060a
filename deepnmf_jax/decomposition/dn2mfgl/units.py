"""Dn2MFGL on data far from 1, which is divided by its unit s first: what the terms and the factors then are.

With J = s^e J', e = 1 for robust data terms and 2 for squares, H_i = s^(e/2) H_i' and V = s^(1 - e l/2) V' for l
layers, lam means the same in both problems, delta' = delta / s, and alpha, beta and nu are multiplied with
s^(2 - e (l+1)). The ridge is a guard of the computation, not of the problem: it is what it is in both.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from deepnmf_jax.decomposition.dn2mfgl.fit import Factors, Solution
from deepnmf_jax.decomposition.io.checked import read_data
from deepnmf_jax.decomposition.io.units import (
    ROOM,
    least_unit,
    power,
    towards_one,
    unit_near,
    unit_of_objective,
)

# Data within this factor of 1 are computed with as they are; the released code, whose guards are absolute numbers, as
# far as squares of float32 go.
NEAR, RELEASED_NEAR = 2.0**4, 2.0**40
# So many times what they are at a unit of 1, alpha, beta and nu leave nothing of the codes.
LARGEST_STRUCTURE = 2.0**50


class Units(NamedTuple):
    """data: s. h, v: of each H_i and of V. objective: s^e. structure: what alpha, beta and nu are multiplied with."""

    data: float = 1.0
    h: float = 1.0
    v: float = 1.0
    objective: float = 1.0
    structure: float = 1.0


def is_near(unit: float, released: bool) -> bool:
    """Whether data of that unit (0: all is 0) need no other one."""
    near = RELEASED_NEAR if released else NEAR
    return unit == 0 or 1 / near <= unit <= near


def read_samples(
    X: Any, dtype: np.dtype, normalize: bool, released: bool, features: int | None = None
) -> tuple[Array, float]:
    """X (n, m), checked, at unit length if `normalize`, else divided by the unit that also comes back: 1 if near it.

    Raises:
        ValueError: as `read_data`.
    """
    data = read_data(X, dtype, features=features, scale=1.0, sparse=False)
    if not (normalize or is_near(data.unit, released)):
        data = read_data(X, dtype, features=features, sparse=False)
    x = jnp.asarray(data.a)
    return (at_unit_length(x), 1.0) if normalize else (x, data.scale)


def at_unit_length(x: Array) -> Array:
    """Samples x (n, m) >= 0 at length 1, however small or large; one of zeros stays one, and passes no gradient."""
    x = towards_one(x)
    # By the largest entry first: squares of small numbers vanish in float32.
    largest = jnp.max(x, axis=1, keepdims=True)
    some = largest > 0
    x = jnp.where(some, x / lax.stop_gradient(jnp.where(some, largest, 1)), 0)
    return x / jnp.linalg.norm(jnp.where(some, x, 1), axis=1, keepdims=True) * some


def units_of(unit: float, layers: int, squares: bool) -> Units:
    """Of data that was divided by `unit`. ValueError where float64 does not hold one of them."""
    if unit == 1:
        return Units()
    e = 2 if squares else 1
    found = Units(
        unit,
        power(unit, e / 2),
        power(unit, 1 - e * layers / 2),
        unit_of_objective(unit, e),
        power(unit, 2 - e * (layers + 1)),
    )
    if not all(1e-290 <= number <= 1e290 for number in found):
        raise ValueError(
            f"X has entries of the size of {unit:.0e}, too far from 1 for {layers} layers; {_advice(unit)}"
        )
    return found


def _advice(unit: float) -> str:
    return f"divide X by {unit:.0e}, or use normalize=True"


def check_strengths(strengths: tuple[float, float, float], units: Units) -> None:
    """ValueError where alpha, beta or nu are beyond all data of that size."""
    for name, value in zip(("alpha", "beta", "nu"), strengths, strict=True):
        if units.data != 1 and value * units.structure > LARGEST_STRUCTURE:
            raise ValueError(
                f"{name} = {value:g} with X of the size of {units.data:.0e}: it counts there as "
                f"{value * units.structure:.0e} does at 1; {_advice(units.data)}"
            )


def check_delta(delta: float, x: Array, unit: float) -> None:
    """ValueError where delta, in the unit of X, hides its samples, of which x (n, m) is X divided by `unit`."""
    length = unit * float(jnp.sqrt(jnp.mean(jnp.sum(x * x, axis=1))))
    if delta > length > 0:
        raise ValueError(
            f"delta = {delta:g} with samples of X that have a length of {length:.0e}: residuals hardly count beside "
            f"it; give a delta far below {length:.0e}, {_advice(unit_near(length, np.dtype(np.float64)))}"
        )


def starts_in(units: Units, starts: Factors) -> Factors:
    """Given factors, for the data divided by its unit."""
    return Factors(tuple(h / units.h for h in starts.h), tuple(v / units.v for v in starts.v))


def delta_in(units: Units, delta: float, dtype: np.dtype) -> float:
    """delta of the data divided by its unit, never below its rounding, where a residual of 0 would weigh infinitely."""
    return delta if units.data == 1 else max(delta / units.data, float(np.finfo(dtype).eps))


def restored(solution: Solution, units: Units, released: bool) -> Solution:
    """The solution of the data itself, from that of the data divided by its unit.

    Raises:
        ValueError: its dtype does not hold one of the factors.
    """
    if units.data == 1:
        return solution
    layers, dtype = len(solution.dictionaries), solution.codes.dtype
    last = units.h if released else power(units.h, 1 - layers)
    components = power(units.h, layers) if released else 1.0
    codes = units.v if released else units.data
    largest = float(np.finfo(dtype).max) / ROOM**0.5
    if not all(least_unit(dtype) <= number <= largest for number in (units.h, last, components, codes)):
        raise ValueError(
            f"X has entries of the size of {units.data:.0e}, for which {dtype} does not hold the factors of {layers} "
            f"layers; {_advice(units.data)}"
        )
    return solution._replace(
        dictionaries=[*(matrix * units.h for matrix in solution.dictionaries[:-1]), solution.dictionaries[-1] * last],
        components=solution.components * components,
        codes=solution.codes * dtype.type(codes),
        history=np.asarray(solution.history, np.float64) * units.objective,
        losses=np.asarray(solution.losses, np.float64) * units.objective,
    )


def unit_of_codes(codes: np.ndarray) -> float:
    """A unit in which squared distances of codes neither vanish nor overflow; 1 where theirs do not."""
    size = float(np.mean(np.abs(codes), dtype=np.float64))
    return 1.0 if is_near(size, released=False) else unit_near(size, codes.dtype)
