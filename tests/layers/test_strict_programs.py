"""JAX's strict modes: no promotion of types or ranks, no leaked tracers, no NaN on the way. And all kinds of numbers.

What is traced without being compiled is enough for the first two.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepnmf_jax.core.divergences import certificate, kl_divergence, residual
from deepnmf_jax.core.gradients import GRADIENTS, local_gradient
from deepnmf_jax.core.inference import infer
from deepnmf_jax.core.iteration import ACCELERATIONS, PRODUCTS
from deepnmf_jax.core.normalization import normalize_patches, normalize_weights
from deepnmf_jax.layers import LocalMixing, NMFConv, NMFDense, NMFPool, NormalizedConv, PatchWhitening

KEY = jax.random.key(0)
SETTINGS = [
    {"gradient": gradient, "acceleration": acceleration, "tolerance": tolerance}
    for gradient, acceleration, tolerance in itertools.product(GRADIENTS, ACCELERATIONS, (0.0, 1e-3))
    if gradient != "unrolled" or not tolerance
]
LAYERS = [
    *(NMFDense(4, **settings) for settings in SETTINGS),
    *(NMFDense(4, products=products) for products in PRODUCTS),
    NMFDense(4, epsilon=0.5, local_learning="mse"),
    NMFConv(4, (3, 3), local_learning="kl"),
    NMFConv(4, (3, 3), feature_group_count=2, padding="SAME", strides=2),
    NMFPool(),
    LocalMixing(),
    LocalMixing(feature_group_count=2),
    NormalizedConv(4, (3, 3)),
    NormalizedConv(4, (3, 3), feature_group_count=2),
    PatchWhitening(),
]
# Of the inputs and of the parameters.
DTYPES = [
    pytest.param("float32", "float32", marks=pytest.mark.slow),
    ("bfloat16", "float32"),
    ("bfloat16", "bfloat16"),
    ("float16", "float32"),
    ("float64", "float64"),
    ("float64", "float32"),
]
STRICT = {
    "types": lambda: jax.numpy_dtype_promotion("strict"),
    "ranks": lambda: jax.numpy_rank_promotion("raise"),
}


def trace(layer, dtype, param_dtype="float32"):
    """Traces the initial values, the output and all gradients."""
    if not isinstance(layer, PatchWhitening):
        layer = layer.clone(param_dtype=jnp.dtype(param_dtype))
    x = jax.ShapeDtypeStruct((2, 8, 8, 4), jnp.dtype(dtype))
    variables = jax.eval_shape(layer.init, KEY, x)

    def loss(variables, x):
        return (layer.apply(variables, x).astype(jnp.float32) ** 2).sum()

    return jax.eval_shape(jax.value_and_grad(loss, (0, 1)), variables, x)


@pytest.mark.slow
@pytest.mark.parametrize("mode", STRICT)
@pytest.mark.parametrize("dtype, param_dtype", DTYPES)
def test_layers_promote_nothing_unasked(mode, dtype, param_dtype):
    with STRICT[mode]():
        for layer in LAYERS if dtype == "float32" else LAYERS[-10:]:
            _, (of_variables, of_inputs) = trace(layer, dtype, param_dtype)
            assert of_inputs.dtype == dtype
            assert all(leaf.dtype == param_dtype for leaf in jax.tree.leaves(of_variables))


@pytest.mark.parametrize("mode", STRICT)
@pytest.mark.parametrize("dtype, other", [("float32", "float32"), ("bfloat16", "bfloat16"), ("float32", "float64")])
def test_functions_promote_nothing_unasked(mode, dtype, other):
    x, w, h = (jax.ShapeDtypeStruct(s, jnp.dtype(d)) for s, d in (((3, 6), dtype), ((4, 6), other), ((3, 4), dtype)))
    with STRICT[mode]():
        assert jax.eval_shape(infer, x, w).dtype == dtype
        for normalize in (normalize_patches, normalize_weights):
            assert jax.eval_shape(normalize, x).dtype == dtype
        for function in (kl_divergence, certificate, residual):
            assert jax.eval_shape(function, x, w, h).shape == (3,)
        for rule in ("kl", "mse"):
            assert jax.eval_shape(lambda x, w, h, r=rule: local_gradient(x, w, h, r), x, w, h).shape == (4, 6)


@pytest.mark.slow
def test_no_tracer_leaks_and_no_nan_on_the_way():
    layer = NMFConv(4, (2, 2), feature_group_count=2, num_iters=3)
    x = jax.random.normal(KEY, (2, 4, 4, 2), "float32").at[0, :2].set(-1)
    with jax.checking_leaks(), jax.debug_nans(True), jax.enable_checks(True):
        variables = jax.jit(layer.init)(KEY, x)
        gradients = jax.jit(jax.grad(lambda v, x: (layer.apply(v, x) ** 2).sum(), (0, 1)))(variables, x)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


KINDS = [
    NMFDense(3, num_iters=2),
    NMFConv(3, (2, 2), num_iters=2),
    NMFPool(num_iters=2),
    LocalMixing(),
    NormalizedConv(3, (2, 2)),
    PatchWhitening(features=4),
]


@pytest.mark.slow
@pytest.mark.parametrize("layer", KINDS, ids=lambda layer: type(layer).__name__)
def test_layers_take_whole_numbers_and_any_unit(layer):
    counts = np.random.default_rng(0).integers(0, 2, (1, 4, 4, 3))
    variables = jax.jit(layer.init)(KEY, jnp.zeros(counts.shape, jnp.float32))
    apply = jax.jit(layer.apply)
    expected = apply(variables, counts.astype(np.float32))
    assert float(jnp.abs(expected).max()) > 0.1
    for dtype in ("uint8", "bool", "bfloat16"):
        ours = apply(variables, counts.astype(dtype))
        assert jnp.issubdtype(ours.dtype, jnp.floating)
        np.testing.assert_allclose(ours.astype("float32"), expected, atol=2e-2 if "float" in dtype else 1e-6)
    # The filters of `PatchWhitening` keep the unit.
    keeps = isinstance(layer, PatchWhitening)
    for unit in (np.float32(2e38), np.float32(1e-19), np.float32(2e-38)):
        scaled = np.asarray(apply(variables, counts * (unit if not keeps else unit / 16)))
        np.testing.assert_allclose(scaled / (unit / 16 if keeps else 1), expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="must hold real numbers"):
        layer.apply(variables, counts * 1j)
    with pytest.raises(ValueError, match="are taken as 0"):
        layer.apply(variables, np.full(counts.shape, 1e-40, np.float32))


@pytest.mark.slow
def test_settings_are_scalars_of_numpy_and_one_side_of_a_square():
    x = np.random.default_rng(0).random((1, 4, 4, 2), "float32")
    plain = {"num_iters": 3, "tolerance": 1e-3, "acceleration": "multistep", "exponent": 2.0, "cg_steps": 2}
    scalars = {
        "num_iters": np.int32(3), "tolerance": np.float64(1e-3), "acceleration": np.str_("multistep"),
        "exponent": np.float64(2), "cg_steps": np.int64(2),
    }  # fmt: skip
    pairs = [
        (NMFDense(4, **plain), NMFDense(np.int64(4), **scalars)),
        (NMFDense(4, epsilon=0.5), NMFDense(4, epsilon=np.float64(0.5))),
        (
            NMFConv(4, (3, 3), 1, 1, (1, 1), 2, **plain),
            NMFConv(np.int64(4), np.array([3, 3]), np.int8(1), np.int64(1), np.array([1, 1]), np.int64(2), **scalars),
        ),
        (NMFPool((2, 2), 2, **plain), NMFPool(2, np.int64(2), **scalars)),
        (NMFPool(**plain), NMFPool(window_shape=np.int64(2), **scalars)),
        (NormalizedConv(4, (3, 3)), NormalizedConv(np.int64(4), (np.int64(3),) * 2, feature_group_count=np.int64(1))),
        (NMFConv(4, (3,), padding=1, num_iters=2), NMFConv(np.array(4), np.array(3), padding=np.array(1), num_iters=2)),
        (NMFConv(4, (3,), num_iters=2), NMFConv(4, 3, num_iters=2)),  # an integer is one axis, as in Flax
        (PatchWhitening(3, 1, 4), PatchWhitening(np.int64(3), np.int64(1), np.int64(4))),
        # Inside jit a comparison of JAX's scalars is a traced array.
        (NMFDense(4, num_iters=2), NMFDense(jnp.asarray(4), num_iters=jnp.asarray(2))),
        (
            NMFConv(4, (3, 3), 1, 1, feature_group_count=2, num_iters=2),
            NMFConv(jnp.asarray(4), (3, 3), *map(jnp.asarray, (1, 1)), feature_group_count=jnp.asarray(2), num_iters=2),
        ),
        (NormalizedConv(4, (3, 3)), NormalizedConv(jnp.asarray(4), (jnp.asarray(3),) * 2)),
        (PatchWhitening(3, 1, 4), PatchWhitening(*map(jnp.asarray, (3, 1, 4)))),
    ]
    for one, other in pairs:
        expected, ours = (jax.jit(layer.init_with_output)(KEY, x) for layer in (one, other))
        assert ours[0].dtype == jnp.float32
        jax.tree.map(np.testing.assert_array_equal, expected, ours)


@pytest.mark.parametrize(
    "layer, message",
    [
        (NMFConv(4, (3.0, 3.0)), "kernel_size"),
        (NMFConv(4, True), "kernel_size"),
        (NMFConv(2.5, (3, 3)), "features = 2.5"),
        (NMFConv(4, (3, 3), feature_group_count=0), "feature_group_count = 0"),
        (NMFConv(4, (3, 3), padding=1.5), "padding = 1.5"),
        (NMFPool(0), "kernel_size"),
        (NMFPool(strides=0), "strides = 0"),
    ],
    ids=str,
)
def test_what_is_no_whole_number_is_refused(layer, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(layer.init, KEY, jnp.ones((1, 6, 6, 4)))
