"""Forward mode: right where gradient = "unrolled", and an error in words elsewhere; reverse mode as if nothing were."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepnmf_jax.core.gradients import GRADIENTS, with_local_gradient
from deepnmf_jax.core.inference import infer
from deepnmf_jax.core.reverse_only import reverse_tangent
from deepnmf_jax.layers import NMFConv, NMFDense
from tests.core.test_inference import problem

X, W = problem(rows=2, n=6, k=3)
DX = jnp.asarray(np.random.default_rng(1).normal(size=X.shape)) * X
DW = jnp.asarray(np.random.default_rng(2).normal(size=W.shape)) * W


@jax.custom_jvp
def doubled_backwards(x):
    """sin(x), whose gradient is taken twice."""
    return jnp.sin(x)


@doubled_backwards.defjvp
def _doubled_backwards_jvp(primals, tangents):
    y = jnp.sin(primals[0])
    return y, reverse_tangent(y, primals, tangents, lambda x, g: (2 * g * jnp.cos(x),), "never seen")


FORWARD = {
    "jvp": lambda f: jax.jvp(f, (X,), (DX,)),
    "jitted jvp": lambda f: jax.jit(lambda x, d: jax.jvp(f, (x,), (d,)))(X, DX),
    "jacfwd": lambda f: jax.jacfwd(f)(X),
    "linearize": lambda f: jax.linearize(f, X)[1](DX),
    "in reverse mode": lambda f: jax.grad(lambda x: jax.jvp(f, (x,), (DX,))[1].sum())(X),
    "vmap": lambda f: jax.vmap(lambda d: jax.jvp(f, (X,), (d,))[1])(DX[None]),
    "jitted jacfwd": lambda f: jax.jit(jax.jacfwd(f))(X),
    "twice": lambda f: jax.jacfwd(jax.jacfwd(f))(X),
}


@pytest.mark.parametrize("way", FORWARD)
def test_other_gradients_say_that_they_have_a_reverse_mode_only(way):
    with pytest.raises(ValueError, match="gradient = 'approximate' in forward mode .* reverse mode only.* 'unrolled'"):
        FORWARD[way](partial(infer, w=W))


@pytest.mark.parametrize("gradient", [name for name in GRADIENTS if name != "unrolled"])
def test_each_gradient_and_each_layer_says_so(gradient):
    settings = {"gradient": gradient, "tolerance": 1e-3, "acceleration": "multistep"}
    with pytest.raises(ValueError, match=f"gradient = '{gradient}' in forward mode"):
        jax.jvp(lambda w: infer(X, w, **settings), (W,), (DW,))
    layer = NMFDense(3, **settings)
    variables = jax.jit(layer.init)(jax.random.key(0), X)
    with pytest.raises(ValueError, match=f"gradient = '{gradient}' in forward mode"):
        jax.jvp(lambda v: layer.apply(v, X), (variables,), (variables,))


def test_local_rules_say_so():
    h = jnp.ones((2, 3)) / 3
    with pytest.raises(ValueError, match="the local rule 'kl' in forward mode .* reverse mode only"):
        jax.jvp(lambda h: with_local_gradient(h, X, W, "kl"), (h,), (h,))
    layer = NMFDense(3, gradient="unrolled", local_learning="mse")
    variables = jax.jit(layer.init)(jax.random.key(0), X)
    with pytest.raises(ValueError, match="the local rule 'mse' in forward mode"):
        jax.jacfwd(lambda x: layer.apply(variables, x))(X)
    with pytest.raises(ValueError, match="'hebb' is unknown"):
        with_local_gradient(h, X, W, "hebb")


@pytest.mark.parametrize("settings", [{}, {"epsilon": 0.5}, {"acceleration": "multistep", "exponent": 2.0}], ids=str)
def test_unrolled_forward_mode_equals_reverse_mode_and_differences(settings):
    f = partial(infer, num_iters=5, gradient="unrolled", **settings)

    @jax.jit
    def both(x, w):
        _, forward = jax.jvp(f, (x, w), (DX, DW))
        in_x, in_w = jax.jacrev(f, argnums=(0, 1))(x, w)
        return forward, jnp.tensordot(in_x, DX, 2) + jnp.tensordot(in_w, DW, 2), f(x, w)

    forward, reverse, _ = both(X, W)
    np.testing.assert_allclose(forward, reverse, atol=1e-13)
    step = 1e-5
    ends = [both(X + s * DX, W + s * DW)[2] for s in (step, -step)]
    np.testing.assert_allclose(forward, (ends[0] - ends[1]) / (2 * step), atol=1e-7)
    assert float(jnp.abs(forward).max()) > 1e-3


def test_unrolled_forward_mode_through_a_layer_with_groups():
    layer = NMFConv(4, (2, 2), gradient="unrolled", feature_group_count=2, num_iters=3, param_dtype="float64")
    images = jax.random.normal(jax.random.key(0), (1, 3, 3, 2), "float64")
    variables = jax.jit(layer.init)(jax.random.key(1), images)

    @jax.jit
    def both(variables, images):
        def f(v, x):
            return jnp.sum(jnp.sin(5 * layer.apply(v, x)))

        _, forward = jax.jvp(f, (variables, images), (variables, images**2))
        of_v, of_x = jax.grad(f, argnums=(0, 1))(variables, images)
        reverse = jnp.vdot(of_v["params"]["u"], variables["params"]["u"]) + jnp.vdot(of_x, images**2)
        return forward, reverse, jax.linearize(partial(f, variables), images)[1](images), jnp.vdot(of_x, images)

    forward, reverse, linear, reversed_linear = both(variables, images)
    np.testing.assert_allclose(forward, reverse, rtol=1e-10)
    np.testing.assert_allclose(linear, reversed_linear, atol=1e-12)
    assert abs(float(forward)) > 1e-4


@pytest.mark.parametrize("gradient", ["approximate", "unrolled"])
def test_the_hessian_is_the_derivative_of_the_gradient(gradient):
    def loss(x):
        return jnp.sum(jnp.sin(3 * infer(x, W, num_iters=3, gradient=gradient)))

    hessian, twice, gradients = jax.jit(
        lambda x: (jax.hessian(loss)(x), jax.jacrev(jax.grad(loss))(x), jax.grad(loss)(x))
    )(X)
    np.testing.assert_allclose(hessian, twice, atol=1e-11)
    step = 1e-6
    ends = [jax.jit(jax.grad(loss))(X + s * DX) for s in (step, -step)]
    np.testing.assert_allclose(jnp.tensordot(hessian, DX, 2), (ends[0] - ends[1]) / (2 * step), atol=1e-6)
    assert gradients.shape == X.shape


TRANSFORMS = {
    "plain": lambda f: f,
    "jit": jax.jit,
    "vmap": lambda f: lambda x: jax.vmap(f)(x[None])[0],
    "vmap over another axis": lambda f: jax.vmap(f, in_axes=1, out_axes=1),
    "remat": jax.checkpoint,
    "scan": lambda f: lambda x: jax.lax.scan(lambda c, _: (f(c), None), x, None, length=1)[0],
    "cond": lambda f: lambda x: jax.lax.cond(x.sum() > -100, f, lambda x: 0 * x, x),
    "no gradient asked for": lambda f: lambda x: f(x) + 0 * f(jax.lax.stop_gradient(x)),
    "other layers": lambda f: lambda x: 1.0 * f(x + 0),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", TRANSFORMS)
def test_reverse_mode_passes_through_every_transformation(way):
    f = TRANSFORMS[way](doubled_backwards)
    np.testing.assert_array_equal(f(X), jnp.sin(X))

    def total(x):
        return f(x).sum()

    for gradient in (jax.grad(total), jax.jit(jax.grad(total)), lambda x: jax.vmap(jax.grad(total))(x[None])[0]):
        np.testing.assert_allclose(gradient(X), 2 * jnp.cos(X), rtol=1e-14)
    np.testing.assert_allclose(jax.jacrev(f)(X)[0, 1, 0, 1], 2 * jnp.cos(X)[0, 1], rtol=1e-14)
    np.testing.assert_allclose(jax.grad(lambda x: jax.grad(total)(x)[0, 0])(X)[0, 0], -2 * jnp.sin(X)[0, 0], rtol=1e-14)
    with pytest.raises(ValueError, match="never seen"):
        jax.jvp(f, (X,), (DX,))


def test_what_a_batch_shares_gets_the_sum_of_the_gradients():
    shared = jax.jit(jax.grad(lambda w: jax.vmap(lambda x: infer(x, w))(X)[:, 0].sum()))(W)
    np.testing.assert_allclose(shared, jax.jit(jax.grad(lambda w: infer(X, w)[:, 0].sum()))(W), rtol=1e-12)
