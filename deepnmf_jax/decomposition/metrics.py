"""Dictionaries and codes in numbers: how alike, how sparse, which atoms are dead or there twice.

Arrays may be numpy's, JAX's or torch's; results are numpy's, in float64.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from deepnmf_jax.core.checks import check_number
from deepnmf_jax.decomposition.io import arrays


class Matching(NamedTuple):
    """Atoms of two dictionaries that belong together.

    first and second (m,): their rows in either. cosines (m,): how alike they are, 1 for the same direction.
    """

    first: np.ndarray
    second: np.ndarray
    cosines: np.ndarray


def directions(x: np.ndarray) -> np.ndarray:
    """Rows (n, k) at unit length; rows of zeros stay."""
    # In a unit near the largest entry, whose square neither vanishes nor overflows; a power of 2 changes no digit.
    exponents = np.frexp(np.max(np.abs(x), axis=1, keepdims=True, initial=0))[1]
    x = np.ldexp(x, -exponents)
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(lengths > 0, lengths, 1)


def cosines(first: Any, second: Any) -> np.ndarray:
    """Cosine of the angle between each two atoms (k1, k2) of dictionaries (k1, p) and (k2, p); 0 where one is 0.

    Raises:
        ValueError: no matrices, or of different widths.
    """
    first, second = _matrix("first", first), _matrix("second", second)
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"the dictionaries have {first.shape[1]} and {second.shape[1]} features; both must be (k, p)")
    return np.clip(directions(first) @ directions(second).T, -1, 1)


def match_atoms(first: Any, second: Any) -> Matching:
    """Pairs of atoms of two dictionaries, one to one, such that the sum of their cosines is largest (Hungarian method).

    Args:
        first: dictionary (k1, p).
        second: dictionary (k2, p); of the larger one some atoms are left over.

    Raises:
        ValueError: no matrices, or of different widths.
    """
    # A third of a second of imports that only this needs.
    from scipy.optimize import linear_sum_assignment

    alike = cosines(first, second)
    rows, columns = linear_sum_assignment(-alike)
    return Matching(rows, columns, alike[rows, columns])


def dictionary_stability(dictionaries: Sequence[Any]) -> np.ndarray:
    """How alike dictionaries of different seeds are: the mean cosine of matched atoms (r, r), of each two of r.

    1 where two are the same up to order and length. The mean over the pairs is one number for all of them.

    Raises:
        ValueError: fewer than two; dictionaries of different widths.
    """
    if len(dictionaries) < 2:
        raise ValueError(f"there is {len(dictionaries)} dictionary; give at least two, of different seeds")
    found = np.eye(len(dictionaries))
    for i, j in itertools.combinations(range(len(dictionaries)), 2):
        found[i, j] = found[j, i] = match_atoms(dictionaries[i], dictionaries[j]).cosines.mean()
    return found


def hoyer(x: Any) -> np.ndarray:
    """Sparsity of each row (n,) of x (n, m): 0 if all entries are of one size, 1 if a single one is not 0; NaN for 0.

    (sqrt(m) - ||x||_1 / ||x||_2) / (sqrt(m) - 1), Hoyer 2004. Of an atom for D, of a sample for Z, of a concept's use
    over the samples for Z^T.

    Raises:
        ValueError: no matrix, or one column.
    """
    x = _matrix("x", x)
    root = np.sqrt(x.shape[1])
    if root == 1:
        raise ValueError(f"x has shape {x.shape}; the sparsity of a row needs at least two entries")
    ratio = np.abs(directions(x)).sum(axis=1)
    return np.clip(np.where(ratio > 0, (root - ratio) / (root - 1), np.nan), 0, 1)


def dead_atoms(codes: Any, dictionary: Any = None) -> np.ndarray:
    """Atoms (k,) without effect: no sample of `codes` (n, k) uses them, or they are 0 in `dictionary` (k, p).

    Raises:
        ValueError: no matrices, or of another number of atoms.
    """
    codes = _matrix("codes", codes)
    dead = ~codes.any(axis=0)
    if dictionary is not None:
        dictionary = _matrix("dictionary", dictionary)
        if len(dictionary) != codes.shape[1]:
            raise ValueError(f"codes have {codes.shape[1]} columns and the dictionary {len(dictionary)} rows")
        dead |= ~dictionary.any(axis=1)
    return dead


def duplicate_atoms(dictionary: Any, cosine: float = 0.99) -> np.ndarray:
    """Pairs of atoms (m, 2), the lower number first, that are the same up to length: of at least this `cosine`.

    Raises:
        ValueError: no matrix, a cosine outside (0, 1].
    """
    limit = check_number("cosine", cosine, 0, 1, above=True)
    # A cosine of 1 is there up to rounding.
    return np.argwhere(np.triu(cosines(dictionary, dictionary) >= limit - 1e-12, 1))


def energies(codes: Any, dictionary: Any) -> np.ndarray:
    """What each concept adds to the mean reconstruction (k,): ||mean(z_j) d_j||, as overcomplete's energy of codes.

    Raises:
        ValueError: no matrices, or of another number of atoms.
    """
    codes, dictionary = _matrix("codes", codes), _matrix("dictionary", dictionary)
    if len(dictionary) != codes.shape[1]:
        raise ValueError(f"codes have {codes.shape[1]} columns and the dictionary {len(dictionary)} rows")
    return np.abs(codes.mean(axis=0)) * np.linalg.norm(dictionary, axis=1)


def _matrix(name: str, x: Any) -> np.ndarray:
    x = arrays.to_numpy(x, np.float64)
    if x.ndim != 2 or not x.size:
        raise ValueError(f"{name} has shape {x.shape}; it must be a matrix with at least one entry")
    return x
