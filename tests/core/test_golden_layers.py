"""The NMF layer against the golden files: values computed with the authors' code in float64.

Errors are measured relative to the expected array (x, w) or row (p, u). Where a gradient cancels (k = 1, n = 1, one-hot
inputs) it is measured against the largest of the terms that cancel, as the golden README asks.
"""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepnmf_jax.core.divergences import certificate, kl_divergence
from deepnmf_jax.core.gradients import implicit_adjoint, with_local_gradient
from deepnmf_jax.core.inference import infer
from deepnmf_jax.core.normalization import normalize_patches, normalize_weights
from tests.conftest import load_golden

RELATIVE = {"float64": 1e-11, "float32": 5e-5}
CANCELLED = {"float64": 1e-12, "float32": 1e-5}


# In the quick tests float64 alone: each type compiles every file's programs anew.
@pytest.fixture(params=["float64", pytest.param("float32", marks=pytest.mark.slow)])
def dtype(request):
    return request.param


@pytest.fixture
def golden(layer_file):
    return load_golden(layer_file)


def layer(p, u, rule=None, **settings):
    x, w = normalize_patches(p), normalize_weights(u)
    if rule is None:
        return infer(x, w, **settings)
    return with_local_gradient(infer(x, jax.lax.stop_gradient(w), **settings), x, w, rule)


@cache
def evaluate(layer_file, dtype):
    """h of a golden file's layer, and the gradients of sum(g h) with respect to p, u, x and w, for each way to
    take them.

    One compiled program a file: compilation is most of this module's time.
    """
    golden = load_golden(layer_file)
    settings = {"num_iters": int(golden["num_iters"]), "epsilon": float(golden["epsilon_paper"])}
    ways = {"approximate": {}, "unrolled": {"gradient": "unrolled"}, "kl": {"rule": "kl"}, "mse": {"rule": "mse"}}

    @jax.jit
    def run(p, u, g):
        units = normalize_patches(p), normalize_weights(u)
        gradients = {}
        for way, choice in ways.items():
            h, vjp = jax.vjp(partial(layer, **choice, **settings), p, u)
            gradients[way] = dict(zip("pu", vjp(g), strict=True))
            if "rule" not in choice:
                _, vjp_unit = jax.vjp(partial(infer, **choice, **settings), *units)
                gradients[way] |= dict(zip("xw", vjp_unit(g), strict=True))
        return h, gradients

    return run(*(jnp.asarray(golden[name], dtype) for name in "pug"))


def cancelling_terms(golden, name):
    """Per row, the largest of the terms whose difference is the gradient with respect to p or u (or w, as a whole)."""
    p, u, g = golden["p"], golden["u"], golden["g"]
    x, w = np.asarray(normalize_patches(p)), np.asarray(normalize_weights(u))
    h = golden["h"]
    r = h @ w + 1e-20
    terms = {"x": np.abs(h * g) @ w / r, "w": np.abs(h * g).T @ (x / r)}
    if name in terms:
        return np.abs(terms[name]).max()
    largest, sums = (terms["x"], p) if name == "p" else (terms["w"], np.abs(u))
    sums = sums.sum(-1)
    return largest.max(-1) / np.where(sums > 0, sums, 1)


def cancels(golden):
    return golden["u"].shape[0] == 1 or golden["p"].shape[1] == 1 or (np.count_nonzero(golden["p"], axis=1) <= 1).all()


def assert_gradient(name, value, expected, golden, dtype, relative=None):
    assert value.dtype == dtype
    value = np.asarray(value, np.float64)
    assert np.isfinite(value).all()
    axis = -1 if name in ("p", "u") and relative is None else None
    stored = 1e-6 if expected.dtype == np.float32 else 0
    allowed = max(relative or RELATIVE[dtype], stored) * np.linalg.norm(expected, axis=axis)
    if cancels(golden):
        allowed = np.maximum(allowed, CANCELLED[dtype] * cancelling_terms(golden, name) * np.sqrt(value.shape[-1]))
    assert (np.linalg.norm(value - expected, axis=axis) <= allowed).all()


def test_normalisations(golden):
    for ours, name in ((normalize_patches(golden["p"]), "x"), (normalize_weights(golden["u"]), "w")):
        if name in golden:
            np.testing.assert_allclose(ours, golden[name], rtol=1e-14, atol=0)


def test_activities(layer_file, golden, dtype):
    h = np.asarray(evaluate(layer_file, dtype)[0], np.float64)
    if dtype == "float64":
        np.testing.assert_allclose(h, golden["h"], rtol=1e-11, atol=1e-13)
        return
    error = np.abs(h - golden["h"])
    assert error.max() <= 5e-6
    assert error.sum(-1).max() <= 1e-5
    large = golden["h"] > 1e-6
    assert (error[large] / golden["h"][large]).max() <= (1e-4 if golden["num_iters"] > 35 else 5e-5)


def test_divergence_and_certificate(golden):
    @jax.jit
    def run(p, u, h):
        x, w = normalize_patches(p), normalize_weights(u)
        return {"kl": kl_divergence(x, w, h), "certificate": certificate(x, w, h)}

    for name, ours in run(*(jnp.asarray(golden[name]) for name in "puh")).items():
        ours, expected = np.asarray(ours), golden[name]
        defined = np.isfinite(expected)
        np.testing.assert_allclose(ours[defined], expected[defined], rtol=1e-11, atol=1e-13)
        np.testing.assert_array_equal(ours[~defined], 0)


def test_approximate_gradient(layer_file, golden, dtype):
    for name, value in evaluate(layer_file, dtype)[1]["approximate"].items():
        if f"grad_{name}" in golden:
            assert_gradient(name, value, golden[f"grad_{name}"], golden, dtype)


def test_unrolled_gradient(layer_file, golden, dtype):
    for name, value in evaluate(layer_file, dtype)[1]["unrolled"].items():
        if f"unrolled_grad_{name}" in golden:
            assert_gradient(name, value, golden[f"unrolled_grad_{name}"], golden, dtype)


def test_implicit_gradient_at_the_optimum(layer_file, golden):
    valid = golden["implicit_valid"]
    if not valid.any():
        pytest.skip("no sample of this file has a unique optimum")
    golden = golden | {name: golden[name][valid] for name in ("p", "g")} | {"h": golden["implicit_h"][valid]}

    @jax.jit
    def run(p, u, g, h):
        (x, chain_p), (w, chain_u) = jax.vjp(normalize_patches, p), jax.vjp(normalize_weights, u)
        grad_x, grad_w = implicit_adjoint(x, w, h, g, cg_steps=80)
        return {"x": grad_x, "w": grad_w, "p": chain_p(grad_x)[0], "u": chain_u(grad_w)[0]}

    for name, value in run(*(jnp.asarray(golden[name], "float64") for name in "pugh")).items():
        if f"implicit_grad_{name}" in golden:
            expected = golden[f"implicit_grad_{name}"]
            relative = 1e-4 if golden["h"].dtype == np.float32 else None
            assert_gradient(name, value, expected[valid] if name in "xp" else expected, golden, "float64", relative)


@pytest.mark.parametrize("rule", ["kl", "mse"])
def test_local_rules(layer_file, golden, rule, dtype):
    gradients = evaluate(layer_file, dtype)[1][rule]
    if "grad_p" in golden:
        assert_gradient("p", gradients["p"], golden["grad_p"], golden, dtype)
    if f"local_{rule}_grad_u" in golden:
        expected = golden[f"local_{rule}_grad_u"]
        rows = np.abs(golden["u"]).sum(-1)
        terms = np.abs(golden[f"local_{rule}_grad_w"]).max(-1) / np.where(rows > 0, rows, 1)
        allowed = np.maximum(RELATIVE[dtype] * np.linalg.norm(expected, axis=-1), CANCELLED[dtype] * terms)
        assert (np.linalg.norm(np.asarray(gradients["u"]) - expected, axis=-1) <= allowed).all()


@pytest.mark.parametrize("rule", ["kl", "mse"])
def test_local_weight_gradients(golden, rule, dtype):
    if f"local_{rule}_grad_w" not in golden or "x" not in golden:
        pytest.skip("this file keeps a reduced set of keys")
    x, w, h, g = (jnp.asarray(golden[name], dtype) for name in ("x", "w", "h", "g"))
    grad_w = jax.jit(jax.vjp(lambda w: with_local_gradient(h, x, w, rule), w)[1])(g)[0]
    expected = golden[f"local_{rule}_grad_w"]
    terms = 1.0 if rule == "kl" else 2 * np.linalg.norm(golden["h"].T @ golden["x"])
    allowed = max(RELATIVE[dtype] * np.linalg.norm(expected), CANCELLED[dtype] * terms)
    assert np.linalg.norm(np.asarray(grad_w) - expected) <= allowed
