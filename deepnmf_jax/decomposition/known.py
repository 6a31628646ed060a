"""Entries of the dictionary that are known: measured spectra, genes that mark a cell type, zeros that stay."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from deepnmf_jax.decomposition.io import arrays
from deepnmf_jax.decomposition.io.host import namespace
from deepnmf_jax.decomposition.io.units import FAR


class Known(NamedTuple):
    """What is known of D (k, p): free, whether each entry is to be found; values, those of the others, 0 elsewhere."""

    free: np.ndarray
    values: np.ndarray


def check_known(given: Any, k: int) -> np.ndarray | None:
    """`known_D` as a float64 array (f, p) of our own, NaN where D is free; None where nothing is known.

    Raises:
        ValueError: no matrix of at most k rows; entries that are negative or infinite; a row that is 0 as a whole.
    """
    if given is None:
        return None
    # A copy: what the caller writes to it later would get past these checks.
    known = np.array(arrays.to_numpy(given, np.float64))
    if known.ndim != 2 or not 1 <= len(known) <= k or not known.size:
        raise ValueError(
            f"known_D has shape {known.shape}; it must be (f, p): one row for each of the first f atoms, f <= {k} "
            "(NaN where an entry is to be found), one column a feature"
        )
    if np.any(known < 0) or np.any(np.isinf(known)):
        raise ValueError("known_D has entries that are negative or infinite; NaN stands for what is to be found")
    empty = np.flatnonzero(np.all(known == 0, axis=1))
    if len(empty):
        raise ValueError(
            f"row {empty[0]} of known_D is 0 as a whole, and such an atom explains nothing; leave it out, or put NaN "
            "where it is to be found"
        )
    return known


def known_of(given: np.ndarray | None, k: int, p: int, root: float, dtype: np.dtype) -> Known | None:
    """What `check_known` gave, for D (k, p) of data whose dictionary is divided by `root`.

    Raises:
        ValueError: another number of features; entries that are so far from the data that codes would over- or
            underflow.
    """
    if given is None:
        return None
    if given.shape[1] != p:
        raise ValueError(f"known_D has {given.shape[1]} columns and A {p}; they must be the same features")
    values, free = np.zeros((k, p)), np.ones((k, p), bool)
    values[: len(given)], free[: len(given)] = np.nan_to_num(given), np.isnan(given)
    largest = float(values.max()) / root
    if largest and not 1 / FAR <= largest <= FAR:
        raise ValueError(
            f"known_D has entries of the size of {largest * root:.0e} and A of {root**2:.0e}, so that codes would be "
            f"of {root / largest:.0e}; multiply known_D by {1 / largest:.0e}"
        )
    return Known(free, (values / root).astype(dtype))


def with_known(d: Any, known: Known | None) -> Any:
    """D (k, p), of numpy or JAX, with the known entries put in."""
    return d if known is None else namespace(d).where(known.free, d, known.values)


def started(zt: Any, d: Any, known: Known | None) -> tuple[Any, Any]:
    """A start Z^T (k, n), D (k, p) with the known entries put in: each atom keeps the size of its share of Z D."""
    if known is None:
        return zt, d
    xp = namespace(zt, d)
    filled = with_known(d, known)
    before, after = (xp.linalg.norm(x, axis=1)[:, None] for x in (d, filled))
    factor = xp.where((before > 0) & (after > 0), before / xp.where(after > 0, after, 1), 1)
    return zt * factor, filled


def free_of(known: Known | None) -> Array | None:
    """Whether each entry of D may change, as the functions of a fit take it."""
    return None if known is None else jnp.asarray(known.free)
