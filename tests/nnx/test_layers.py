"""The NNX layers against the Linen ones: the same bits, forward and backward, for every setting."""

import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

import deepnmf_jax
from deepnmf_jax import nnx as ours
from deepnmf_jax.core.iteration import ACCELERATIONS
from deepnmf_jax.layers.fields import InferenceFields, NMFFields
from tests.conftest import load_golden

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 6, 4)), jnp.float32)
QUICK = {"num_iters": 2, "rngs": nnx.Rngs(0)}
slow = pytest.mark.slow
# Of a golden file.
GOLDEN_SAMPLES = 16


def conv(**changes):
    return ours.NMFConv(4, 6, (3, 2), **QUICK, **changes)


CASES = {
    "dense": lambda: ours.NMFDense(4, 5, **QUICK),
    "patches": lambda: conv(strides=(2, 1), padding="SAME", kernel_dilation=(1, 2), feature_group_count=2),
    "unrolled": lambda: conv(gradient="unrolled", epsilon=0.5),
    "pool": lambda: ours.NMFPool(4, **QUICK),
    "mixing": lambda: ours.LocalMixing(4, rngs=nnx.Rngs(0)),
    "conv": lambda: ours.NormalizedConv(4, 6, 3, rngs=nnx.Rngs(0), padding="SAME"),
}
MORE_CASES = {
    "scaled": lambda: conv(gradient="scaled", param_dtype=jnp.float64),
    "implicit": lambda: conv(gradient="implicit", cg_steps=2, tolerance=1e-3),
    "adaptive": lambda: conv(acceleration="adaptive", exponent=4.0),
    "multistep": lambda: conv(acceleration="multistep", exponent=3.0, products="bfloat16"),
    "tf32": lambda: conv(products="tf32"),
    "kernel": lambda: conv(implementation="interpret"),
    "kl": lambda: conv(local_learning="kl", padding=[(1, 0), (0, 2)]),
    "mse": lambda: ours.NMFDense(4, 5, local_learning="mse", u_init=jax.nn.initializers.normal(), **QUICK),
    "bfloat16": lambda: conv(dtype=jnp.bfloat16, padding=1),
    "one axis": lambda: ours.NMFConv(4, 3, 2, **QUICK),
    "windows": lambda: ours.NMFPool(4, 3, strides=1, padding="SAME", **QUICK),
    "grouped mixing": lambda: ours.LocalMixing(4, feature_group_count=2, dtype=jnp.float64, rngs=nnx.Rngs(0)),
    "grouped conv": lambda: ours.NormalizedConv(
        4, 6, (3, 2), feature_group_count=2, use_bias=False, rngs=nnx.Rngs(0)
    ),
}  # fmt: skip
ALL = [pytest.param(make, id=name) for name, make in CASES.items()]
ALL += [pytest.param(make, id=name, marks=slow) for name, make in MORE_CASES.items()]


@pytest.mark.slow
@pytest.mark.parametrize("make", ALL)
def test_the_same_bits_as_linen_forward_and_backward(make):
    layer = make()
    module, variables = ours.to_linen(layer)
    definition, state = nnx.split(layer)

    def values(function, weights):
        def loss(weights, x):
            y = function(weights, x)
            return jnp.sum(jnp.sin(3 * y.astype(jnp.float32))), y

        (_, y), gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(weights, X)
        return [y, *jax.tree.leaves(gradients)]

    linen = values(module.apply, variables)
    native = values(lambda state, x: nnx.merge(definition, state)(x), state)
    assert len(linen) == len(native) == 2 + len(jax.tree.leaves(variables))
    for theirs, own in zip(linen, native, strict=True):
        assert theirs.dtype == own.dtype and (np.asarray(theirs) == np.asarray(own)).all()
    assert all(float(jnp.abs(each.astype(jnp.float32)).max()) > 0 for each in native)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda **rngs: ours.NMFDense(4, 5, num_spikes=3, **rngs),
        pytest.param(lambda **rngs: ours.NMFConv(4, 6, 2, feature_group_count=2, num_spikes=3, **rngs), marks=slow),
        pytest.param(
            lambda **rngs: ours.NMFDense(4, 5, num_spikes=3, spike_epsilon=0.2, spike_decay=0.75, **rngs), marks=slow
        ),
    ],
)
def test_spikes_have_a_stream_of_their_own_and_one_key_gives_linens_bits(make):
    layer, again = make(rngs=nnx.Rngs(0, spikes=1)), make(rngs=nnx.Rngs(0, spikes=1))
    first = layer(X)
    assert (first == again(X)).all() and (first != layer(X)).any()
    assert (layer.u[...] == make(rngs=nnx.Rngs(0, spikes=2)).u[...]).all()
    module, variables = ours.to_linen(layer)
    assert set(variables) == {"params"} and set(variables["params"]) == {"u"}
    rngs = {"spikes": jax.random.key(5)}
    key = module.apply(variables, rngs=rngs, method=lambda module: module.make_rng("spikes"))
    expected = module.apply(variables, X, rngs=rngs)
    assert (layer(X, rngs=key) == expected).all()
    of_linen = jax.grad(lambda x: (module.apply(variables, x, rngs=rngs) ** 2).sum())(X)
    assert (jax.grad(lambda x: (layer(x, rngs=key) ** 2).sum())(X) == of_linen).all()
    stream = nnx.Rngs(spikes=3)
    assert (layer(X, rngs=nnx.Rngs(spikes=3)) == layer(X, rngs=stream.spikes)).all()
    with pytest.raises(ValueError, match=r"num_spikes = 3, but there is no key.*nnx.Rngs\(0, spikes=1\)"):
        make(rngs=nnx.Rngs(params=0))(X)


def test_whitening_is_linens():
    layer = ours.PatchWhitening(3, 1, 10)
    module, variables = ours.to_linen(layer)
    assert (layer(X) == module.apply(variables, X)).all()
    assert isinstance(ours.from_linen(module, variables), ours.PatchWhitening)


sizes = st.integers(1, 3)


@settings(max_examples=15, deadline=None)
@given(
    groups=sizes,
    kernel=st.one_of(sizes, st.lists(sizes, min_size=1, max_size=3)),
    strides=st.one_of(st.none(), sizes),
    num_iters=st.integers(1, 50),
    acceleration=st.sampled_from(ACCELERATIONS),
    seed=st.integers(0, 100),
)
def test_there_and_back_keeps_fields_and_weights(groups, kernel, strides, num_iters, acceleration, seed):
    changes = {"strides": strides, "num_iters": num_iters, "acceleration": acceleration}
    layer = ours.NMFConv(2 * groups, 3 * groups, kernel, feature_group_count=groups, **changes, rngs=nnx.Rngs(seed))
    hash(nnx.graphdef(layer))
    module, variables = ours.to_linen(layer)
    assert module.features == 3 * groups and module.num_iters == num_iters
    back = ours.from_linen(module, variables)
    assert nnx.graphdef(back) == nnx.graphdef(layer)
    assert (back.u[...] == layer.u[...]).all()


@pytest.mark.parametrize("name", ["NMFDense", "NMFConv", "NMFPool", "LocalMixing", "NormalizedConv", "PatchWhitening"])
def test_both_interfaces_have_the_same_fields_and_defaults(name):
    def defaults(module):
        found = {field.name: field.default for field in dataclasses.fields(module)}
        return {field: default for field, default in found.items() if field not in only}

    only = {"parent", "name", "in_features", "out_features"} | ({"features"} if name != "PatchWhitening" else set())
    native, linen = getattr(ours, name), getattr(deepnmf_jax, name)
    assert defaults(native) == defaults(linen)
    if issubclass(native, NMFFields):
        assert {field.name for field in dataclasses.fields(InferenceFields)} < set(defaults(native))


def test_constructors_are_nnx_ones():
    def first(module, count):
        return list(inspect.signature(module.__init__).parameters)[1 : count + 1]

    start = ["in_features", "out_features", "kernel_size", "strides", "padding"]
    assert first(ours.NMFConv, 5) == first(ours.NormalizedConv, 5) == start
    assert first(ours.NMFDense, 2) == start[:2]
    for module in (ours.NMFConv, ours.NMFDense, ours.NMFPool, ours.LocalMixing, ours.NormalizedConv, ours.CNMF):
        rngs = inspect.signature(module.__init__).parameters["rngs"]
        assert rngs.kind is inspect.Parameter.KEYWORD_ONLY and rngs.default is inspect.Parameter.empty


def test_settings_may_be_arrays_without_axes():
    """They are constants, not parts of the module's state."""
    layer = ours.NMFDense(4, 5, num_iters=np.int64(3), epsilon=jnp.float32(0.5), rngs=nnx.Rngs(0))
    same = ours.NMFDense(4, 5, num_iters=3, epsilon=0.5, rngs=nnx.Rngs(0))
    run = nnx.jit(lambda layer, x: layer(x))
    np.testing.assert_array_equal(run(layer, X), run(same, X))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: ours.NMFDense(4, 0, **QUICK), "features = 0"),
        (lambda: ours.NMFDense(0, 4, **QUICK), "in_features = 0"),
        (lambda: ours.NMFDense(4, 5, num_iters=0, rngs=nnx.Rngs(0)), "num_iters = 0"),
        (lambda: ours.NMFConv(4, 6, 3, feature_group_count=4, **QUICK), "must divide the 4 input channels and .* 6"),
        (lambda: ours.NMFConv(4, 6, (3, 0), **QUICK), "kernel_size"),
        (lambda: ours.LocalMixing(4, feature_group_count=3, rngs=nnx.Rngs(0)), "must divide the 4 input channels"),
        (lambda: ours.NMFDense(3, 5, **QUICK)(X), r"shape \(2, 5, 6, 4\); the last axis must have in_features = 3"),
        (lambda: ours.NMFConv(4, 6, (9, 9), **QUICK)(X), "does not fit"),
        (lambda: ours.from_linen(deepnmf_jax.NMFDense(3), {"params": {}}), "not those of"),
        (lambda: ours.from_linen(deepnmf_jax.NMFDense(3), {"params": {"u": jnp.ones((2, 4))}}), r"u: \(2, 4\) for"),
        (lambda: ours.from_linen(object(), {}), "give a Linen module of deepnmf_jax: NMFDense"),
        (lambda: ours.to_linen(nnx.Linear(2, 2, rngs=nnx.Rngs(0))), "type Linear; give an NNX module"),
    ],
)  # fmt: skip
def test_mistakes_are_told(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_golden_files_through_nnx(layer_file):
    golden = load_golden(layer_file)
    u, p, g = (jnp.asarray(golden[name][: None if name == "u" else GOLDEN_SAMPLES], jnp.float64) for name in "upg")
    layer = ours.NMFDense(
        u.shape[1],
        u.shape[0],
        num_iters=int(golden["num_iters"]),
        epsilon=float(golden["epsilon_paper"]),
        dtype=jnp.float64,
        param_dtype=jnp.float64,
        rngs=nnx.Rngs(0),
    )
    layer.u[...] = u
    codes = nnx.jit(lambda layer, p: layer(p))(layer, p)
    np.testing.assert_allclose(codes, golden["h"][:GOLDEN_SAMPLES], rtol=1e-11, atol=1e-13)
    if "grad_p" in golden and len(golden["p"]) <= GOLDEN_SAMPLES and golden["p"].sum(-1).min() > 0:
        of_layer, of_data = nnx.jit(nnx.grad(lambda layer, p: jnp.sum(layer(p) * g), argnums=(0, 1)))(layer, p)
        # A layer rectifies its input first, and the slope of that at 0 is 0.
        for found, name in ((of_layer.u[...], "grad_u"), (of_data, "grad_p")):
            error = np.where(golden["p"] > 0, found - golden[name], 0) if name == "grad_p" else found - golden[name]
            assert np.linalg.norm(error) <= 1e-11 * np.linalg.norm(golden[name]) + 1e-14
