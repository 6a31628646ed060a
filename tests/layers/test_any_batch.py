"""Batches of no example, batches whose size `jax.export` leaves open, maps that are too small."""

import subprocess
import sys

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from deepnmf_jax.core.inference import infer
from deepnmf_jax.layers import LocalMixing, NMFConv, NMFDense, NMFPool, NormalizedConv, PatchWhitening

KEY = jax.random.key(0)
STOPPING = {"tolerance": 1e-3, "num_iters": 3}
LAYERS = {
    "dense": (NMFDense(3, **STOPPING), (4,)),
    "dense, adaptive": (NMFDense(3, acceleration="adaptive", **STOPPING), (4,)),
    "dense, kernel": (NMFDense(3, implementation="interpret", **STOPPING), (4,)),
    "dense, implicit": (NMFDense(3, gradient="implicit", **STOPPING), (4,)),
    "dense, local": (NMFDense(3, local_learning="kl", **STOPPING), (4,)),
    "convolution": (NMFConv(4, (3, 3), padding="SAME", strides=2, **STOPPING), (5, 6, 2)),
    "groups": (NMFConv(4, (3, 3), feature_group_count=2, acceleration="multistep", **STOPPING), (5, 6, 2)),
    "groups, plain": (NMFConv(4, (2, 2), feature_group_count=2, num_iters=2), (5, 6, 2)),
    "pooling": (NMFPool(acceleration="multistep", **STOPPING), (5, 6, 2)),
    "unrolled": (NMFConv(4, (3, 3), gradient="unrolled", acceleration="adaptive", num_iters=3), (5, 6, 2)),
    "mixing": (LocalMixing(), (5, 6, 2)),
    "mixing, groups": (LocalMixing(feature_group_count=2), (5, 6, 2)),
    "normalised convolution": (NormalizedConv(4, (3, 3), feature_group_count=2), (5, 6, 2)),
    "whitening": (PatchWhitening(features=4), (5, 6, 2)),
}


# The others in the slow tests.
QUICK = ("dense", "groups", "pooling", "mixing")


def cases(*names):
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in names]


def images(*shape):
    return jax.random.normal(KEY, shape, "float32")


@pytest.mark.parametrize("case", cases(*LAYERS))
def test_an_empty_batch_has_empty_codes_and_gradients_of_zero(case):
    layer, shape = LAYERS[case]
    variables = jax.jit(layer.init)(KEY, images(2, *shape))
    empty = jnp.zeros((0, *shape), jnp.float32)
    expected = jax.eval_shape(layer.apply, variables, images(2, *shape)).shape

    @jax.jit
    def run(variables, x):
        return layer.apply(variables, x), jax.grad(lambda v, x: layer.apply(v, x).sum(), (0, 1))(variables, x)

    codes, (of_variables, of_inputs) = run(variables, empty)
    assert codes.shape == (0, *expected[1:]) and of_inputs.shape == empty.shape
    assert all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(of_variables))
    assert jax.eval_shape(layer.init, KEY, empty) == jax.eval_shape(layer.init, KEY, images(2, *shape))


@pytest.mark.slow
@pytest.mark.parametrize("case", cases(*(case for case in LAYERS if case != "dense, kernel")))
def test_export_with_an_open_batch_size(case):
    layer, shape = LAYERS[case]
    variables = jax.jit(layer.init)(KEY, images(2, *shape))
    sizes = jax.export.symbolic_shape("b, " + ", ".join(map(str, shape)))
    program = jax.export.export(jax.jit(layer.apply))(variables, jax.ShapeDtypeStruct(sizes, jnp.float32))
    if case in ("dense", "groups"):
        for batch in (1, 3):
            x = images(batch, *shape)
            np.testing.assert_allclose(program.call(variables, x), layer.apply(variables, x), rtol=1e-5, atol=1e-7)


def test_export_of_a_gradient():
    layer, shape = LAYERS["groups"]
    variables = jax.jit(layer.init)(KEY, images(2, *shape))
    sizes = jax.ShapeDtypeStruct(jax.export.symbolic_shape("b, 5, 6, 2"), jnp.float32)
    gradient = jax.jit(jax.grad(lambda v, x: (layer.apply(v, x) ** 2).sum()))
    exported = jax.export.export(gradient)(variables, sizes)
    assert [aval.shape for aval in exported.out_avals] == [(4, 9)]


@pytest.mark.slow
def test_an_exported_program_runs_without_the_package(tmp_path):
    """As docs/examples.md says: in a process that cannot import deepnmf_jax or Flax."""
    layer, shape = LAYERS["dense"]
    variables, x = jax.jit(layer.init)(KEY, images(2, *shape)), images(5, *shape)
    sizes = jax.ShapeDtypeStruct(jax.export.symbolic_shape("b, 4"), jnp.float32)
    exported = jax.export.export(jax.jit(lambda x: layer.apply(variables, x)))(sizes)
    (tmp_path / "network.bin").write_bytes(exported.serialize())
    np.save(tmp_path / "x.npy", x)
    program = """
import sys
sys.modules["deepnmf_jax"] = sys.modules["flax"] = None
import jax.export
import numpy as np
with open("network.bin", "rb") as file:
    loaded = jax.export.deserialize(bytearray(file.read()))
np.save("found.npy", loaded.call(np.load("x.npy")))
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), layer.apply(variables, x), rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_an_exported_program_can_be_written_down_with_its_gradient():
    layer, shape = LAYERS["dense"]
    variables, x = jax.jit(layer.init)(KEY, images(2, *shape)), images(3, *shape)
    sizes = jax.ShapeDtypeStruct(jax.export.symbolic_shape("b, 4"), jnp.float32)
    content = jax.export.export(jax.jit(layer.apply))(variables, sizes).serialize(vjp_order=1)
    ours = jax.vjp(jax.export.deserialize(content).call, variables, x)[1](jnp.ones((3, 3), jnp.float32))
    expected = jax.vjp(layer.apply, variables, x)[1](jnp.ones((3, 3), jnp.float32))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours, expected)


ALL_SETTINGS = {"strides": (2, 1), "padding": ((1, 0), (2, 2)), "kernel_dilation": (1, 2), "feature_group_count": 2}


@pytest.mark.parametrize(
    "layer, constraints",
    [
        (NMFConv(4, (3, 3), padding="SAME", num_iters=2), ()),
        pytest.param(NMFConv(4, (3, 3), num_iters=2), (), marks=pytest.mark.slow),
        # JAX has to know that there is a position at least.
        pytest.param(NMFConv(4, (3, 2), num_iters=2, **ALL_SETTINGS), ("h >= 4", "w >= 4"), marks=pytest.mark.slow),
        pytest.param(NMFPool(2, num_iters=2), ("h >= 2", "w >= 2"), marks=pytest.mark.slow),
    ],
    ids=["same", "valid", "all settings", "pooling"],
)
def test_export_with_open_sides(layer, constraints):
    x = images(2, 6, 7, 2)
    variables = jax.jit(layer.init)(KEY, x)
    sizes = jax.export.symbolic_shape("b, h, w, 2", constraints=constraints)
    program = jax.export.export(jax.jit(layer.apply))(variables, jax.ShapeDtypeStruct(sizes, jnp.float32))
    np.testing.assert_allclose(program.call(variables, x), layer.apply(variables, x), rtol=1e-5, atol=1e-7)


def test_the_kernel_says_that_it_needs_the_size_of_the_batch():
    layer, shape = LAYERS["dense, kernel"]
    variables = jax.jit(layer.init)(KEY, images(2, *shape))
    sizes = jax.ShapeDtypeStruct(jax.export.symbolic_shape("b, 4"), jnp.float32)
    with pytest.raises(ValueError, match="implementation = 'interpret' .* the batch, .* 'xla'"):
        jax.export.export(jax.jit(layer.apply))(variables, sizes)


def test_infer_of_no_rows():
    w = jnp.ones((4, 6)) / 6
    for settings in ({}, {"tolerance": 1e-3}, {"tolerance": 1e-3, "acceleration": "adaptive"}):
        assert infer(jnp.zeros((0, 6)), w, **settings).shape == (0, 4)


@pytest.mark.parametrize(
    "layer, shape, message",
    [
        (NMFDense(3), (2, 0), "at least one entry"),
        (NMFDense(3), (), "at least one axis"),
        (LocalMixing(), (2, 4, 0), "at least one entry"),
        (LocalMixing(feature_group_count=3), (2, 4), "feature_group_count = 3 must divide the 4 input channels"),
        (LocalMixing(feature_group_count=0), (2, 4), "feature_group_count = 0"),
        (NMFConv(3, (2, 2)), (2, 5, 5, 0), "at least one entry"),
        (NMFConv(3, (2, 2)), (5, 5), "2 spatial axes and channels last"),
        (NMFConv(3, (2, 2)), (2, 0, 5, 1), "does not fit a padded map"),
        (NMFConv(3, (2, 2), padding="SAME"), (2, 0, 5, 1), "does not fit a padded map"),
        (NormalizedConv(3, (4, 4)), (2, 3, 5, 1), "does not fit a padded map"),
        (NMFPool(), (2, 1, 5, 1), "does not fit a padded map"),
        (NMFPool((2, 2, 2)), (4, 4, 3), "3 spatial axes"),
        (PatchWhitening(), (2, 0, 5, 3), "without a 0"),
        (PatchWhitening(), (5, 5, 3), "batch, height, width"),
    ],
    ids=str,
)
def test_inputs_without_room_are_refused(layer, shape, message):
    for batch in (shape, (0, *shape[1:])):
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(layer.init, KEY, jnp.zeros(batch if shape else ()))
