"""Which images and settings a network takes, and what it says of others; batches of no and of any size."""

import inspect

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from deepnmf_jax import models
from deepnmf_jax.models.fields import block_groups

KEY = jax.random.key(0)
SMALL = {"features": (4, 4, 4), "kernels": (3, 3, 0, 1), "num_classes": 3, "num_iters": 2}
NETWORKS = {
    "CNMF1x1": models.CNMF1x1(),
    "CNN": models.CNN(),
    "groups": models.CNMF(groups=2),
    "beyond": models.Network(
        features=(8, 8, 8), kernels=(3, 3, 0, 1), padding="SAME", rectification="on_off", residual=True
    ),
    "learned pooling": models.CNN1x1(pooling="conv"),
}
STRICT = (lambda: jax.numpy_dtype_promotion("strict"), lambda: jax.numpy_rank_promotion("raise"))


def images(*shape, dtype="float32"):
    return jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))


def variables_for(model, *shape):
    return jax.eval_shape(model.init, KEY, images(1, *shape))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    "shape, advice",
    [
        ((36, 36, 3), r"cut them.*center_crop\(images, 28\)"),
        ((20, 20, 3), "enlarge them"),
        ((28, 28, 1), r"jnp.repeat\(images, 3, axis=-1\)"),
        ((3, 28, 28), r"jnp.moveaxis\(images, 1, -1\)"),
        ((28, 28, 4), "give 3 channels"),
    ],
    ids=str,
)
def test_other_images_are_told_which_are_wanted(name, shape, advice):
    model = NETWORKS[name]
    variables = variables_for(model, 28, 28, 3)
    with pytest.raises(ValueError, match=rf"for \(batch, 28, 28, 3\): .*{advice}"):
        jax.eval_shape(model.apply, variables, images(5, *shape))


def test_whitened_images_tell_their_sides_alone():
    model = models.CNMF1x1(preprocessing="whitening", whitening=(3, 2, 10))
    variables = variables_for(model, 32, 32, 3)
    with pytest.raises(ValueError, match=r"for \(batch, 28, 28, c\): cut them"):
        jax.eval_shape(model.apply, variables, images(5, 40, 40, 3))
    jax.eval_shape(model.apply, variables, images(5, 28, 28, 3))


@pytest.mark.parametrize("channels", [1, 5])
def test_signs_apart_are_of_the_channels_that_the_variables_are_for(channels):
    model = models.CNMF1x1(preprocessing="on_off")
    with pytest.raises(ValueError, match=r"for \(batch, 28, 28, 3\): .*3"):
        jax.eval_shape(model.apply, variables_for(model, 28, 28, 3), images(5, 28, 28, channels))


@pytest.mark.parametrize("other", [models.CNMF1x1(features=(8, 8, 8)), models.CNMF1x1(kernels=(3, 5, 0, 1))], ids=str)
def test_variables_of_another_network_are_not_blamed_on_the_size(other):
    with pytest.raises(ValueError, match="other shapes than its variables"):
        jax.eval_shape(models.CNMF1x1().apply, variables_for(other, 28, 28, 3), images(5, 28, 28, 3))


def test_images_that_are_no_batch():
    with pytest.raises(ValueError, match=r"images\[None\] is a batch of one"):
        jax.eval_shape(models.CNMF().init, KEY, images(28, 28, 3))
    with pytest.raises(ValueError, match="no axis but the first may be empty"):
        jax.eval_shape(models.CNMF().init, KEY, images(2, 0, 28, 3))


def test_one_number_of_groups_divides_a_block_at_least():
    with pytest.raises(ValueError, match=r"groups = 7 divides the channels of no block; block 1 \(3 input and 32 .*\) "
                                         r"can have 1; block 2 .* can have 1, 2, 4, 8, 16, 32;"):  # fmt: skip
        variables_for(models.CNMF1x1(groups=7), 28, 28, 3)
    assert block_groups(np.int64(16), [3, 32], [32, 64]) == (1, 16)
    assert block_groups(np.array([1, 4]), [3, 32], [32, 64]) == (1, 4)


@pytest.mark.slow
def test_settings_may_be_scalars_of_numpy():
    plain = {"width": 0.5, "groups": 2, "logit_scale": 3.0, "init_exponent": 2.0, "batch_norm_momentum": 0.5}
    settings = {name: np.float64(value) for name, value in plain.items()} | {"groups": np.int64(2)}
    x = np.random.default_rng(0).random((2, 8, 8, 2), "float32")
    found = []
    for given, mixing, iterations in ((plain, True, 2), (settings, np.bool_(True), np.int64(2))):
        classes, rest = type(iterations)(3), {k: v for k, v in SMALL.items() if k not in ("num_classes", "num_iters")}
        model = models.Network(**rest, **given, num_classes=classes, num_iters=iterations, mixing=mixing)
        found.append(jax.jit(lambda x, m=model: m.init_with_output(KEY, x, train=True))(x))
    assert found[1][0].dtype == jnp.float32
    jax.tree.map(np.testing.assert_array_equal, *found)


@pytest.mark.slow
def test_an_empty_batch_has_no_logits_and_no_statistics():
    model = models.CNMF1x1(tolerance=1e-3, acceleration="multistep", **SMALL)
    variables = jax.jit(model.init)(KEY, jnp.zeros((1, 8, 8, 2), jnp.float32))

    @jax.jit
    def step(params, x):
        def loss(params):
            logits, updates = model.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])
            return (logits**2).sum(), (logits, updates)

        return jax.grad(loss, has_aux=True)(params)

    gradients, (logits, updates) = step(variables["params"], jnp.zeros((0, 8, 8, 2), jnp.float32))
    assert logits.shape == (0, 3)
    assert all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(gradients))
    jax.tree.map(np.testing.assert_array_equal, updates["batch_stats"], variables["batch_stats"])


EXPORTED = {
    "CNMF1x1": models.CNMF1x1(tolerance=1e-3, acceleration="adaptive", **SMALL),
    "beyond": models.Network(
        padding="SAME", rectification="on_off", residual=True, preprocessing="whitening", pooling="nmf", **SMALL
    ),
    "CNN1x1": models.CNN1x1(pooling="max", preprocessing="on_off", batch_statistics="batch", **SMALL),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTED)
def test_export_with_an_open_batch_size(name):
    model = EXPORTED[name]
    variables = jax.jit(model.init)(KEY, jnp.zeros((1, 8, 8, 2), jnp.float32))
    sizes = jax.ShapeDtypeStruct(jax.export.symbolic_shape("b, 8, 8, 2"), jnp.float32)
    program = jax.export.export(jax.jit(model.apply))(variables, sizes)
    for batch in (1, 3) if name == "CNMF1x1" else ():
        x = jax.random.uniform(KEY, (batch, 8, 8, 2), "float32")
        np.testing.assert_allclose(program.call(variables, x), model.apply(variables, x), rtol=1e-4, atol=1e-6)
    train = jax.jit(lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"]))
    assert jax.export.export(train)(variables, sizes).out_avals[0].shape[1:] == (3,)


@pytest.mark.parametrize("name", [name if name == "CNN" else pytest.param(name, marks=pytest.mark.slow)
                                  for name in NETWORKS])  # fmt: skip
def test_networks_promote_nothing_unasked(name):
    model = NETWORKS[name]
    for strict in STRICT:
        with strict():
            for dtype in ("float32", "bfloat16"):
                x = images(2, 16, 16, 4, dtype=dtype)
                variables = jax.eval_shape(model.init, KEY, x)

                def loss(variables, x):
                    logits, _ = model.apply(variables, x, train=True, mutable=["batch_stats"])
                    return (logits**2).sum()

                jax.eval_shape(jax.grad(loss), variables, x)
                assert jax.eval_shape(model.apply, variables, x).dtype == jnp.float32


@pytest.mark.parametrize("name", ["CNN", "CNMF", "CNN1x1", "CNMF1x1"])
def test_the_papers_networks_are_classes_with_fields_in_their_help(name):
    network = getattr(models, name)
    assert inspect.isclass(network) and issubclass(network, models.Network)
    assert network.__doc__ and "Network" in network.__doc__
    fields = inspect.signature(network).parameters
    assert {"num_classes", "features", "num_iters"} <= set(fields)
