"""How many concepts: by the error on entries held out of the fit (Wold 1978; Owen and Perry 2009)."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deepnmf_jax.core.checks import check_integer, check_number, check_seed
from deepnmf_jax.decomposition.io import arrays
from deepnmf_jax.decomposition.io.checked import check_shape, check_values
from deepnmf_jax.decomposition.io.units import unit_near
from deepnmf_jax.decomposition.nmf import NMF

# So often a mask is drawn that holds out some entries, but not all.
DRAWS = 100


class Selection(NamedTuple):
    """best: the chosen k. ks (m,): those tried. errors (repeats, m): root mean square error on held-out entries."""

    best: int
    ks: np.ndarray
    errors: np.ndarray


def held_out(random_state: int, shape: tuple[int, ...], fraction: float, repeats: int) -> np.ndarray:
    """Masks (repeats, n, p) of the entries to hold out, each with that probability; the same for every k.

    A mask that holds out nothing, or everything, is drawn again.

    Raises:
        ValueError: a matrix so small, or a fraction so near 0 or 1, that there is no other after `DRAWS`.
    """
    keys = jax.random.split(jax.random.key(random_state), repeats)
    return np.stack([_one_held_out(key, shape, fraction) for key in keys])


def _one_held_out(key: jax.Array, shape: tuple[int, ...], fraction: float) -> np.ndarray:
    for i in range(DRAWS):
        # The first draw is from the key itself.
        out = np.array(jax.random.bernoulli(jax.random.fold_in(key, i) if i else key, fraction, shape))
        if out.any() and not out.all():
            return out
    raise ValueError(
        f"fraction = {fraction:g} of the {math.prod(shape)} entries of A, of shape {shape}, holds out none or all of "
        f"them, {DRAWS} times; pass a larger A, or a fraction that leaves some entries on both sides"
    )


def one_standard_error(errors: np.ndarray) -> int:
    """Index of the first column whose mean is within one standard error of the smallest mean. errors (repeats, m)."""
    mean = errors.mean(axis=0)
    smallest = int(np.argmin(mean))
    spread = errors[:, smallest].std(ddof=1) / np.sqrt(len(errors)) if len(errors) > 1 else 0.0
    return int(np.argmax(mean <= mean[smallest] + spread))


def check_ks(ks: Sequence[int], smallest: int) -> list[int]:
    """Numbers of concepts to try. ValueError unless there are some, of at least `smallest`, ascending."""
    checked = [check_integer("each of ks", k, smallest) for k in np.ravel(np.asarray(ks, object))]
    if not checked or sorted(set(checked)) != checked:
        raise ValueError(f"ks = {checked}; give the numbers to try in ascending order, each once")
    return checked


def choose_k(
    A: Any, ks: Sequence[int], fraction: float = 0.1, repeats: int = 3, random_state: int = 0, **arguments: Any
) -> Selection:
    """The smallest number of concepts whose error on held-out entries is within one standard error of the best.

    Args:
        A: dense non-negative matrix (n, p) of any kind.
        ks: numbers to try, ascending.
        fraction: share of the entries held out, in (0, 1).
        repeats: independent choices of the entries held out.
        random_state: seed of these choices and of the fits.
        **arguments: of `NMF`, such as max_iter or solver; penalties help where the mask leaves little.

    Raises:
        ValueError: no or unordered ks, a fraction outside (0, 1), or one that holds nothing out, or all; data that
            `NMF.fit` would not take; a sparse matrix too large to be written out.
    """
    ks = check_ks(ks, 1)
    fraction = check_number("fraction", fraction, 0, 1, above=True, below=True)
    repeats, random_state = check_integer("repeats", repeats, 1), check_seed("random_state", random_state)
    a = arrays.to_numpy(A, arrays.dtype_for(A, arguments.get("dtype")))
    check_shape(a.shape)
    with arrays.with_precision(a.dtype):
        size = check_values(jnp.asarray(a), None, True, False)
        unit = unit_near(size, a.dtype) if size > 0 else 1.0
    root = math.sqrt(unit)
    errors = np.empty((repeats, len(ks)))
    for i, out in enumerate(held_out(random_state, a.shape, fraction, repeats)):
        for j, k in enumerate(ks):
            z, d = NMF(k, random_state=random_state, **arguments).fit(a, mask=~out)
            # In the unit of the data and in float64, where the squares neither vanish nor overflow.
            rest = (z / root).astype(np.float64) @ (d / root) - a / np.float64(unit)
            errors[i, j] = np.sqrt(np.mean(rest[out] ** 2)) * unit
    return Selection(ks[one_standard_error(errors)], np.array(ks), errors)
