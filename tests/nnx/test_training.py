"""NNX's own ways with our modules: optimizer, jit, split and merge, vmap, remat, checkpoints."""

import inspect
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx

from deepnmf_jax import nnx as ours

SHAPE = (8, 8, 1)


class Own(nnx.Module):
    """A model of a user's own around our layers."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.nmf = ours.NMFConv(1, 6, (3, 3), num_iters=3, rngs=rngs)
        self.mix = ours.LocalMixing(6, rngs=rngs)
        self.readout = nnx.Linear(6 * 36, 3, rngs=rngs)

    def __call__(self, images):
        x = self.mix(self.nmf(images))
        return self.readout(x.reshape(len(x), -1))


def bars():
    """Images of one bright row in noise; its place is the class."""
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 3
    images = rng.random((24, *SHAPE)) / 3
    images[np.arange(24), 1 + 2 * labels] = 1
    return jnp.asarray(images, jnp.float32), jnp.asarray(labels)


def loss_of(model, images, labels):
    return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()


@nnx.jit
def train_step(model, optimizer, images, labels):
    loss, gradients = nnx.value_and_grad(loss_of)(model, images, labels)
    if "model" in inspect.signature(optimizer.update).parameters:
        optimizer.update(model, gradients)
    else:  # flax 0.10: the optimizer holds the model
        optimizer.update(gradients)
    return loss


@pytest.mark.slow
def test_a_training_loop_learns():
    model = Own(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(0.03), wrt=nnx.Param)
    images, labels = bars()
    before = model.nmf.u[...]
    losses = [float(train_step(model, optimizer, images, labels)) for _ in range(60)]
    assert losses[-1] < 0.3 * losses[0]
    assert (before != model.nmf.u[...]).any()
    assert (model(images).argmax(-1) == labels).all()


@pytest.mark.slow
@pytest.mark.skipif(
    "model" not in inspect.signature(nnx.Optimizer.update).parameters, reason="flax 0.10: the optimizer holds the model"
)
def test_the_training_loop_of_the_guide_runs():
    page = (Path(__file__).resolve().parents[2] / "docs" / "nnx.md").read_text(encoding="utf-8")
    code = page.partition("```python\n")[2].partition("```")[0]
    assert "optimizer.update(model, gradients)" in code
    space = {"__name__": "__main__"}
    exec(compile(code, "docs/nnx.md", "exec"), space)
    assert jnp.isfinite(space["train_step"](*(space[name] for name in ("model", "optimizer", "images", "labels"))))


@pytest.mark.slow
def test_a_networks_training_loop_moves_its_statistics_and_a_checkpoint_brings_it_back(tmp_path):
    def make(seed):
        return ours.CNMF1x1(
            SHAPE, num_classes=3, features=(4,), kernels=(3, 0), num_iters=2, pooling="none", rngs=nnx.Rngs(seed)
        )

    model, (images, labels) = make(0), bars()
    optimizer = nnx.Optimizer(model, optax.adam(0.01), wrt=nnx.Param)
    for _ in range(3):
        train_step(model, optimizer, images, labels)
    assert float(jnp.abs(model.block1.bn_a.mean[...]).max()) > 0
    model.eval()
    expected = model(images)

    kinds = (nnx.Param, nnx.BatchStat)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "model", nnx.to_pure_dict(nnx.state(model, kinds)))
        checkpointer.wait_until_finished()
        other = make(1)
        state = nnx.state(other, kinds)
        nnx.replace_by_pure_dict(state, checkpointer.restore(tmp_path / "model", nnx.to_pure_dict(state)))
    nnx.update(other, state)
    other.eval()
    np.testing.assert_array_equal(other(images), expected)


@pytest.mark.slow
def test_split_merge_and_jit_keep_the_bits_and_share_one_program():
    images, _ = bars()
    model = Own(nnx.Rngs(0))
    expected = model(images)
    definition, state = nnx.split(model)
    calls = []

    @nnx.jit
    def run(model, images):
        calls.append(1)
        return model(images)

    # Equal definitions are one program, whoever made them.
    for each in (model, nnx.merge(definition, state), Own(nnx.Rngs(1))):
        found = run(each, images)
    assert len(calls) == 1 and found.shape == expected.shape
    np.testing.assert_allclose(run(nnx.clone(model), images), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_vmap_makes_and_runs_several_layers():
    x = jnp.asarray(np.random.default_rng(0).random((5, 4)), jnp.float32)

    @nnx.split_rngs(splits=3)
    @nnx.vmap
    def make(rngs):
        return ours.NMFDense(4, 2, num_iters=2, rngs=rngs)

    layers = make(nnx.Rngs(0))
    assert layers.u[...].shape == (3, 2, 4) and (layers.u[...][0] != layers.u[...][1]).any()
    h = nnx.vmap(lambda layer, x: layer(x), in_axes=(0, None))(layers, x)
    assert h.shape == (3, 5, 2)
    single = ours.NMFDense(4, 2, num_iters=2, rngs=nnx.Rngs(0))
    for i in range(3):
        single.u = nnx.Param(layers.u[...][i])
        np.testing.assert_allclose(h[i], single(x), rtol=1e-5)


@pytest.mark.slow
def test_remat_leaves_the_gradients_as_they_are():
    images, labels = bars()
    model = Own(nnx.Rngs(0))
    plain = nnx.jit(nnx.grad(loss_of))(model, images, labels)
    call = nnx.remat(lambda model, x: model(x))

    def loss(model, images, labels):
        return loss_of(lambda x: call(model, x), images, labels)

    for a, b in zip(
        jax.tree.leaves(plain), jax.tree.leaves(nnx.jit(nnx.grad(loss))(model, images, labels)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8)
