"""The NNX networks against the Linen ones: the same bits in training and evaluation, the golden files, trained ones."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from deepnmf_jax import load_pretrained, models, pretrained_names
from deepnmf_jax import nnx as ours
from deepnmf_jax.training.losses import training_loss
from tests.conftest import load_golden
from tests.models.test_golden_networks import model_of, tree

SHAPE = (12, 12, 3)
IMAGES = jnp.asarray(np.random.default_rng(0).random((2, *SHAPE)), jnp.float32)
SMALL = {"num_classes": 3, "features": (4, 4), "kernels": (3, 0, 1), "num_iters": 2}
LONGER = {**SMALL, "features": (4, 4, 4), "kernels": (3, 3, 3, 0)}
NETWORKS = {
    "blocks": (ours.CNMF1x1, {**SMALL, "block_settings": ({"num_iters": 3}, {}, {}), "init_exponent": 3.0}),
    "convolutions": (ours.CNN, {
        **LONGER, "use_bias": False, "preprocessing": "on_off", "pooling": "conv,max,none,none",
    }),
    "beyond": (ours.CNMF1x1, {
        **LONGER, "pooling": "nmf,average,none,none", "padding": "SAME", "residual": True, "rectification": "on_off",
        "preprocessing": "whitening", "batch_statistics": "batch", "groups": 2, "mixing_groups": 2,
        "local_learning": ("kl", "none", "none", "none"), "logit_scale": 4.0,
    }),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_bits_as_linen_in_training_and_evaluation(name):
    kind, settings = NETWORKS[name]
    network = kind(SHAPE, **settings, rngs=nnx.Rngs(0))
    module, variables = ours.to_linen(network)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(
        jnp.shape, jax.eval_shape(module.init, jax.random.key(0), IMAGES)
    )
    params = variables.pop("params")

    def linen(params, images):
        logits, updated = module.apply({"params": params, **variables}, images, train=True, mutable=["batch_stats"])
        return jnp.sum(jnp.sin(logits)), (logits, updated)

    definition, weights, rest = nnx.split(network, nnx.Param, ...)

    def native(weights, images):
        # Variables of this trace, which may be updated in it.
        model = nnx.merge(definition, weights, jax.tree.map(jnp.asarray, rest))
        logits = model(images)
        return jnp.sum(jnp.sin(logits)), (logits, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))

    (_, (logits, updated)), gradients = jax.jit(jax.value_and_grad(linen, (0, 1), has_aux=True))(params, IMAGES)
    (_, (own_logits, statistics)), own = jax.jit(jax.value_and_grad(native, (0, 1), has_aux=True))(weights, IMAGES)
    assert (logits == own_logits).all()
    for theirs, ours_ in zip(jax.tree.leaves(gradients), jax.tree.leaves(own), strict=True):
        np.testing.assert_array_equal(theirs, ours_)
    jax.tree.map(np.testing.assert_array_equal, updated.get("batch_stats", {}), statistics)

    trained = ours.from_linen(module, {"params": params, **updated}, image_shape=SHAPE)
    trained.eval()
    expected = jax.jit(module.apply)({"params": params, **updated}, IMAGES)
    assert (nnx.jit(lambda model, images: model(images))(trained, IMAGES) == expected).all()


@pytest.mark.slow
def test_golden_files_through_nnx(network_file):
    golden = load_golden(network_file)
    module, params = model_of(golden), tree(golden, "param:", "float64")
    images, labels = jnp.asarray(golden["images_u8"], "float64") / 255, jnp.asarray(golden["labels"])
    shapes = jax.eval_shape(module.init, jax.random.key(0), images).get("batch_stats", {})
    stats = jax.tree.map(lambda a: jnp.zeros(a.shape, "float64"), shapes)
    network = ours.from_linen(module, {"params": params, "batch_stats": stats}, image_shape=images.shape[1:])

    @nnx.jit
    def evaluated(network):
        def loss(network):
            logits = network(images)
            return training_loss(logits, labels), logits

        return nnx.value_and_grad(loss, has_aux=True)(network)

    (loss, logits), gradients = evaluated(network)
    np.testing.assert_allclose(logits, golden["logits"], rtol=0, atol=1e-11)
    np.testing.assert_allclose(loss, golden["loss"], rtol=1e-11)
    expected, found = tree(golden, "grad:", "float64"), nnx.to_pure_dict(gradients)
    assert jax.tree.structure(expected) == jax.tree.structure(found)
    for (path, theirs), own in zip(jax.tree.leaves_with_path(expected), jax.tree.leaves(found), strict=True):
        # 1e-15 for biases before a batch norm, whose true gradient is 0.
        atol = 1e-10 * float(jnp.abs(theirs).max()) + 1e-15
        np.testing.assert_allclose(own, theirs, rtol=0, atol=atol, err_msg=jax.tree_util.keystr(path))


@pytest.mark.slow
@pytest.mark.parametrize("name", pretrained_names())
def test_trained_networks_load_as_either(name):
    network, trained = ours.load_pretrained(name)
    images = trained.prepare(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8))
    expected = jax.jit(trained.model.apply)(load_pretrained(name).variables, images)
    assert (nnx.jit(lambda network, images: network(images))(network, images) == expected).all()


@pytest.mark.parametrize("name", ["CNN", "CNMF", "CNN1x1", "CNMF1x1", "Network"])
def test_both_interfaces_have_the_same_fields_and_defaults(name):
    native, linen = getattr(ours, name), getattr(models, name)
    found = [{field.name: field.default for field in dataclasses.fields(module)} for module in (native, linen)]
    assert found[0].pop("image_shape") is dataclasses.MISSING
    assert found[0] == {field: default for field, default in found[1].items() if field not in ("parent", "name")}


def test_images_of_another_size_and_mistakes():
    network = ours.CNMF1x1(SHAPE, **SMALL, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"for \(batch, 12, 12, 3\): cut them"):
        network(jnp.zeros((2, 14, 14, 3)))
    with pytest.raises(ValueError, match=r"jnp.repeat\(images, 3, axis=-1\)"):
        network(jnp.zeros((2, 12, 12, 1)))
    for preprocessing in ("on_off", "whitening"):
        other = ours.CNMF1x1(SHAPE, **SMALL, preprocessing=preprocessing, whitening=(3, 1, 5), rngs=nnx.Rngs(0))
        with pytest.raises(ValueError, match=r"jnp.repeat\(images, 3, axis=-1\)"):
            other(jnp.zeros((2, 12, 12, 1)))
    with pytest.raises(ValueError, match=r"images\[None\] is a batch of one"):
        network(jnp.zeros(SHAPE))
    with pytest.raises(ValueError, match=r"image_shape = \(12, 12\)"):
        ours.CNMF1x1((12, 12), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="kernels = "):
        ours.CNMF1x1(SHAPE, kernels=(3,), rngs=nnx.Rngs(0))
    module, variables = ours.to_linen(network)
    with pytest.raises(ValueError, match=r"image_shape = None; give \(height, width, channels\)"):
        ours.from_linen(module, variables)
    with pytest.raises(ValueError, match="block2/nmf/u"):
        ours.from_linen(module, variables, image_shape=(10, 10, 3))


@pytest.mark.slow
def test_other_sizes_where_no_layer_depends_on_them_and_empty_batches():
    network = ours.CNMF1x1(SHAPE, **{**SMALL, "kernels": (3, 3, 1)}, pooling="none", rngs=nnx.Rngs(0))
    before = nnx.to_pure_dict(nnx.state(network, nnx.BatchStat))
    run = nnx.jit(lambda network, images: network(images))
    assert run(network, jnp.zeros((0, *SHAPE))).shape == (0, 3)
    jax.tree.map(np.testing.assert_array_equal, before, nnx.to_pure_dict(nnx.state(network, nnx.BatchStat)))
    network.eval()
    module, variables = ours.to_linen(network)
    larger = jnp.asarray(np.random.default_rng(0).random((1, 15, 13, 3)), jnp.float32)
    np.testing.assert_array_equal(run(network, larger), jax.jit(module.apply)(variables, larger))
    network.train()
    run(network, larger.astype("float64"))  # of wider images the statistics are wider
    assert network.block1.bn_a.mean[...].dtype == jnp.float64


@pytest.mark.slow
def test_spikes_of_a_network():
    network = ours.CNMF1x1(SHAPE, **SMALL, num_spikes=3, input_spikes=9, rngs=nnx.Rngs(0, spikes=1))
    network.eval()
    run = nnx.jit(lambda network, images: network(images))
    first = run(network, IMAGES)
    assert (first != run(network, IMAGES)).any()  # the streams inside have moved on
    given = nnx.jit(lambda network, images, rngs: network(images, rngs=rngs))
    assert (given(network, IMAGES, nnx.Rngs(spikes=2)) == given(network, IMAGES, nnx.Rngs(spikes=2))).all()
    module, variables = ours.to_linen(network)
    assert module.needs_spikes and set(variables["params"]) == {"block1", "block2", "block3"}
    with pytest.raises(ValueError, match="input_spikes = 9, but there is no key"):
        ours.from_linen(module, variables, image_shape=SHAPE)(IMAGES)
    again = ours.from_linen(module, variables, image_shape=SHAPE, rngs=nnx.Rngs(spikes=1))
    assert run(again, IMAGES).shape == (2, 3)
