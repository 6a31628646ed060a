"""The four gradients against their definitions, each other, and finite differences; and what they keep in memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepnmf_jax.core.gradients import approximate_adjoint, implicit_adjoint
from deepnmf_jax.core.inference import infer
from deepnmf_jax.core.normalization import normalize_patches, normalize_weights
from tests.core.test_inference import problem


def relative_error(a, b):
    return float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))


@pytest.fixture
def cotangent():
    return jnp.asarray(np.random.default_rng(9).normal(size=(6, 5)))


def test_custom_vjp_equals_the_vjp_of_one_further_step(cotangent):
    x, w = problem()
    h, vjp = jax.vjp(infer, x, w)

    def step_at_fixed_h(x, w):
        return h * ((x / (h @ w + 1e-20)) @ w.T)

    for ours, expected in zip(vjp(cotangent), jax.vjp(step_at_fixed_h, x, w)[1](cotangent), strict=True):
        assert relative_error(ours, expected) < 1e-14


def test_the_approximate_gradient_is_the_implicit_one_without_steps(cotangent):
    x, w = problem()
    h = infer(x, w)
    pairs = zip(implicit_adjoint(x, w, h, cotangent, cg_steps=0), approximate_adjoint(x, w, h, cotangent), strict=True)
    assert all(relative_error(a, b) < 1e-14 for a, b in pairs)
    ours = jax.vjp(lambda x, w: infer(x, w, gradient="implicit", cg_steps=0), x, w)[1](cotangent)
    expected = jax.vjp(infer, x, w)[1](cotangent)
    assert all(relative_error(a, b) < 1e-14 for a, b in zip(ours, expected, strict=True))


def layer(p, u, **settings):
    return infer(normalize_patches(p), normalize_weights(u), **settings)


def well_conditioned(seed=0):
    """A problem with fewer units than inputs, whose fixed point is reached within some thousand iterations."""
    rng = np.random.default_rng(seed)
    u = rng.gamma(0.2, size=(4, 15))
    p = rng.gamma(1.0, size=(3, 4)) @ u + 0.01 * rng.random((3, 15))
    return jnp.asarray(p), jnp.asarray(u), jnp.asarray(rng.normal(size=(3, 4)))


@pytest.mark.slow
def test_implicit_equals_unrolled_at_a_converged_fixed_point():
    p, u, g = well_conditioned()
    implicit = jax.vjp(lambda p, u: layer(p, u, num_iters=4000, gradient="implicit", cg_steps=30), p, u)[1](g)
    unrolled = jax.vjp(lambda p, u: layer(p, u, num_iters=4000, gradient="unrolled"), p, u)[1](g)
    assert all(relative_error(a, b) < 1e-8 for a, b in zip(implicit, unrolled, strict=True))


@pytest.mark.parametrize(
    "settings", [{"num_iters": 20, "gradient": "unrolled"}, {"num_iters": 4000, "gradient": "implicit", "cg_steps": 30}]
)
def test_finite_differences(settings):
    p, u, g = well_conditioned(seed=1)
    f = jax.jit(lambda p, u: jnp.sum(g * layer(p, u, **settings)))
    grads = jax.grad(f, argnums=(0, 1))(p, u)
    rng = np.random.default_rng(0)
    for argument, grad in enumerate(grads):
        direction = jnp.asarray(rng.normal(size=grad.shape)) * jnp.abs((p, u)[argument])
        moved = [[p, u], [p, u]]
        moved[0][argument] += 1e-6 * direction
        moved[1][argument] -= 1e-6 * direction
        difference = (f(*moved[0]) - f(*moved[1])) / 2e-6
        np.testing.assert_allclose(jnp.sum(grad * direction), difference, rtol=2e-6)


@pytest.mark.slow
def test_direction_of_the_approximate_gradient():
    """At 20 iterations it points where the unrolled one does, and is shorter by about that number (docs/math.md)."""
    rng = np.random.default_rng(0)
    p, u, g = rng.random((40, 75)), rng.random((32, 75)), rng.normal(size=(40, 32))
    short = jax.vjp(layer, p, u)[1](g)
    full = jax.vjp(lambda p, u: layer(p, u, gradient="unrolled"), p, u)[1](g)
    for a, b in zip(short, full, strict=True):
        cosine = jnp.sum(a * b) / (jnp.linalg.norm(a) * jnp.linalg.norm(b))
        assert cosine > 0.97
        assert 1 / 40 < jnp.linalg.norm(a) / jnp.linalg.norm(b) < 1 / 10


STEPS = {
    "plain": ({"num_iters": 5}, 5),
    "short steps": ({"num_iters": 6, "epsilon": 0.5}, 3),
    "multistep": ({"num_iters": 5, "acceleration": "multistep", "exponent": 4.75}, 20),
    "adaptive": ({"num_iters": 6, "acceleration": "adaptive"}, 6),
}


@pytest.mark.parametrize("case", STEPS)
def test_the_scaled_gradient_is_the_approximate_one_times_the_plain_steps(case, cotangent):
    settings, steps = STEPS[case]
    x, w = problem()
    h, scaled = jax.vjp(lambda x, w: infer(x, w, gradient="scaled", **settings), x, w)
    same, approximate = jax.vjp(lambda x, w: infer(x, w, **settings), x, w)
    np.testing.assert_array_equal(h, same)
    for ours, one in zip(scaled(cotangent), approximate(cotangent), strict=True):
        assert relative_error(ours, steps * one) < 1e-14


def test_the_scaled_gradient_is_about_the_unrolled_one_after_few_iterations():
    """Which the approximate one is not: it is a fifth as long."""
    rng = np.random.default_rng(0)
    p, u, g = rng.random((40, 75)), rng.random((32, 75)), rng.normal(size=(40, 32))
    ours, full = (
        jax.vjp(lambda p, u, way=way: layer(p, u, num_iters=5, gradient=way), p, u)[1](g)
        for way in ("scaled", "unrolled")
    )
    for a, b in zip(ours, full, strict=True):
        assert relative_error(a, b) < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_implicit_gradient_of_inputs_with_fewer_entries_than_units_stays_bounded(dtype):
    """One to four entries and 16 overlapping units: the system is singular, and its solutions have no bound."""
    rng = np.random.default_rng(0)
    p = np.zeros((64, 25))
    for row in p:
        row[rng.choice(25, rng.integers(1, 5), replace=False)] = rng.random()
    p, u, g = (jnp.asarray(a, dtype) for a in (p, rng.random((16, 25)) ** 2, rng.normal(size=(64, 16))))
    for num_iters in (20, 320):
        size = {}
        for way in ({"gradient": "approximate"}, {"gradient": "implicit", "cg_steps": 16}):
            gradient = jax.jit(jax.vjp(lambda p, u, s=way, n=num_iters: layer(p, u, num_iters=n, **s), p, u)[1])(g)[1]
            size[way["gradient"]] = float(jnp.linalg.norm(gradient))
        assert size["implicit"] * jnp.sqrt(jnp.finfo(dtype).eps) < size["approximate"]


def temporary_bytes(gradient, num_iters):
    x, w = problem(rows=512, n=75, k=32, dtype="float32")
    f = jax.grad(lambda x, w: infer(x, w, num_iters=num_iters, gradient=gradient)[..., 0].sum(), argnums=(0, 1))
    return jax.jit(f).lower(x, w).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("gradient", ["approximate", "implicit"])
def test_memory_does_not_grow_with_the_iterations(gradient):
    assert temporary_bytes(gradient, 80) == temporary_bytes(gradient, 5)


@pytest.mark.slow
def test_memory_of_the_unrolled_gradient_grows():
    assert temporary_bytes("unrolled", 80) > 8 * temporary_bytes("unrolled", 5)


@pytest.mark.skipif(not hasattr(jax, "shard_map"), reason="this JAX does not follow what differs between devices")
@pytest.mark.parametrize("gradient", ["approximate", "scaled", "implicit", "unrolled"])
def test_weights_shared_by_the_devices_of_shard_map(gradient):
    """One device is enough for JAX's types to tell weights that all share from inputs of which each has its own."""
    x, w = problem()
    everywhere, own = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec("data")
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), "data")

    def loss(w, x):
        return jnp.sum(jnp.sin(infer(x, w, gradient=gradient)))

    mapped = jax.shard_map(jax.grad(loss), mesh=mesh, in_specs=(everywhere, own), out_specs=everywhere)
    ours, expected = jax.jit(mapped)(w, x), jax.jit(jax.grad(loss))(w, x)
    np.testing.assert_allclose(ours, expected, rtol=1e-12)
