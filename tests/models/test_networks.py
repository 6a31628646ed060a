"""The networks' shapes, sizes and settings."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepnmf_jax import models
from deepnmf_jax.models.fields import block_groups
from deepnmf_jax.models.summary import layer_rows

KEY = jax.random.key(0)


def shapes(model, image_shape=(28, 28, 3)):
    return jax.eval_shape(model.init, KEY, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))["params"]


def count(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def operations(model):
    return sum(row.operations for row in layer_rows(model, (28, 28, 3)))


@pytest.mark.parametrize(
    "model, image_shape, parameters",
    [
        (models.CNN(), (28, 28, 3), 153_258),
        (models.CNN(use_bias=False), (28, 28, 3), 153_056),
        (models.CNMF(), (28, 28, 3), 153_056),
        (models.CNN1x1(), (28, 28, 3), 168_088),
        (models.CNN1x1(use_bias=False), (28, 28, 3), 167_886),
        (models.CNMF1x1(), (28, 28, 3), 167_886),
        (models.CNMF1x1(), (24, 24, 1), 123_278),
        (models.CNMF(), (24, 24, 1), 108_448),
    ],
)
def test_parameter_counts_of_the_authors_networks(model, image_shape, parameters):
    assert count(shapes(model, image_shape)) == parameters
    rows = layer_rows(model, image_shape)
    assert sum(row.parameters for row in rows) == parameters


def test_operations_are_those_of_the_products():
    by_path = {row.path: row.operations for row in layer_rows(models.CNMF1x1(num_iters=20), (28, 28, 3))}
    assert by_path["block1/nmf"] == 576 * 75 * 32 * 2 * 2 * 20
    assert by_path["block2/nmf"] == 64 * 800 * 64 * 2 * 2 * 20
    assert by_path["block2/mix"] == 64 * 64 * 64 * 2
    model = models.CNMF1x1(groups=(1, 4, 2, 1), mixing_groups=16)
    grouped = {row.path: row.operations for row in layer_rows(model, (28, 28, 3))}
    assert grouped["block2/nmf"] * 4 == by_path["block2/nmf"]
    assert grouped["block3/mix"] * 16 == by_path["block3/mix"] and grouped["block4/mix"] == by_path["block4/mix"]


def test_summary_names_each_layer_with_its_groups():
    table = models.summarize(models.CNMF1x1(groups=16, mixing_groups=8), (28, 28, 3)).splitlines()
    groups = {line.split()[0]: line for line in table}
    assert "16" in groups["block2/nmf"].split() and "16" in groups["block3/nmf"].split()
    assert "16" not in groups["block1/nmf"].split() and "16" not in groups["block4/nmf"].split()
    assert "8" in groups["block1/mix"].split() and "8" not in groups["block4/mix"].split()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"mixing": False, "layer": "conv"},
        {"pooling": "nmf", "mixing_groups": 2},
        {"pooling": "conv", "layer": "conv"},
        {"preprocessing": "whitening", "rectification": "on_off"},
        {"features": (8, 8, 8), "kernels": (3, 3, 0, 1), "padding": "SAME", "residual": True},
    ],
    ids=str,
)
def test_summary_counts_every_parameter(settings):
    model = models.Network(**settings)
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 28, 28, 3)))["params"]
    total = int(models.summarize(model, (28, 28, 3)).splitlines()[-1].split()[1].replace(",", ""))
    assert total == sum(leaf.size for leaf in jax.tree.leaves(params))


def test_groups():
    channels = [3, 32, 64, 96], [32, 64, 96, 10]
    assert block_groups(1, *channels) == (1, 1, 1, 1)
    assert block_groups(16, *channels) == (1, 16, 16, 1)
    assert block_groups([2], *channels) == (1, 2, 2, 2)
    assert block_groups((1, 4, 32, 2), *channels) == (1, 4, 32, 2)
    with pytest.raises(ValueError, match="2 groups do not divide block 1, which has 3 input and 32 output"):
        block_groups((2, 1, 1, 1), *channels)
    with pytest.raises(ValueError, match="one for each of 4"):
        block_groups((1, 2), *channels)
    with pytest.raises(ValueError, match="groups = 0"):
        block_groups(0, *channels)


@pytest.mark.slow
@pytest.mark.parametrize("image_shape", [(16, 16, 1), (5, 9, 2), (1, 1, 3), (40, 30, 4)])
def test_any_image_size_and_number_of_classes(image_shape):
    model = models.CNMF1x1(num_classes=7, num_iters=2)
    images = jax.random.uniform(KEY, (3, *image_shape), "float32")
    variables = jax.jit(model.init)(KEY, images)
    logits = jax.jit(model.apply)(variables, images)
    assert logits.shape == (3, 7)
    assert float(jnp.abs(logits[0] - logits[1]).max()) > 0


def test_width_multiplies_the_features():
    wide = shapes(models.CNMF1x1(width=2, num_classes=10))
    assert [wide[f"block{i}"]["nmf"]["u"].shape for i in (1, 2, 3, 4)] == [
        (64, 75),
        (128, 1600),
        (192, 2048),
        (10, 192),
    ]


@pytest.mark.parametrize("pooling", ["nmf", "conv"])
def test_learned_pooling_has_parameters_and_batch_norm(pooling):
    block = shapes(models.CNMF1x1(pooling=pooling))["block1"]
    assert "bn_pool" in block
    pool = block["pool"]
    assert (pool["u"].shape if pooling == "nmf" else pool["kernel"].shape) == (
        (32, 128) if pooling == "nmf" else (1, 128, 32)
    )


@pytest.mark.slow
def test_running_and_batch_statistics():
    images = jax.random.uniform(KEY, (6, 16, 16, 1), "float32")
    running, batch = models.CNN1x1(), models.CNN1x1(batch_statistics="batch")
    variables = jax.jit(running.init)(KEY, images)
    assert "batch_stats" not in jax.eval_shape(batch.init, KEY, images)
    params = {"params": variables["params"]}
    update = jax.jit(partial(running.apply, train=True, mutable=["batch_stats"]))
    trained, updates = update(variables, images)
    np.testing.assert_allclose(jax.jit(batch.apply)(params, images), trained, atol=1e-6)
    # After many updates with the same batch, the running statistics are that batch's.
    for _ in range(200):
        _, updates = update(params | updates, images)
    np.testing.assert_allclose(jax.jit(running.apply)(params | updates, images), trained, atol=1e-5)


@pytest.mark.parametrize(
    "images, message",
    [
        (jnp.zeros((28, 28, 3)), r"shape \(28, 28, 3\)"),
        (jnp.zeros((2, 28, 28, 3), jnp.uint8), "divide 8-bit images by 255"),
        (jnp.full((2, 28, 28, 3), 255.0), "range from 255 to 255"),
        (jnp.full((2, 28, 28, 3), -0.1), "must lie in"),
        (jnp.full((2, 28, 28, 3), jnp.nan), "must lie in"),
    ],
)
def test_wrong_images(images, message):
    with pytest.raises(ValueError, match=message):
        models.CNMF1x1().init(KEY, images)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"layer": "dense"}, "layer = 'dense'"),
        ({"pooling": "mean"}, "pooling = 'mean'"),
        ({"batch_statistics": "test"}, "batch_statistics = 'test'"),
        ({"width": 0}, "width = 0"),
        ({"num_classes": 0}, "num_classes = 0"),
        ({"groups": (1, 3, 1, 1)}, "3 groups do not divide block 2"),
        ({"mixing_groups": (1, 3, 1, 1)}, "mixing_groups = .*3 groups do not divide block 2, which has 64"),
        ({"mixing_groups": 7}, "mixing_groups = 7 divides the channels of no block"),
        ({"local_learning": ("kl", "kl")}, "one for each of 4"),
        ({"num_iters": -1}, "num_iters = -1"),
        ({"block_settings": ({}, {})}, "one mapping for each of 4"),
        ({"block_settings": (7, 4, 4, 20)}, "one mapping for each of 4"),
        ({"block_settings": ({"iterations": 7}, {}, {}, {})}, "names 'iterations'; use num_iters"),
        ({"block_settings": ({}, {"exponent": 0.5}, {}, {})}, "exponent = 0.5"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        shapes(models.CNMF1x1(**settings))


def test_settings_of_single_blocks_are_those_of_their_layers():
    own = ({}, {"num_iters": 4, "acceleration": "multistep"}, {"gradient": "scaled"}, {})
    model = models.CNMF1x1(num_iters=20, exponent=6.0, block_settings=own)
    found = []

    def record(call, args, kwargs, context):
        if context.method_name == "activity":
            layer = context.module
            found.append((layer.num_iters, layer.acceleration, layer.exponent, layer.gradient))
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        shapes(model)
    plain = (20, "none", 6.0, "approximate")
    assert found == [plain, (4, "multistep", 6.0, "approximate"), (20, "none", 6.0, "scaled"), plain]
    # 16 pairs fewer at 8 x 8 positions, of 64 units with 5 x 5 x 32 inputs each.
    saved = operations(models.CNMF1x1()) - operations(model)
    assert saved == 16 * 4 * 64 * 64 * 800
    assert hash(model) == hash(model.clone())


@pytest.mark.slow
def test_local_learning_may_differ_from_block_to_block():
    images = jax.random.uniform(KEY, (2, 8, 8, 3), "float32")

    params = jax.jit(models.CNMF(num_classes=3, batch_statistics="batch").init)(KEY, images)["params"]

    def gradients(rule):
        model = models.CNMF(num_classes=3, local_learning=rule, batch_statistics="batch", num_iters=3)
        return jax.jit(jax.grad(lambda p: jnp.sum(jnp.sin(model.apply({"params": p}, images)))))(params)

    mixed, plain = gradients(("none", "kl", "none", "none")), gradients("none")
    same = {
        i: bool(jnp.array_equal(mixed[f"block{i}"]["nmf"]["u"], plain[f"block{i}"]["nmf"]["u"])) for i in (1, 2, 3, 4)
    }
    assert same == {1: True, 2: False, 3: True, 4: True}
