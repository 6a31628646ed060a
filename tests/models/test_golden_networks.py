"""The four networks against the golden files: logits, loss, every gradient, ten Adam steps."""

import math
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from deepnmf_jax import models
from deepnmf_jax.training.losses import training_loss
from deepnmf_jax.training.optimizers import create_optimizer
from tests.conftest import load_golden

pytestmark = pytest.mark.slow


def patch_shapes(golden):
    """Channels, height and width of the patches of each block, from the shapes of the main weights."""
    shapes, channels = {}, golden["images_u8"].shape[-1]
    for i in (1, 2, 3, 4):
        k, n = next(
            golden[f"param:block{i}/{name}"].shape for name in ("nmf/u", "conv/w") if f"param:block{i}/{name}" in golden
        )
        side = math.isqrt(n // channels)
        shapes[f"block{i}"], channels = (channels, side, side), k
    return shapes


def model_of(golden):
    """The network whose parameters a golden file holds."""
    nmf, mixing = "param:block1/nmf/u" in golden, "param:block1/mix/w" in golden
    features = golden["param:block1/nmf/u" if nmf else "param:block1/conv/w"].shape[0]
    return models.Network(
        num_classes=golden["logits"].shape[-1],
        layer="nmf" if nmf else "conv",
        mixing=mixing,
        width=features / 32,
        use_bias="param:block1/conv/b" in golden,
        num_iters=int(golden.get("num_iters", 20)),
    )


def ours(name, value, patches):
    """Path and value in this package of a golden parameter, whose patches are ordered channel first."""
    block, part, kind = name.split("/")
    if part in ("nmf", "conv") and value.ndim == 2:
        channels, height, width = patches[block]
        value = value.reshape(-1, channels, height, width).transpose(0, 2, 3, 1).reshape(len(value), -1)
        return (block, part, "u" if part == "nmf" else "kernel"), value if part == "nmf" else value.T[None]
    if part == "mix" and kind == "w":
        return (block, part, "kernel"), value.T
    return (block, part, {"b": "bias", "offset": "bias"}.get(kind, kind)), value


def tree(golden, prefix, dtype):
    params: dict = {}
    patches = patch_shapes(golden)
    for key, value in golden.items():
        if key.startswith(prefix):
            (block, part, kind), value = ours(key.removeprefix(prefix), value, patches)
            params.setdefault(block, {}).setdefault(part, {})[kind] = jnp.asarray(value, dtype)
    return params


def loss_of(model, golden, dtype):
    images = jnp.asarray(golden["images_u8"], dtype) / 255
    labels = jnp.asarray(golden["labels"])
    # A batch in training is normalised by its own statistics: the running ones may be anything.
    stats = jax.eval_shape(model.init, jax.random.key(0), images).get("batch_stats", {})

    def loss(params):
        variables = {"params": params, "batch_stats": jax.tree.map(lambda a: jnp.zeros(a.shape, dtype), stats)}
        logits, _ = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return training_loss(logits, labels), logits

    return loss


@cache
def compiled(network_file, dtype):
    """The golden file, its parameters, the optimiser's state, and a compiled Adam step that returns gradients too."""
    golden = load_golden(network_file)
    model = model_of(golden)
    rates = {"nmf": 0.01, "mixing": 0.001, "batch_norm": 0.001}
    settings = {"learning_rate": rates, "b1": 0.9, "b2": 0.999, "eps": 1e-8, "schedule": "constant"}
    optimizer = create_optimizer(settings, num_steps=10)
    loss_and_gradients = jax.value_and_grad(loss_of(model, golden, dtype), has_aux=True)

    @jax.jit
    def step(params, state):
        (loss, logits), gradients = loss_and_gradients(params)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, loss, logits, gradients

    params = tree(golden, "param:", dtype)
    return golden, params, optimizer.init(params), step


@cache
def evaluate(network_file, dtype):
    golden, params, state, step = compiled(network_file, dtype)
    _, _, loss, logits, gradients = step(params, state)
    return golden, loss, logits, gradients


def before_batch_norm(path):
    """Biases whose true gradient is 0, because a batch norm follows."""
    block, part, kind = path
    return block in ("block1", "block2") and part in ("mix", "conv") and kind == "bias"


@pytest.mark.parametrize("dtype, absolute, relative", [("float64", 1e-11, 1e-11), ("float32", 5e-6, 2e-6)])
def test_logits_and_loss(network_file, dtype, absolute, relative):
    golden, loss, logits, _ = evaluate(network_file, dtype)
    assert logits.dtype == dtype
    np.testing.assert_allclose(logits, golden["logits"], rtol=0, atol=absolute)
    np.testing.assert_allclose(jax.nn.softmax(logits), golden["probs"], rtol=0, atol=absolute)
    np.testing.assert_allclose(loss, golden["loss"], rtol=relative)


@pytest.mark.parametrize("dtype, relative", [("float64", 1e-11), ("float32", 1e-4)])
def test_every_parameter_gradient(network_file, dtype, relative):
    golden, _, _, gradients = evaluate(network_file, dtype)
    expected = tree(golden, "grad:", "float64")
    leaves = jax.tree_util.tree_leaves_with_path(expected)
    assert len(leaves) == len(jax.tree.leaves(gradients))
    for path, value in leaves:
        names = tuple(key.key for key in path)
        got = np.asarray(gradients[names[0]][names[1]][names[2]], np.float64)
        if before_batch_norm(names):
            assert np.abs(got).max() <= (1e-13 if dtype == "float64" else 1e-6)
        else:
            assert np.linalg.norm(got - value) <= relative * np.linalg.norm(value), names


def test_ten_adam_steps(network_file):
    golden, params, state, step = compiled(network_file, "float64")
    losses = []
    for _ in range(11):
        params, state, loss, *_ = step(params, state)
        losses.append(float(loss))
    np.testing.assert_allclose(losses, golden["adam_losses"], rtol=1e-10)
