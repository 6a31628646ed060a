"""Layers and networks that count spikes in place of iterations."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from deepnmf_jax import NMFConv, NMFDense, NMFPool, infer_spiking, models, normalize_patches, normalize_weights

KEY = jax.random.key(0)
SPIKES = {"spikes": jax.random.key(5)}
IMAGES = jnp.asarray(np.random.default_rng(0).random((2, 12, 12, 3)), jnp.float32)


def small(**settings):
    return models.CNMF1x1(num_classes=3, features=(4, 4), kernels=(5, 0, 1), pooling="none", **settings)


def test_a_layer_is_infer_spiking_of_its_normalised_input():
    layer = NMFDense(4, num_spikes=30, spike_epsilon=0.5, spike_decay=0.75)
    x = IMAGES[:, 0].reshape(2, -1)
    variables = jax.jit(layer.init)(KEY, x)
    h = layer.apply(variables, x, rngs=SPIKES)
    # The stream's key of a module at the top is the stream's first.
    key = layer.apply(variables, rngs=SPIKES, method=lambda module: module.make_rng("spikes"))
    w = normalize_weights(variables["params"]["u"])
    expected = infer_spiking(key, normalize_patches(x), w, num_spikes=30, epsilon=0.5, decay=0.75)
    assert (h == expected).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "layer",
    [
        NMFConv(4, (3, 3), num_spikes=20),
        NMFConv(6, (3, 3), feature_group_count=3, num_spikes=20),
        NMFPool(num_spikes=20),
        NMFDense(4, num_spikes=20, local_learning="kl"),
    ],
)
def test_every_layer_spikes_with_codes_that_sum_to_1_and_gradients(layer):
    variables = jax.jit(layer.init)(KEY, IMAGES)
    h = layer.apply(variables, IMAGES, rngs=SPIKES)
    assert jnp.allclose(h.sum(-1), 1, atol=1e-5)
    assert (h != layer.apply(variables, IMAGES, rngs={"spikes": jax.random.key(6)})).any()
    gradient = jax.grad(lambda v: (layer.apply(v, IMAGES, rngs=SPIKES) ** 2).sum())(variables)["params"]["u"]
    assert jnp.isfinite(gradient).all() and (gradient != 0).any()


def test_the_groups_of_a_layer_have_spikes_of_their_own():
    layer = NMFConv(4, (3, 3), feature_group_count=2, num_spikes=5)
    x = jnp.tile(IMAGES[..., :1], 2)
    u = jnp.tile(jax.jit(layer.init)(KEY, x)["params"]["u"][:2], (2, 1))
    h = layer.apply({"params": {"u": u}}, x, rngs=SPIKES)
    assert (h[..., :2] != h[..., 2:]).any()


def test_without_a_key_the_message_says_how_to_give_one():
    layer = NMFDense(4, num_spikes=3)
    with pytest.raises(ValueError, match=r"rngs=\{\"spikes\""):
        layer.apply(jax.jit(layer.init)(KEY, IMAGES), IMAGES)
    network = small(input_spikes=3)
    with pytest.raises(ValueError, match="input_spikes = 3"):
        network.apply(jax.jit(network.init)(KEY, IMAGES), IMAGES)


def test_settings_are_checked():
    for settings, named in (
        ({"num_spikes": -1}, "num_spikes"),
        ({"gradient": "unrolled", "num_spikes": 2}, "unrolled"),
    ):
        with pytest.raises(ValueError, match=named):
            NMFDense(4, **settings).init(KEY, IMAGES)


@pytest.mark.slow
def test_a_network_takes_the_variables_of_one_that_iterates_and_nears_its_answers():
    iterates = small(num_iters=50)
    variables = jax.jit(iterates.init)(KEY, IMAGES)
    logits = iterates.apply(variables, IMAGES)
    distances = [
        float(jnp.abs(small(num_spikes=n, spike_decay=0.75).apply(variables, IMAGES, rngs=SPIKES) - logits).mean())
        for n in (3, 30_000)
    ]
    assert distances[1] < distances[0] / 2


def test_blocks_may_spike_alone():
    some = small(block_settings=({"num_spikes": 5}, {}, {}))
    assert some.needs_spikes and not small().needs_spikes
    variables = jax.jit(some.init)(KEY, IMAGES)
    assert (some.apply(variables, IMAGES, rngs=SPIKES) != small().apply(variables, IMAGES)).any()


@pytest.mark.slow
def test_an_image_of_many_spikes_is_nearly_the_image():
    network, few, many = small(), small(input_spikes=10), small(input_spikes=100_000)
    variables = jax.jit(network.init)(KEY, IMAGES)
    logits = jax.jit(network.apply)(variables, IMAGES)
    near, far = (jnp.abs(jax.jit(n.apply)(variables, IMAGES, rngs=SPIKES) - logits).max() for n in (many, few))
    assert near < far / 5


@pytest.mark.parametrize(
    "module",
    [NMFConv(3, (3, 3), num_spikes=2), small(num_spikes=2, input_spikes=2)],
    ids=["layer", "network"],
)
def test_an_empty_batch_has_no_spikes(module):
    variables = jax.eval_shape(module.init, KEY, IMAGES)
    empty = jax.eval_shape(module.apply, variables, IMAGES[:0], rngs=SPIKES)
    assert empty.shape == (0, *jax.eval_shape(module.apply, variables, IMAGES, rngs=SPIKES).shape[1:])


@pytest.mark.parametrize(
    "module",
    [
        pytest.param(NMFConv(3, (3, 3), num_spikes=2), id="layer"),
        pytest.param(small(num_spikes=2, input_spikes=2), id="network", marks=pytest.mark.slow),
    ],
)
def test_export_with_an_open_batch_size_gives_the_same_bits(module):
    variables, key = jax.jit(module.init)(KEY, IMAGES), jax.random.key_data(SPIKES["spikes"])
    # jax.export takes plain arrays: a key travels as its data.
    run = jax.jit(lambda v, x, key: module.apply(v, x, rngs={"spikes": jax.random.wrap_key_data(key)}))
    sizes = jax.ShapeDtypeStruct(jax.export.symbolic_shape("b, 12, 12, 3"), jnp.float32)
    program = jax.export.export(run)(variables, sizes, jax.ShapeDtypeStruct(key.shape, key.dtype))
    assert (program.call(variables, IMAGES, key) == run(variables, IMAGES, key)).all()
