"""The layers against plain numpy loops, in float64."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepnmf_jax.layers import LocalMixing, NMFConv, NMFDense, NMFPool, NormalizedConv


def code(p, u, num_iters=20):
    """NMF code of one raw non-negative vector p under raw weights u."""
    k = len(u)
    w = np.abs(u) / np.abs(u).sum(1, keepdims=True)
    if p.sum() == 0:
        return np.zeros(k)
    x, h = p / p.sum(), np.full(k, 1 / k)
    for _ in range(num_iters):
        h = h * (w @ (x / (h @ w)))
    return h


def loop_over_windows(image, kernel, strides, pads, dilation, groups, apply):
    """`apply(group, patch)` at each position of an image (height, width, channels); patches are flattened in HWC
    order."""
    padded = np.pad(np.maximum(image, 0), [*pads, (0, 0)])
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    share = image.shape[-1] // groups
    rows = []
    for top in range(0, padded.shape[0] - reach[0] + 1, strides[0]):
        row = []
        for left in range(0, padded.shape[1] - reach[1] + 1, strides[1]):
            window = padded[top : top + reach[0] : dilation[0], left : left + reach[1] : dilation[1]]
            parts = [window[..., g * share : (g + 1) * share].reshape(-1) for g in range(groups)]
            row.append(np.concatenate([apply(g, part) for g, part in enumerate(parts)]))
        rows.append(row)
    return np.array(rows)


SETTINGS = {
    "plain": {},
    "strides": {"strides": (2, 1)},
    "same": {"padding": "SAME", "strides": 2},
    "pads": {"padding": [(1, 0), (2, 2)]},
    "pad": {"padding": 1},
    "dilation": {"kernel_dilation": (1, 2)},
    "groups": {"feature_group_count": 2},
    "all": {"padding": "SAME", "strides": (1, 2), "kernel_dilation": (2, 1), "feature_group_count": 2},
}
PADS = {"same": [(0, 1), (0, 0)], "pads": [(1, 0), (2, 2)], "pad": [(1, 1), (1, 1)], "all": [(2, 2), (0, 0)]}


def pair(value):
    return (value, value) if isinstance(value, int) else tuple(value)


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 7, 8, 4))
    images[0, :4, :5] = -1
    return images


@pytest.mark.parametrize("layer", [NMFConv, NormalizedConv])
@pytest.mark.parametrize("case", SETTINGS)
def test_convolutions_equal_a_loop_over_windows(layer, case, images):
    settings = SETTINGS[case]
    kernel, features, groups = (3, 2), 6, settings.get("feature_group_count", 1)
    conv = layer(features, kernel, param_dtype="float64", **settings)
    ours, variables = jax.jit(conv.init_with_output)(jax.random.key(1), images)
    params = jax.tree.map(np.asarray, variables["params"])
    pads = PADS.get(case, [(0, 0), (0, 0)])
    if settings.get("padding") == "SAME":
        stride, dilation = pair(settings.get("strides", 1)), pair(settings.get("kernel_dilation", 1))
        pads = []
        for size, k, s, d in zip(images.shape[1:3], kernel, stride, dilation, strict=True):
            total = max((math.ceil(size / s) - 1) * s + (k - 1) * d + 1 - size, 0)
            pads.append((total // 2, total - total // 2))

    def nmf(group, patch):
        return code(patch, params["u"].reshape(groups, features // groups, -1)[group]) / groups

    def convolution(group, patch):
        bias = params["bias"].reshape(groups, -1)[group]
        return patch / (patch.sum() or 1) @ params["kernel"][group] + bias

    expected = np.stack([
        loop_over_windows(
            image, kernel, pair(settings.get("strides", 1)), pads, pair(settings.get("kernel_dilation", 1)), groups,
            nmf if layer is NMFConv else convolution,
        )
        for image in images
    ])  # fmt: skip
    np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-13)


def test_dense(images):
    dense = NMFDense(5, num_iters=7, param_dtype="float64")
    ours, variables = jax.jit(dense.init_with_output)(jax.random.key(1), images)
    u = np.asarray(variables["params"]["u"])
    expected = np.array([code(p, u, 7) for p in np.maximum(images, 0).reshape(-1, 4)]).reshape(2, 7, 8, 5)
    np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-14)


def test_pooling(images):
    pool = NMFPool(window_shape=(2, 3), strides=(2, 2), param_dtype="float64")
    ours, variables = jax.jit(pool.init_with_output)(jax.random.key(1), images)
    u = np.asarray(variables["params"]["u"])
    assert u.shape == (4, 24)
    windows = [
        loop_over_windows(image, (2, 3), (2, 2), [(0, 0), (0, 0)], (1, 1), 1, lambda g, patch: code(patch, u))
        for image in images
    ]
    np.testing.assert_allclose(ours, np.stack(windows), rtol=1e-10)


def test_mixing_starts_at_the_identity_and_equals_a_loop(images):
    mixing = LocalMixing(param_dtype="float64")
    params = jax.jit(mixing.init)(jax.random.key(1), images)["params"]
    assert np.abs(params["kernel"] - np.eye(4)).max() <= 0.5e-4 and np.abs(params["bias"]).max() <= 0.5e-4
    assert np.unique(params["kernel"] - np.eye(4)).size == 16
    params = {"kernel": np.random.default_rng(1).normal(size=(4, 4)), "bias": np.arange(4.0)}
    ours = mixing.apply({"params": params}, images)
    for position in np.ndindex(2, 7, 8):
        z = np.maximum(images[position], 0)
        z = z / (z.sum() or 1)
        np.testing.assert_allclose(ours[position], [z @ params["kernel"][:, j] + j for j in range(4)], rtol=1e-12)


@pytest.mark.parametrize("groups", [1, 3, 6])
def test_grouped_mixing_is_dense_mixing_with_blocks_on_the_diagonal(groups):
    x = jax.random.normal(jax.random.key(0), (2, 3, 6), "float64")
    layers = [LocalMixing(feature_group_count=count, param_dtype="float64") for count in (groups, 1)]
    start = jax.jit(layers[0].init)(jax.random.key(1), x)["params"]["kernel"]
    side = 6 // groups
    assert np.abs(start - np.eye(side)).max() <= 0.5e-4
    blocks = np.random.default_rng(1).normal(size=(groups, side, side))
    kernels = blocks.reshape(start.shape), jax.scipy.linalg.block_diag(*blocks)

    def output(layer, kernel):
        return layer.apply({"params": {"kernel": kernel, "bias": jnp.arange(6.0)}}, x)

    ours, expected = map(output, layers, kernels)
    np.testing.assert_allclose(ours, expected, rtol=1e-12)
    ours, expected = (
        jax.grad(lambda kernel, layer=layer: (output(layer, kernel) ** 2).sum())(kernel)
        for layer, kernel in zip(layers, kernels, strict=True)
    )
    diagonal = [expected[g * side : (g + 1) * side, g * side : (g + 1) * side] for g in range(groups)]
    np.testing.assert_allclose(ours.reshape(blocks.shape), diagonal, rtol=1e-12)


@pytest.mark.parametrize("rank, kernel", [(1, (3,)), (1, 3), (3, (2, 3, 2))])
def test_one_and_three_spatial_axes(rank, kernel):
    x = jax.random.normal(jax.random.key(0), (2, *(5, 6, 4)[:rank], 3), "float64")
    h, variables = jax.jit(NMFConv(4, kernel, param_dtype="float64").init_with_output)(jax.random.key(1), x)
    kernel = (kernel,) if isinstance(kernel, int) else kernel
    assert h.shape == (2, *(s - k + 1 for s, k in zip((5, 6, 4)[:rank], kernel, strict=True)), 4)
    corner = np.maximum(x[1][tuple(slice(0, k) for k in kernel)], 0).reshape(-1)
    np.testing.assert_allclose(h[(1,) + (0,) * rank], code(corner, np.asarray(variables["params"]["u"])), rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["kl", "mse"])
def test_local_learning_replaces_the_gradient_of_the_weights_only(rule, images):
    def gradients(local_learning):
        conv = NMFConv(4, (3, 3), local_learning=local_learning, feature_group_count=2, param_dtype="float64")
        variables = jax.jit(conv.init)(jax.random.key(1), images)
        gradient = jax.jit(jax.grad(lambda v, x: jnp.sum(jnp.sin(3 * conv.apply(v, x))), argnums=(0, 1)))
        return variables["params"]["u"], gradient(variables, images)

    u, (local, passed_back) = gradients(rule)
    _, (_, expected_back) = gradients("none")
    np.testing.assert_allclose(passed_back, expected_back, rtol=1e-12)

    expected = np.zeros((2, 2, 18))
    w = (np.abs(u) / np.abs(u).sum(1, keepdims=True)).reshape(2, 2, 18)

    def add(group, patch):
        if patch.sum() > 0:
            x, h = patch / patch.sum(), code(patch, w[group])
            r = h @ w[group]
            expected[group] += np.outer(h, -x / r if rule == "kl" else -2 * (x - r))
        return np.zeros(2)

    for image in images:
        loop_over_windows(image, (3, 3), (1, 1), [(0, 0), (0, 0)], (1, 1), 2, add)
    sums = np.abs(u).sum(1).reshape(2, 2, 1)
    chained = (expected - (expected * w).sum(-1, keepdims=True)) / sums
    np.testing.assert_allclose(local["params"]["u"], chained.reshape(4, 18), rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_gradients_flow_through_a_users_own_model():
    class Own(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(6, (3, 3))(x))
            x = NMFConv(8, (3, 3), strides=2)(x)
            return nn.Dense(3)(x.mean((1, 2)))

    x = jax.random.normal(jax.random.key(0), (4, 9, 9, 1))
    variables = jax.jit(Own().init)(jax.random.key(1), x)
    gradients = jax.jit(jax.grad(lambda v: jnp.sum(Own().apply(v, x) ** 2)))(variables)
    assert all(float(jnp.abs(g).max()) > 0 for g in jax.tree.leaves(gradients))


@pytest.mark.slow
def test_layer_inside_an_nnx_model():
    from flax import nnx
    from flax.nnx import bridge

    class Own(nnx.Module):
        def __init__(self, x, rngs):
            self.nmf = bridge.ToNNX(NMFConv(5, (3, 3)), rngs=rngs).lazy_init(x)
            self.readout = nnx.Linear(5, 2, rngs=rngs)

        def __call__(self, x):
            return self.readout(self.nmf(x).mean((1, 2)))

    x = jax.random.uniform(jax.random.key(0), (4, 6, 6, 2), "float32")
    model = Own(x, nnx.Rngs(0))
    u = model.nmf.u.get_value() if hasattr(model.nmf.u, "get_value") else model.nmf.u.value
    np.testing.assert_allclose(model.nmf(x), NMFConv(5, (3, 3)).apply({"params": {"u": u}}, x), rtol=1e-6)
    gradients = nnx.grad(lambda m: jnp.sum(m(x) ** 2))(model)
    assert float(jnp.abs(jax.tree.leaves(gradients["nmf"])[0]).max()) > 0


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"feature_group_count": 3}, "feature_group_count = 3 must divide the 4 input channels"),
        ({"feature_group_count": 4}, "feature_group_count = 4 must divide .* features = 6"),
        ({"num_iters": 0}, "num_iters = 0"),
        ({"epsilon": 0.0}, "epsilon = 0.0"),
        ({"gradient": "exact"}, "gradient = 'exact'"),
        ({"local_learning": "hebb"}, "local_learning = 'hebb'"),
        ({"kernel_size": (9, 9)}, "does not fit"),
    ],
)
def test_wrong_settings(settings, message, images):
    with pytest.raises(ValueError, match=message):
        NMFConv(**{"features": 6, "kernel_size": (3, 3), **settings}).init(jax.random.key(0), images)
