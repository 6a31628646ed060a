"""Every wrong argument of the core is a ValueError that says what was given."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

from deepnmf_jax.core.checks import check_number
from deepnmf_jax.core.gradients import local_gradient
from deepnmf_jax.core.inference import infer, infer_checked
from deepnmf_jax.core.patches import extract_patches
from tests.core.test_inference import problem

X, W = problem()

VALUES = {
    "negative x": (X.at[0, 0].add(-1), W, "x has 1 negative entries"),
    "negative w": (X, W.at[0, 0].add(-1), "w has 1 negative entries"),
    "nan in x": (X.at[0, 0].set(jnp.nan), W, "x has 1 entries that are NaN"),
    "infinite w": (X, W.at[0, 0].set(jnp.inf), "w has 1 entries that are NaN or inf"),
    "unnormalised x": (X.at[2].multiply(2), W, "x has 1 rows whose sum is neither 1 nor 0"),
    "unnormalised w": (X, W.at[:2].multiply(0.5), "w has 2 rows whose sum is neither 1 nor 0"),
}
SHAPES = {
    "w of rank 1": (X, W[0], {}, r"w has shape \(20,\)"),
    "other inputs": (X[:, :-1], W, {}, "last axis of both"),
    "no units": (X, W[:0], {}, "at least one unit"),
    "whole numbers": (jnp.ones((2, 20), int), W, {}, "x has dtype int64"),
    "float16": (X.astype("float16"), W, {}, "x has dtype float16"),
    "num_iters 0": (X, W, {"num_iters": 0}, "num_iters = 0"),
    "num_iters 2.5": (X, W, {"num_iters": 2.5}, "num_iters = 2.5"),
    "epsilon 0": (X, W, {"epsilon": 0.0}, "epsilon = 0.0"),
    "epsilon above 1": (X, W, {"epsilon": 1.5}, "epsilon = 1.5"),
    "gradient": (X, W, {"gradient": "exact"}, "gradient = 'exact' is unknown; use one of 'approximate'"),
    "cg_steps": (X, W, {"gradient": "implicit", "cg_steps": -1}, "cg_steps = -1"),
    "acceleration": (
        X,
        W,
        {"acceleration": "power"},
        "acceleration = 'power' is unknown; use one of 'none', 'adaptive'",
    ),
    "exponent": (X, W, {"acceleration": "multistep", "exponent": 0.5}, "exponent = 0.5, but .* at least 1"),
    "tolerance": (X, W, {"tolerance": -1e-3}, "tolerance = -0.001, but .* at least 0"),
    "products": (X, W, {"products": "float16"}, "products = 'float16' is unknown; use one of 'full', 'tf32'"),
    "small accelerated steps": (X, W, {"acceleration": "adaptive", "epsilon": 0.5}, "need epsilon = 1"),
    "unrolled stopping": (X, W, {"tolerance": 0.1, "gradient": "unrolled"}, "use tolerance = 0, or another gradient"),
}


@pytest.mark.parametrize("case", VALUES)
def test_wrong_values_are_named(case):
    x, w, message = VALUES[case]
    with pytest.raises(ValueError, match=message):
        infer(x, w)


@pytest.mark.parametrize("case", SHAPES)
def test_wrong_shapes_and_settings_are_named_also_under_jit(case):
    x, w, settings, message = SHAPES[case]
    with pytest.raises(ValueError, match=message):
        infer(x, w, **settings)
    with pytest.raises(ValueError, match=message):
        jax.jit(lambda x, w: infer(x, w, **settings))(x, w)


@pytest.mark.parametrize("case", VALUES)
def test_the_checkify_variant_finds_wrong_values_under_jit(case):
    x, w, message = VALUES[case]
    checked = checkify.checkify(jax.jit(infer_checked))
    error, _ = checked(x, w)
    assert error.get() is not None and error.get().split()[0] == message.split()[0]
    error, h = checked(X, W)
    assert error.get() is None
    assert jnp.array_equal(h, infer(X, W))


def test_values_are_not_looked_at_under_jit():
    assert jax.jit(infer)(X.at[2].multiply(2), W).shape == (6, 5)


def test_tolerance_of_the_row_sums():
    infer(X * (1 + 0.9e-3), W)
    infer((X * (1 + 9e-3)).astype(jnp.bfloat16), W.astype(jnp.bfloat16))
    with pytest.raises(ValueError, match="neither 1 nor 0"):
        infer(X * (1 + 2e-3), W)


ANY, POSITIVE = {"smallest": -np.inf}, {"smallest": 0, "above": True}
SHARE, SMALL = {"smallest": 0, "largest": 1, "below": True}, {"largest": 2.5}
NO_NUMBERS = (True, np.True_, np.array(True), "0.5", None, 0.5j, [0.5], np.array([0.5]), np.nan, jnp.asarray(jnp.nan))


@pytest.mark.parametrize(
    "allowed, values",
    [
        (SHARE, (0, 0.999, np.float32(0.5), np.int8(0), np.array(0.5), jnp.bfloat16(0.5))),
        (POSITIVE, (1e-300, 10**400, jnp.asarray(3))),
        (SMALL, (2.5, -7)),
        (ANY, (0, 1e300)),
    ],
)
def test_numbers_that_are_allowed(allowed, values):
    for value in values:
        check_number("x", value, **allowed)


@pytest.mark.parametrize(
    "allowed, values, range_",
    [
        (SHARE, (1, -1e-9, *NO_NUMBERS), "number in [0, 1)"),
        ({"smallest": 0, "largest": 1, "above": True}, (0, 1.5), "number in (0, 1]"),
        (POSITIVE, (0.0, np.inf), "number above 0"),
        ({"smallest": 0}, (-1,), "number of at least 0"),
        (SMALL, (3, -np.inf), "number of at most 2.5"),
        ({**SMALL, "below": True}, (2.5,), "number below 2.5"),
        (ANY, (np.inf, "1"), "finite number"),
    ],
)
def test_numbers_that_are_refused(allowed, values, range_):
    for value in values:
        with pytest.raises(ValueError, match=re.escape(f"x = {value!r}, but it must be a {range_}")):
            check_number("x", value, **allowed)


def test_a_traced_number_is_refused():
    with pytest.raises(ValueError, match=r"x = .*Trace.*, but it must be a number in \[0, 1\)"):
        jax.jit(lambda x: check_number("x", x, **SHARE))(0.5)


def test_unknown_local_rule():
    with pytest.raises(ValueError, match="'hebb' is unknown"):
        local_gradient(X, W, infer(X, W), "hebb")


@pytest.mark.parametrize(
    "shape, settings, message",
    [
        ((5, 3), {}, "needs 2 spatial axes"),
        ((4, 4, 3), {"strides": (1, 1, 1)}, "strides"),
        ((4, 4, 3), {"strides": 0}, "strides"),
        ((4, 4, 3), {"padding": "CIRCULAR"}, "padding"),
        ((4, 4, 3), {"padding": -1}, "padding"),
        ((2, 4, 3), {}, "does not fit"),
        ((4, 4, 3), {"kernel_dilation": 2}, "does not fit"),
    ],
)
def test_wrong_patches(shape, settings, message):
    with pytest.raises(ValueError, match=message):
        extract_patches(jnp.ones(shape), (3, 3), **settings)
