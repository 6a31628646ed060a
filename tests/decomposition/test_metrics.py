"""Dictionaries in numbers, against plain loops and what is known."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepnmf_jax.decomposition.metrics import (
    cosines,
    dead_atoms,
    dictionary_stability,
    directions,
    duplicate_atoms,
    energies,
    hoyer,
    match_atoms,
)


def dictionary(seed: int, k: int, p: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.random((k, p)) * (rng.random((k, p)) > 0.3) + 1e-3


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(2, 6))
def test_order_and_length_of_atoms_do_not_matter(seed: int, k: int, p: int) -> None:
    d, rng = dictionary(seed, k, p), np.random.default_rng(seed)
    order = rng.permutation(k)
    other = (d * 2.0 ** rng.integers(-600, 400, (k, 1)))[order]
    found = match_atoms(d, other)
    np.testing.assert_allclose(found.cosines, 1, atol=1e-12)
    np.testing.assert_allclose(cosines(d, other)[found.first, found.second], found.cosines)
    np.testing.assert_allclose(dictionary_stability([d, other]), 1, atol=1e-12)
    np.testing.assert_allclose(hoyer(other), hoyer(d)[order], atol=1e-12)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 5))
def test_the_matching_is_the_best_of_all(seed: int, few: int, many: int) -> None:
    first, second = dictionary(seed, few, 4), dictionary(seed + 1, many, 4)
    alike = np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in second] for a in first])
    np.testing.assert_allclose(cosines(first, second), alike, rtol=1e-12)
    if few <= many:
        best = max(sum(alike[i, j] for i, j in enumerate(p)) for p in itertools.permutations(range(many), few))
    else:
        best = max(sum(alike[i, j] for j, i in enumerate(p)) for p in itertools.permutations(range(few), many))
    found = match_atoms(first, second)
    assert found.cosines.sum() == pytest.approx(best) and len(found.cosines) == min(few, many)


def test_hoyer_from_one_entry_to_all() -> None:
    x = np.array([[0.0, -3.0, 0.0, 0.0], [2.0, 2.0, 2.0, 2.0], [3.0, 4.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    np.testing.assert_allclose(hoyer(x), [1, 0, (2 - 7 / 5) / (2 - 1), np.nan])
    with pytest.raises(ValueError, match="two entries"):
        hoyer(np.ones((3, 1)))


def test_dead_and_duplicate_atoms() -> None:
    d = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [3.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 1.1, 0.0]])
    codes = np.ones((2, 5))
    codes[:, 3] = 0
    assert dead_atoms(codes).tolist() == [False, False, False, True, False]
    assert dead_atoms(codes, d).tolist() == [False, True, False, True, False]
    assert duplicate_atoms(d).tolist() == [[0, 2], [3, 4]]
    assert duplicate_atoms(d, 1.0).tolist() == [[0, 2]]
    np.testing.assert_allclose(energies(codes * [[1.0], [3.0]], d), [2, 0, 6, 0, 2 * np.sqrt(2.21)])


def test_arrays_of_every_kind_and_their_mistakes() -> None:
    d = dictionary(0, 3, 4)
    for other in (jnp.asarray(d), d.tolist(), d.astype(np.float32)):
        np.testing.assert_allclose(cosines(d, other).diagonal(), 1, atol=1e-6)
    np.testing.assert_array_equal(directions(np.zeros((2, 3))), np.zeros((2, 3)))
    for broken in (lambda: cosines(d, d[:, 1:]), lambda: cosines(d, d[0]), lambda: dictionary_stability([d])):
        with pytest.raises(ValueError, match=r"features|matrix|at least two"):
            broken()
    for broken in (lambda: dead_atoms(np.ones((5, 2)), d), lambda: energies(np.ones((5, 2)), d)):
        with pytest.raises(ValueError, match="2 columns and the dictionary 3 rows"):
            broken()
    with pytest.raises(ValueError, match="cosine"):
        duplicate_atoms(d, 2)
