"""Properties of the inference: sums, monotone divergence, certificate, dtypes, zero inputs."""

from functools import partial

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepnmf_jax.core.divergences import certificate, kl_divergence, residual
from deepnmf_jax.core.inference import infer
from deepnmf_jax.core.iteration import Settings, iterate
from deepnmf_jax.core.normalization import normalize_patches, normalize_weights
from deepnmf_jax.core.updates import em_step


def problem(seed=0, rows=6, n=20, k=5, dtype="float64"):
    rng = np.random.default_rng(seed)
    p, u = rng.gamma(0.5, size=(rows, n)), rng.normal(size=(k, n))
    return normalize_patches(jnp.asarray(p, dtype)), normalize_weights(jnp.asarray(u, dtype))


def numpy_inference(x, w, num_iters, epsilon):
    """Eq. 6 as the paper writes it, one sample and one unit at a time."""
    h = np.full((len(x), len(w)), 1 / len(w))
    for m in range(len(x)):
        for _ in range(num_iters):
            r = [sum(w[j, s] * h[m, j] for j in range(len(w))) for s in range(x.shape[1])]
            q = [sum(w[i, s] * x[m, s] / r[s] for s in range(x.shape[1])) for i in range(len(w))]
            h[m] = [h[m, i] + epsilon * h[m, i] * (q[i] - 1) for i in range(len(w))]
    return h


@pytest.mark.parametrize("epsilon", [1.0, 0.3])
def test_equals_the_papers_update_rule(epsilon):
    x, w = problem(rows=2, n=7, k=3)
    expected = numpy_inference(np.asarray(x), np.asarray(w), 9, epsilon)
    np.testing.assert_allclose(infer(x, w, num_iters=9, epsilon=epsilon), expected, rtol=1e-12)


@partial(jax.jit, static_argnames="epsilon")
def trajectory(x, w, epsilon):
    """Divergences along the first 12 iterations, and the last activities."""
    activities = [iterate(x, w, Settings(num_iters=1, epsilon=epsilon))]
    for _ in range(11):
        activities.append(em_step(x, w, activities[-1], epsilon))
    return jnp.stack([kl_divergence(x, w, h) for h in activities]), activities[-1]


# Sums far below 1 are left out: the authors' 1e-19 keeps the sum of x away from 1 there.
entries = st.floats(1e-6, 1) | st.just(0.0)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    p=hnp.arrays(np.float64, (4, 6), elements=entries),
    u=hnp.arrays(np.float64, (3, 6), elements=entries),
    epsilon=st.sampled_from([1.0, 0.5]),
)
def test_divergence_never_rises_and_rows_sum_to_one(p, u, epsilon):
    x, w = normalize_patches(jnp.asarray(p)), normalize_weights(jnp.asarray(u))
    divergences, h = map(np.asarray, trajectory(x, w, epsilon))
    # Where no unit covers an input, the divergence is infinite from start to end.
    explained = ((np.asarray(x) > 0) <= (np.asarray(w).sum(0) > 0)).all(-1)
    empty = np.asarray(x).sum(-1) == 0
    assert (np.diff(divergences, axis=0)[:, explained] <= 1e-12).all()
    np.testing.assert_allclose(h.sum(-1)[explained & ~empty], 1, rtol=1e-12)
    np.testing.assert_array_equal(h[empty], 0)


def test_certificate_bounds_the_excess():
    x, w = problem(seed=3)
    best = kl_divergence(x, w, infer(x, w, num_iters=20000))
    for num_iters in (1, 5, 20, 100):
        h = infer(x, w, num_iters=num_iters)
        excess = kl_divergence(x, w, h) - best
        assert (np.asarray(excess) <= np.asarray(certificate(x, w, h)) + 1e-12).all()
        assert (np.asarray(excess) <= np.log(w.shape[0]) / (num_iters + 1)).all()


def test_residual_is_the_distance_of_the_next_iterate():
    x, w = problem()
    h, following = infer(x, w, num_iters=20), infer(x, w, num_iters=21)
    np.testing.assert_allclose(residual(x, w, h), jnp.abs(following - h).sum(-1), rtol=1e-10)
    assert float(residual(x, w, infer(x, w, num_iters=30000)).max()) < 1e-10


@pytest.mark.parametrize("epsilon", [1.0, 0.5])
@pytest.mark.parametrize("gradient", ["approximate", "unrolled", "implicit"])
def test_zero_inputs_and_units_in_float32_under_jit(gradient, epsilon):
    x, w = problem(rows=5, dtype="float32")
    x = x.at[1].set(0).at[3, 4:].set(0)
    x = normalize_patches(x)
    u = w.at[2].set(0)

    @jax.jit
    def run(p, u):
        def layer(p, u):
            x, w = normalize_patches(p), normalize_weights(u)
            return infer(x, w, epsilon=epsilon, gradient=gradient)

        h, vjp = jax.vjp(layer, p, u)
        return h, *vjp(jnp.cos(jnp.arange(h.size, dtype=h.dtype)).reshape(h.shape))

    h, grad_p, grad_u = (np.asarray(a) for a in run(x, u))
    assert all(np.isfinite(a).all() for a in (h, grad_p, grad_u))
    np.testing.assert_array_equal(h[1], 0)
    np.testing.assert_array_equal(grad_p[1], 0)
    np.testing.assert_array_equal(grad_u[2], 0)
    assert np.abs(grad_p[0]).max() > 1e-3 * np.abs(grad_p).max() > 0
    if epsilon == 1.0:
        np.testing.assert_array_equal(h[:, 2], 0)


@pytest.mark.parametrize("gradient", ["approximate", "unrolled", "implicit"])
def test_an_input_that_only_faded_units_explain_keeps_gradients_finite(gradient):
    # Unit 1 alone covers entry 3, whose input is 0: its activity underflows and R with it.
    x = jnp.asarray([[0.5, 0.5, 0.0, 0.0]], jnp.float32)
    w = jnp.asarray([[0.5, 0.5, 0.0, 0.0], [1e-3, 0.0, 0.0, 0.999]], jnp.float32)
    run = jax.jit(jax.grad(lambda x, w: (infer(x, w, num_iters=60, gradient=gradient) ** 2).sum(), argnums=(0, 1)))
    assert all(np.isfinite(np.asarray(a)).all() for a in run(x, w))


def test_bfloat16_is_close_and_accumulates_in_float32():
    x, w = problem(rows=64, n=300, k=16, dtype="float32")
    h16 = infer(x.astype(jnp.bfloat16), w.astype(jnp.bfloat16))
    assert h16.dtype == jnp.bfloat16
    rounded = [a.astype(jnp.bfloat16).astype(jnp.float32) for a in (x, w)]
    # The same operands in float32: only the rounding of the result may remain.
    np.testing.assert_allclose(h16.astype(jnp.float32), infer(*rounded), rtol=2**-8, atol=1e-6)
    grads = jax.grad(lambda x, w: infer(x, w)[:, 0].astype(jnp.float32).sum(), argnums=(0, 1))
    for ours, expected in zip(grads(x.astype(jnp.bfloat16), w.astype(jnp.bfloat16)), grads(*rounded), strict=True):
        assert ours.dtype == jnp.bfloat16
        error = jnp.linalg.norm(ours.astype(jnp.float32) - expected)
        assert error <= 2**-8 * jnp.linalg.norm(expected)


def test_result_takes_the_dtype_of_x_and_any_leading_axes():
    x, w = problem(dtype="float32")
    assert infer(x, w.astype("float64")).dtype == jnp.float32
    stacked = infer(x.reshape(2, 3, 20), w)
    np.testing.assert_allclose(stacked.reshape(6, 5), infer(x, w), rtol=1e-6)
    np.testing.assert_allclose(infer(x[0], w), infer(x, w)[0], rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(partial(infer, w=w))(x), infer(x, w), rtol=1e-5)
