"""The variations of the network that the paper does not have."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepnmf_jax import models

KEY = jax.random.key(0)
IMAGES = jax.random.uniform(KEY, (4, 12, 12, 3), "float32")
SMALL = {"features": (8, 6, 8), "num_classes": 5, "num_iters": 3}
TWO_BLOCKS = {"features": (8,), "kernels": (3, 0), "pooling": "average,none", "num_classes": 5, "num_iters": 3}


def variables_of(model, images=IMAGES):
    return jax.jit(model.init)(KEY, images)


def trained(model, variables, images=IMAGES):
    return jax.jit(lambda v: model.apply(v, images, train=True, mutable=["batch_stats"])[0])(variables)


@pytest.mark.parametrize("layer", ["nmf", "conv"])
@pytest.mark.parametrize("preprocessing, channels", [("none", 3), ("on_off", 6), ("whitening", 20)])
def test_preprocessing_has_channels_and_no_parameters(layer, preprocessing, channels):
    model = models.Network(layer=layer, preprocessing=preprocessing, **SMALL)
    params = jax.eval_shape(model.init, KEY, IMAGES)["params"]
    assert set(params) == {"block1", "block2", "block3", "block4"}
    first = params["block1"]["nmf"]["u"] if layer == "nmf" else params["block1"]["conv"]["kernel"]
    assert first.size == 8 * 25 * channels


def test_on_off_channels_see_contrast_and_not_brightness():
    """The two signs of the normalised pixels: an image and its brighter copy in place of all others are coded alike."""
    model = models.CNMF(preprocessing="on_off", **TWO_BLOCKS)
    variables = variables_of(model)
    bright = 0.5 * IMAGES + 0.4
    np.testing.assert_allclose(trained(model, variables), trained(model, variables, bright), rtol=2e-3)
    plain = models.CNMF(**TWO_BLOCKS)
    plain_variables = variables_of(plain)
    difference = trained(plain, plain_variables) - trained(plain, plain_variables, bright)
    assert float(jnp.abs(difference).max()) > 1e-3


def test_split_rectification_keeps_the_negative_part():
    model = models.CNMF1x1(rectification="on_off", **SMALL)
    params = jax.eval_shape(model.init, KEY, IMAGES)["params"]
    assert [params[f"block{i}"]["nmf"]["u"].shape for i in (1, 2, 3, 4)] == [(8, 75), (6, 256), (8, 12), (5, 16)]


@pytest.mark.slow
def test_residual_paths_add_the_input_with_a_positive_weight():
    settings = {"features": (6, 6, 8), "num_classes": 5, "num_iters": 3, "padding": "SAME", "kernels": (3, 3, 0, 1)}
    model = models.CNMF1x1(residual=True, pooling="none", **settings)
    variables = variables_of(model)
    skips = [name for name, block in variables["params"].items() if "skip" in block]
    assert skips == ["block2"]

    def logits(scale):
        params = {**variables["params"], "block2": {**variables["params"]["block2"], "skip": jnp.full(6, scale)}}
        return trained(model, {**variables, "params": params})

    without = trained(models.CNMF1x1(pooling="none", **settings), _without_skip(variables))
    np.testing.assert_allclose(logits(0.0), without, atol=1e-5)
    assert float(jnp.abs(logits(1.0) - without).max()) > 1e-3
    np.testing.assert_array_equal(logits(-1.0), logits(1.0))


def _without_skip(variables):
    block = {k: v for k, v in variables["params"]["block2"].items() if k != "skip"}
    return {**variables, "params": {**variables["params"], "block2": block}}


def test_any_number_of_blocks_with_a_pooling_each():
    model = models.CNMF1x1(
        num_classes=3, num_iters=2, features=(4, 5), kernels=(3, 3, 1), pooling="max,none,none", padding="SAME"
    )
    logits, variables = jax.eval_shape(model.init_with_output, KEY, IMAGES)
    assert set(variables["params"]) == {"block1", "block2", "block3"}
    # The maps that remain are averaged.
    assert logits.shape == (4, 3)


def test_the_scale_of_the_logits_multiplies_them():
    variables = variables_of(models.CNMF(**TWO_BLOCKS))
    plain, scaled = (trained(models.CNMF(logit_scale=s, **TWO_BLOCKS), variables) for s in (1.0, 8.0))
    np.testing.assert_allclose(8 * plain, scaled, rtol=1e-6)


def test_initial_weights_are_powers_of_uniform_ones():
    uniform, cubes = (variables_of(models.CNMF(init_exponent=e, **TWO_BLOCKS))["params"] for e in (1.0, 3.0))
    for block in ("block1", "block2"):
        u = uniform[block]["nmf"]["u"]
        assert float(u.min()) >= 0 and abs(float(u.mean()) - 0.5) < 0.1
        np.testing.assert_allclose(cubes[block]["nmf"]["u"], u**3, rtol=1e-5)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"kernels": (5, 5, 1)}, "one kernel more than features"),
        ({"kernels": (5, 5, -1, 1)}, "kernels = -1"),
        ({"features": (32, 0, 96)}, "features = 0"),
        ({"padding": "FULL"}, "padding = 'FULL'"),
        ({"preprocessing": "pca"}, "preprocessing = 'pca'"),
        ({"logit_scale": 0.0}, "logit_scale = 0.0"),
        ({"init_exponent": -1.0}, "init_exponent = -1.0"),
        ({"whitening": (3, 1)}, "kernel_size, strides and features"),
        ({"rectification": "abs"}, "rectification = 'abs'"),
        ({"pooling": "max,none"}, "one for each of 4 blocks"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(models.CNMF1x1(**settings).init, KEY, IMAGES)
