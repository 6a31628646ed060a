"""Importance of concepts: against finite differences, known answers and plain loops."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepnmf_jax.decomposition.importance import (
    KINDS,
    Head,
    gradient_importance,
    jansen,
    sobol_importance,
    sobol_masks,
)

# What is known of Ishigami's function with a = 7 and b = 0.1 (Ishigami and Homma 1990).
A, B = 7.0, 0.1
VARIANCE = A**2 / 8 + B * np.pi**4 / 5 + B**2 * np.pi**8 / 18 + 0.5
FIRST = np.array([0.5 * (1 + B * np.pi**4 / 5) ** 2, A**2 / 8, 0]) / VARIANCE
INTERACTION = B**2 * np.pi**8 * (1 / 18 - 1 / 50) / VARIANCE
TOTAL = FIRST + INTERACTION * np.array([1, 0, 1])


def ishigami(codes: np.ndarray) -> np.ndarray:
    x = np.pi * (2 * codes - 1)
    return np.sin(x[:, 0]) + A * np.sin(x[:, 1]) ** 2 + B * x[:, 2] ** 4 * np.sin(x[:, 0])


def network(seed: int, k: int, positions: bool) -> Head:
    """A head of two layers with three classes, on codes (n, k) or (n, 2, 2, k)."""
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=((4 if positions else 1) * k, 6)), rng.normal(size=(6, 3))
    return lambda z: jnp.tanh(z.reshape(len(z), -1) @ first) @ second


def test_the_known_indices_of_a_function_are_found() -> None:
    assert pytest.approx(13.8446, abs=1e-4) == VARIANCE
    found = sobol_importance(ishigami, np.ones((2, 3)), designs=4096)
    np.testing.assert_allclose(found.total, np.tile(TOTAL, (2, 1)), atol=0.01)
    np.testing.assert_allclose(found.first, np.tile(FIRST, (2, 1)), atol=0.02)
    np.testing.assert_allclose(found.variance, VARIANCE, rtol=0.01)
    few = sobol_importance(ishigami, np.ones((1, 3)), designs=64)
    assert np.abs(few.total - TOTAL).max() > np.abs(found.total - TOTAL).max()


def test_of_a_linear_score_both_ways_have_the_known_answer() -> None:
    rng = np.random.default_rng(0)
    codes, weights = rng.random((5, 4)), rng.normal(size=(4, 3))
    codes[:, 1] = 0
    classes = np.array([0, 2, 1, 1, 0])
    added = codes * weights[:, classes].T
    for kind in ("gradient_times_code", "integrated"):
        np.testing.assert_allclose(gradient_importance(lambda z: z @ weights, codes, classes, kind), added, rtol=1e-5)
    shares = added**2 / np.sum(added**2, axis=1, keepdims=True)
    found = sobol_importance(lambda z: z @ weights, codes, classes, designs=1024)
    np.testing.assert_allclose(found.total, shares, atol=0.01)
    np.testing.assert_allclose(found.first, shares, atol=0.01)
    assert (found.total[:, 1] == 0).all()


@pytest.mark.parametrize("positions", [False, True])
def test_gradients_are_finite_differences(positions: bool) -> None:
    rng = np.random.default_rng(1)
    codes = rng.random((3, 2, 2, 4) if positions else (3, 4))
    head, classes, step = network(2, 4, positions), np.array([0, 1, 2]), 1e-5

    def score(z: np.ndarray) -> np.ndarray:
        return np.asarray(head(z))[np.arange(3), classes]

    found = {kind: gradient_importance(head, codes, classes, kind, steps=64) for kind in KINDS}
    for j in range(4):
        mask = np.ones(4)
        mask[j] += step
        by_strength = (score(codes * mask) - score(codes * (2 - mask))) / (2 * step)
        np.testing.assert_allclose(found["gradient_times_code"][:, j], by_strength, rtol=1e-6, atol=1e-8)
        change = np.zeros(4)
        change[j] = step
        by_addition = (score(codes + change) - score(codes - change)) / (2 * step)
        np.testing.assert_allclose(found["gradient"][:, j], by_addition, rtol=1e-6, atol=1e-8)
        along = []
        for t in (np.arange(64) + 0.5) / 64:
            up, down = t * codes, t * codes
            up[..., j] += step * codes[..., j]
            down[..., j] -= step * codes[..., j]
            along.append((score(up) - score(down)) / (2 * step))
        np.testing.assert_allclose(found["integrated"][:, j], np.mean(along, axis=0), rtol=1e-5, atol=1e-7)
    assert found["gradient"].shape == (3, 4)


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 10**6), st.integers(1, 5), st.booleans())
def test_integrated_gradients_add_up_to_the_score(seed: int, k: int, positions: bool) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.random((2, 2, 2, k) if positions else (2, k))
    head = network(seed, k, positions)
    found = gradient_importance(head, codes, 1, "integrated", steps=400)
    np.testing.assert_allclose(found.sum(axis=1), (head(codes) - head(np.zeros_like(codes)))[:, 1], atol=1e-3)


def test_jansens_estimators_are_those_of_a_plain_loop() -> None:
    masks = sobol_masks(3, 8, 5)
    codes = np.random.default_rng(0).random((2, 3))
    head = network(3, 3, False)
    found = sobol_importance(head, codes, 2, designs=8, random_state=5)
    a, b, mixed = masks[:8], masks[8:16], masks[16:].reshape(3, 8, 3)
    for i, z in enumerate(codes):
        s_a, s_b = (np.asarray(head(z * m))[:, 2] for m in (a, b))
        variance = np.var([float(head(z[None] * m)[0, 2]) for m in masks])
        for j in range(3):
            point = a.copy()
            point[:, j] = b[:, j]
            np.testing.assert_array_equal(mixed[j], point)
            s_ab = np.asarray(head(z * point))[:, 2]
            assert found.total[i, j] == pytest.approx(np.mean((s_a - s_ab) ** 2) / (2 * variance), rel=1e-9)
            assert found.first[i, j] == pytest.approx(1 - np.mean((s_b - s_ab) ** 2) / (2 * variance), rel=1e-9)


def test_a_concept_is_masked_at_all_positions_together() -> None:
    rng = np.random.default_rng(0)
    maps, weights = rng.random((2, 3, 3, 4)), rng.normal(size=4)
    found = sobol_importance(lambda z: z.sum(axis=(1, 2)) @ weights, maps, designs=64)
    summed = sobol_importance(lambda z: z @ weights, maps.sum(axis=(1, 2)), designs=64)
    np.testing.assert_allclose(found.total, summed.total, rtol=1e-9)


def test_batches_and_seeds() -> None:
    codes, head = np.random.default_rng(0).random((3, 4)), network(0, 4, False)
    sizes = []

    def watched(z: np.ndarray) -> np.ndarray:
        sizes.append(len(z))
        return np.asarray(head(z))

    whole = sobol_importance(head, codes, 0)
    parts = sobol_importance(watched, codes, 0, batch=50)
    np.testing.assert_allclose(parts.total, whole.total, rtol=1e-12)
    assert max(sizes) == 50 and sum(sizes) == 3 * 32 * 6
    assert (sobol_importance(head, codes, 0, random_state=1).total != whole.total).any()


def test_a_score_that_does_not_vary_has_no_importance() -> None:
    found = sobol_importance(lambda z: np.full(len(z), 3.0), np.ones((2, 3)))
    assert not found.total.any() and not found.first.any()
    assert not jansen(np.zeros((1, 4 * 5)), 4).total.any()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"codes": np.ones(3)}, "n, ..., k"),
        ({"codes": np.ones((2, 3)) * 1j}, "real"),
        ({"classes": np.ones(2)}, "whole number"),
        ({"classes": np.zeros(3, int)}, "2, one a sample"),
        ({"classes": 3}, "head has 0 to 2"),
        ({"classes": None}, "which class counts"),
        ({"head": lambda z: z[0]}, "head gives scores of shape"),
    ],
)
def test_bad_arguments(arguments: dict, said: str) -> None:
    given = {"head": network(0, 3, False), "codes": np.ones((2, 3)), "classes": 0} | arguments
    for importance in (gradient_importance, sobol_importance):
        with pytest.raises(ValueError, match=said):
            importance(**given)


def test_bad_settings() -> None:
    head, codes = network(0, 3, False), np.ones((2, 3))
    with pytest.raises(ValueError, match="power of 2"):
        sobol_importance(head, codes, 0, designs=48)
    with pytest.raises(ValueError, match="kind"):
        gradient_importance(head, codes, 0, "saliency")
