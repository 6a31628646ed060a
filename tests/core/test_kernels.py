"""The fused kernel, run by Pallas's interpreter, against the golden files and the plain path, in float32."""

from functools import cache, partial

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepnmf_jax.core.divergences import kl_divergence
from deepnmf_jax.core.inference import infer
from deepnmf_jax.core.kernels.tiles import forward_tiles
from deepnmf_jax.core.normalization import normalize_patches, normalize_weights
from deepnmf_jax.layers import NMFConv, NMFDense, NMFPool
from deepnmf_jax.models import Network
from tests.conftest import load_golden

AGREEMENT = 1e-5  # of the largest element
# Compilation is nearly all of this module's time.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def problem(rows=37, n=41, k=5, seed=0):
    """Inputs with a black row, and units with a dead one."""
    rng = np.random.default_rng(seed)
    p, u = rng.gamma(0.5, size=(rows, n)), rng.normal(size=(k, n))
    p[rows // 2 : rows // 2 + (rows > 1)] = 0
    u[k // 2 : k // 2 + (k > 1)] = 0
    return normalize_patches(jnp.asarray(p, "float32")), normalize_weights(jnp.asarray(u, "float32"))


def run(x, w, implementation, **choice):
    return jit(partial(infer, implementation=implementation, **choice))(x, w)


def with_gradients(x, w, implementation, **choice):
    """h, and the gradients of x and w."""

    @jit
    def all_three(x, w):
        h, vjp = jax.vjp(partial(infer, implementation=implementation, **choice), x, w)
        return h, *vjp(jnp.cos(jnp.arange(h.size, dtype=h.dtype)).reshape(h.shape))

    return all_three(x, w)


def assert_agrees(ours, expected, smallest=0.0, agreement=AGREEMENT):
    assert ours.dtype == jnp.float32 and ours.shape == expected.shape
    difference = np.abs(np.asarray(ours, np.float64) - expected).max(initial=0)
    assert difference <= agreement * max(np.abs(expected).max(initial=0), smallest)


@pytest.mark.slow
def test_golden_files(layer_file):
    golden = load_golden(layer_file)
    x, w = (normalize(jnp.asarray(golden[name], "float32")) for normalize, name in
            ((normalize_patches, "p"), (normalize_weights, "u")))  # fmt: skip
    choice = {"num_iters": int(golden["num_iters"]), "epsilon": float(golden["epsilon_paper"])}
    assert_agrees(run(x, w, "interpret", **choice), golden["h"])


@pytest.mark.slow
@settings(max_examples=5, deadline=None)
@given(shape=hnp.array_shapes(max_dims=3, max_side=9), n=st.integers(1, 130), k=st.integers(1, 40), seed=st.integers(0))
def test_any_shape(shape, n, k, seed):
    x, w = problem(int(np.prod(shape)), n, k, seed)
    x = x.reshape(*shape, n)
    assert_agrees(run(x, w, "interpret"), run(x, w, "xla"))


@pytest.mark.parametrize("rows, n, k", [(1, 1, 1), (1, 100, 1), (70, 7, 33)], ids=["one of each", "one unit", "tiles"])
def test_small_and_uneven_shapes(rows, n, k):
    x, w = problem(rows, n, k)
    assert_agrees(run(x, w, "interpret", num_iters=5), run(x, w, "xla", num_iters=5))


def test_no_rows_at_all():
    _, w = problem()
    h, grad_x, grad_w = with_gradients(jnp.zeros((0, 3, 41), "float32"), w, "interpret")
    assert h.shape == (0, 3, 5) and grad_x.shape == (0, 3, 41)
    np.testing.assert_array_equal(grad_w, np.zeros_like(w))


WIDTHS = {"resident": 41, "streamed": 100}
CHOICES = {
    "one iteration": ("streamed", {"num_iters": 1}),
    "damped": ("streamed", {"epsilon": 0.5}),
    "multistep": ("resident", {"acceleration": "multistep", "exponent": 3.0, "num_iters": 6}),
    "stopping": ("resident", {"tolerance": 0.05}),
    "stopping, multistep": (
        "streamed",
        {"acceleration": "multistep", "exponent": 3.0, "tolerance": 0.01, "num_iters": 30},
    ),
}


def test_which_variants_are_tested():
    assert forward_tiles(37, WIDTHS["resident"], 5).resident
    assert not forward_tiles(37, WIDTHS["streamed"], 5).resident


@cache
def activities(implementation, width, **choice):
    return run(*problem(n=WIDTHS[width]), implementation, **choice)


@pytest.mark.parametrize("case", CHOICES)
def test_settings_mean_what_they_mean_on_the_plain_path(case):
    width, choice = CHOICES[case]
    ours, plain = (activities(how, width, **choice) for how in ("interpret", "xla"))
    assert_agrees(ours, plain)
    assert np.abs(plain - activities("xla", width)).max() > 1e-3  # the setting does something
    np.testing.assert_array_equal(ours[18], 0)
    np.testing.assert_allclose(ours.sum(-1)[:18], 1, rtol=1e-6)


@pytest.mark.parametrize("choice", [{}, {"gradient": "scaled"}, {"gradient": "implicit", "cg_steps": 1}], ids=str)
def test_the_gradients_are_those_of_the_plain_path(choice):
    ours, plain = (with_gradients(*problem(), how, num_iters=5, **choice) for how in ("interpret", "xla"))
    for value, expected in zip(ours, plain, strict=True):
        assert_agrees(value, expected)


def test_long_steps_with_a_tolerance_end_as_low_as_the_plain_paths():
    # A step of 8 multiplies the rounding of log q by some 28, which the activities show, their divergence does not.
    x, w = problem(n=WIDTHS["streamed"])
    choice = {"acceleration": "multistep", "tolerance": 0.01, "num_iters": 30}
    ours, plain = (kl_divergence(x, w, activities(how, "streamed", **choice)) for how in ("interpret", "xla"))
    np.testing.assert_allclose(ours, plain, atol=1e-6)


def test_adaptive_exponents_are_as_good_as_the_plain_paths():
    # Exponents are powers of two: rounding can decide between two of them, so that a few rows may differ.
    x, w = problem(n=WIDTHS["resident"])
    ours, plain = (activities(how, "resident", acceleration="adaptive", num_iters=8) for how in ("interpret", "xla"))
    assert (np.abs(ours - plain).max(-1) <= AGREEMENT).mean() >= 0.8
    np.testing.assert_allclose(kl_divergence(x, w, ours), kl_divergence(x, w, plain), atol=1e-3)
    assert np.mean(kl_divergence(x, w, ours)) < np.mean(kl_divergence(x, w, activities("xla", "resident", num_iters=8)))


@pytest.mark.parametrize("products, rounding", [("tf32", 2**-11), ("bfloat16", 2**-8)])
def test_rounded_products(products, rounding):
    one, plain = (activities(how, "resident", num_iters=1, products=products) for how in ("interpret", "xla"))
    assert_agrees(one, plain)
    full = activities("xla", "resident", num_iters=1)
    assert rounding / 100 < np.abs(one - full).max() / full.max() < rounding
    # Further iterations magnify the last bits, by which a rounded number may fall one step lower or higher.
    ours, plain = (activities(how, "resident", products=products) for how in ("interpret", "xla"))
    assert_agrees(ours, plain, agreement=rounding)


def test_bfloat16_arrays():
    x, w = (a.astype(jnp.bfloat16) for a in problem())
    ours, rounded = run(x, w, "interpret"), run(x.astype("float32"), w.astype("float32"), "interpret")
    assert ours.dtype == jnp.bfloat16
    np.testing.assert_array_equal(ours, rounded.astype(jnp.bfloat16))


def test_several_seeds_by_vmap_and_their_gradients():
    seeds = [problem(seed=seed) for seed in range(2)]
    x, w = (jnp.stack(arrays) for arrays in zip(*seeds, strict=True))
    together = jax.vmap(lambda x, w: with_gradients(x, w, "interpret"))(x, w)
    for i, (x, w) in enumerate(seeds):
        for value, expected in zip(together, with_gradients(x, w, "xla"), strict=True):
            assert_agrees(value[i], expected)
    shared = jax.vmap(partial(infer, w=w, implementation="interpret"))(jnp.stack([x, x[::-1]]))
    assert_agrees(shared[1, ::-1], infer(x, w))


LAYERS = {
    "dense": (NMFDense(6), (4, 30)),
    "groups": (NMFConv(6, (3, 2), feature_group_count=2), (2, 5, 6, 4)),
    "pooling, local learning": (NMFPool(local_learning="kl"), (2, 4, 4, 5)),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", LAYERS)
def test_layers(case):
    layer, shape = LAYERS[case]
    images = jax.random.normal(jax.random.key(0), shape, "float32")
    params = jax.jit(layer.init)(jax.random.key(1), images)

    def outputs(implementation):
        kernel = layer.clone(implementation=implementation)

        def loss(params, images):
            h = kernel.apply(params, images)
            return (h * jnp.cos(jnp.arange(h.size, dtype=h.dtype)).reshape(h.shape)).sum(), h

        return jax.tree.leaves(jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(params, images))

    for value, expected in zip(outputs("interpret"), outputs("xla"), strict=True):
        assert_agrees(value, expected)


@pytest.mark.slow
def test_a_network():
    images = jax.random.uniform(jax.random.key(0), (3, 8, 8, 2), "float32")
    network = Network(features=(4,), kernels=(3, 0), num_classes=3, num_iters=5, pooling="average,none")
    variables = jax.jit(network.init)(jax.random.key(1), images)

    def outputs(implementation):
        def loss(params):
            logits, _ = network.clone(implementation=implementation).apply(
                {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
            )
            return (logits**2).sum(), logits

        return jit(jax.grad(loss, has_aux=True))(variables["params"])

    (grads, logits), (expected_grads, expected) = outputs("interpret"), outputs("xla")
    assert_agrees(logits, expected)
    # Batch norm magnifies the rounding, and some gradients are 0 but for it: against the largest of all.
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected_grads))
    for value, plain in zip(jax.tree.leaves(grads), jax.tree.leaves(expected_grads), strict=True):
        assert_agrees(value, plain, largest, 1e-4)
