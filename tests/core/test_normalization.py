"""Rows that sum to 1: in any unit, of any kind of array, differentiated in both modes and twice."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepnmf_jax.core.divergences import certificate, kl_divergence, residual
from deepnmf_jax.core.gradients import approximate_adjoint
from deepnmf_jax.core.normalization import normalize_patches, normalize_weights

BOTH = (normalize_patches, normalize_weights)
RAW = np.random.default_rng(0).uniform(0.1, 1, (5, 7))
# The largest entries are next to the largest number, the smallest ones next to the smallest normal number.
UNITS = {
    "float64": (1e300, 1.7e308, 1e-17, 1e-100, 1e-306),
    "float32": (1e20, 3.3e38, 1e-15, 1e-19, 1.2e-37),
    "bfloat16": (1e20, 3e38, 1e-19, 1.2e-37),
    "float16": (65504, 1e-3),
}


@jax.jit
def with_gradient(p, g):
    """x and the gradient of sum(g x) for both functions."""
    return [(x, vjp(g)[0]) for x, vjp in (jax.vjp(normalize, p) for normalize in BOTH)]


@pytest.mark.parametrize("dtype", UNITS)
def test_any_unit(dtype):
    g = jnp.asarray(np.random.default_rng(1).normal(size=RAW.shape), dtype)
    rounding = float(jnp.finfo(dtype).eps)
    for unit in UNITS[dtype]:
        given = np.asarray(jnp.asarray(RAW * unit, dtype)).astype(np.float64)
        expected = given / 2.0**1000 if dtype == "float64" and unit > 1e10 else given
        expected = expected / expected.sum(-1, keepdims=True)
        for x, gradient in with_gradient(jnp.asarray(given, dtype), g):
            assert x.dtype == dtype
            np.testing.assert_allclose(np.asarray(x).astype(np.float64), expected, rtol=8 * rounding)
            cotangent = np.asarray(g).astype(np.float64)
            back = cotangent - (cotangent * expected).sum(-1, keepdims=True)
            with np.errstate(over="ignore"):
                exact = back / given.sum(-1, keepdims=True)
            # The gradient itself may be no number of the type.
            if 1e-30 < unit < 1e30:
                np.testing.assert_allclose(
                    np.asarray(gradient).astype(np.float64), exact, rtol=0.1, atol=64 * rounding * np.abs(exact).max()
                )


def test_rows_of_one_array_have_units_of_their_own():
    rows = jnp.asarray(RAW * np.array([[1e30], [1], [1e-30], [3e38], [1e-37]]), "float32")
    for normalize in BOTH:
        np.testing.assert_allclose(jax.jit(normalize)(rows).sum(-1), 1, rtol=1e-6)


def test_smaller_numbers_than_normal_ones_are_refused_or_nothing_beside_others():
    tiny = np.full((2, 3), 1e-39, np.float32)
    for normalize in BOTH:
        with pytest.raises(ValueError, match=r"below 1\.18e-38 are taken as 0: multiply"):
            normalize(tiny)
        np.testing.assert_array_equal(jax.jit(normalize)(tiny), 0)
        x = normalize(np.float32([[1, 1e-39, 1]]))
        np.testing.assert_allclose(x, [[0.5, 0, 0.5]], atol=1e-38)
        np.testing.assert_array_equal(normalize(np.zeros((2, 3))), 0)


def test_sums_whose_inverse_is_no_normal_number():
    """XLA multiplies with the inverse, and takes it for 0."""
    rows = np.float32([[3, 1], [1.5, 0.5], [1, 0]])
    for dtype in ("float32", "float64"):
        largest = np.ldexp(1.0, int(np.finfo(dtype).maxexp) - 2).astype(dtype)
        for normalize in (*BOTH, *map(jax.jit, BOTH)):
            np.testing.assert_allclose(normalize(rows.astype(dtype) * largest), [[0.75, 0.25]] * 2 + [[1, 0]])


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "bool"])
def test_whole_numbers_are_floats(dtype):
    counts = np.array([[3, 0, 120], [1, 1, 0]]).astype(dtype)
    for normalize in BOTH:
        x = normalize(counts)
        assert x.dtype == jnp.float32
        np.testing.assert_allclose(x, counts / counts.sum(-1, dtype=float, keepdims=True), rtol=1e-6)
    w = normalize_weights(np.array([[-128, 64], [3, -1]], "int8"))
    np.testing.assert_allclose(w, [[2 / 3, 1 / 3], [0.75, 0.25]], rtol=1e-6)
    assert normalize_patches([[1, 3]]).tolist() == [[0.25, 0.75]]


def test_divergences_and_adjoints_of_whole_numbers():
    """A one-hot input is often written in integers."""
    x, w, h = np.eye(3, dtype=int), np.full((2, 3), 1 / 3), np.full((3, 2), 0.5)
    for f in (kl_divergence, certificate, residual):
        np.testing.assert_allclose(f(x, w, h), f(x.astype(float), w, h), rtol=1e-6)
    for ours, expected in zip(approximate_adjoint(x, w, h, h), approximate_adjoint(x + 0.0, w, h, h), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_complex_numbers_are_refused():
    for normalize in BOTH:
        with pytest.raises(ValueError, match="has dtype complex128; it must hold real numbers"):
            normalize(np.ones((2, 3), complex))


@pytest.mark.parametrize("normalize", BOTH)
def test_forward_mode_reverse_mode_and_second_derivatives_agree_with_differences(normalize):
    p = RAW.copy()
    p[1] = 0
    p[2, 3] = 0
    if normalize is normalize_weights:
        p = p * np.where(np.random.default_rng(2).random(p.shape) < 0.5, -1, 1)
    p, d = jnp.asarray(p), jnp.asarray(np.random.default_rng(3).normal(size=p.shape)) * (p != 0)

    @jax.jit
    def derivatives(p):
        def f(p):
            return jnp.sum(jnp.sin(3 * normalize(p)))

        first = jax.jacfwd(normalize)(p), jax.jacrev(normalize)(p)
        return *first, jax.jvp(normalize, (p,), (d,))[1], jax.hessian(f)(p), jax.jacrev(jax.grad(f))(p), jax.grad(f)(p)

    forward, reverse, along, hessian, twice, _ = derivatives(p)
    np.testing.assert_allclose(forward, reverse, atol=1e-14)
    np.testing.assert_allclose(along, jnp.tensordot(forward, d, 2), atol=1e-13)
    np.testing.assert_allclose(hessian, twice, atol=1e-12)
    step = 1e-6
    before, after = (derivatives(p + s * d) for s in (-step, step))
    np.testing.assert_allclose(along, (normalize(p + step * d) - normalize(p - step * d)) / (2 * step), atol=1e-8)
    np.testing.assert_allclose(jnp.tensordot(hessian, d, 2), (after[-1] - before[-1]) / (2 * step), atol=1e-6)
    assert float(jnp.abs(along[0]).max()) > 0.01
    np.testing.assert_array_equal(along[1], 0)


def test_neither_direction_sums_rows_but_by_products():
    """XLA's CPU backend is slow at sums of short rows."""
    rows = jax.ShapeDtypeStruct((1000, 75), jnp.float32)
    text = jax.jit(lambda p, g: jax.vjp(normalize_patches, p)[1](g)).lower(rows, rows).as_text()
    sums = [line for line in text.splitlines() if "applies stablehlo.add" in line]
    assert text.count("stablehlo.dot_general") == 3 and all("tensor<1000x1xf32>" in line for line in sums)


def test_vmap_is_the_same_function():
    stacked = jnp.asarray(np.stack([RAW, 2 * RAW]))
    for normalize in BOTH:
        np.testing.assert_allclose(jax.vmap(partial(normalize))(stacked), normalize(stacked), rtol=1e-15)
