"""Accelerated iterations, the stopping rule and bfloat16 products, held against plain EM steps."""

import re
from functools import partial

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from deepnmf_jax.core import iteration
from deepnmf_jax.core.divergences import certificate, kl_divergence
from deepnmf_jax.core.gradients import approximate_adjoint
from deepnmf_jax.core.inference import infer
from deepnmf_jax.core.iteration import Settings, iterate
from deepnmf_jax.core.normalization import normalize_patches, normalize_weights
from deepnmf_jax.core.updates import em_step
from tests.compilation import compile_as
from tests.core.test_inference import entries, problem

METHODS = ("adaptive", "multistep")
EXPONENTS = (1.0, 2.0, 8.0)
PAIRS = (1, 2, 3, 4, 6, 10, 20)


@jax.jit
def divergences(x, w):
    """KL after PAIRS pairs: of plain EM steps, one at a time; of our loop without and with acceleration."""

    def kl(**how):
        return jnp.stack([kl_divergence(x, w, iterate(x, w, Settings(num_iters=pairs, **how))) for pairs in PAIRS])

    h, plain = iteration.uniform_start(x, w.shape[0]), []
    for pairs in range(1, PAIRS[-1] + 1):
        h = em_step(x, w, h)
        if pairs in PAIRS:
            plain.append(kl_divergence(x, w, h))
    accelerated = {m: jnp.stack([kl(acceleration=m, exponent=e) for e in EXPONENTS]) for m in METHODS}
    return jnp.stack(plain), kl(), accelerated


def with_inputs_left_out(seed=8, rows=30):
    """A problem in which no unit has 3 of the 20 inputs: its divergence is above what can be changed."""
    x, w = problem(seed=seed, rows=rows)
    return x, normalize_weights(w.at[:, :3].set(0))


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    p=hnp.arrays(np.float64, (4, 6), elements=entries),
    u=hnp.arrays(np.float64, (3, 6), elements=entries),
)
def test_each_pair_more_only_lowers_the_divergence(p, u):
    x, w = normalize_patches(jnp.asarray(p)), normalize_weights(jnp.asarray(u))
    plain, ours, accelerated = jax.tree.map(np.asarray, divergences(x, w))
    np.testing.assert_allclose(ours, plain, atol=1e-12)
    for method in METHODS:
        assert (np.diff(accelerated[method], axis=1) <= 1e-12).all()
        # An exponent of 1 is the plain iteration.
        np.testing.assert_allclose(accelerated[method][0], plain, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["spread", "sparse", "near the identity"])
def test_adaptive_exponents_end_lower_than_plain_steps(kind):
    """But for one input in twenty and 0.02 nats."""
    rng = np.random.default_rng(4)
    shape = {"spread": 2.0, "sparse": 0.2, "near the identity": 0.5}[kind]
    p, u = rng.gamma(shape, size=(400, 12)), rng.gamma(shape, size=(8, 12))
    if kind == "near the identity":
        u = np.eye(8, 12) + 1e-3 * u
    x, w = normalize_patches(jnp.asarray(p)), normalize_weights(jnp.asarray(u))
    plain, _, accelerated = jax.tree.map(np.asarray, divergences(x, w))
    adaptive = accelerated["adaptive"][1:]
    above = adaptive - plain
    assert (above > 1e-9).mean(-1).max() < 0.05
    assert above.max() < 0.02
    assert (adaptive.mean(-1) <= plain.mean(-1) + 1e-9).all()
    if kind == "spread":  # of the others, a few plain steps are all that is needed
        assert adaptive[-1, PAIRS.index(10)].mean() <= plain[-1].mean()


@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.slow), "float64"])
@pytest.mark.parametrize("method", METHODS)
def test_converges_to_the_optimum(method, dtype):
    x, w = problem(seed=5, rows=40, n=30, k=12, dtype=dtype)
    h = infer(x, w, num_iters=300, acceleration=method)
    assert h.dtype == dtype
    plain = infer(x, w, num_iters=300)
    bound = {"float32": 5e-4, "float64": 4e-5 if method == "multistep" else 2e-5}[dtype]
    assert float(certificate(x, w, h).max()) < bound < 0.5 * float(certificate(x, w, plain).max())
    assert (kl_divergence(x, w, h) <= kl_divergence(x, w, plain) + 1e-6).all()


@pytest.mark.slow
@pytest.mark.parametrize("exponent", [2.5, 50.0])
@pytest.mark.parametrize("method", METHODS)
def test_zero_inputs_dead_units_and_huge_factors_stay_finite(method, exponent):
    x, w = problem(rows=5, dtype="float32")
    x = normalize_patches(x.at[1].set(0))
    w = normalize_weights(w.at[0].set(jnp.eye(20, dtype="float32")[3]).at[:, 3].add(1e-30).at[2].set(0))
    settings = {"acceleration": method, "exponent": exponent, "num_iters": 30}
    for gradient in ("approximate", "unrolled", "implicit"):
        h, vjp = jax.vjp(partial(infer, gradient=gradient, **settings), x, w)
        g = jnp.cos(jnp.arange(25, dtype=h.dtype)).reshape(5, 5)
        assert all(np.isfinite(np.asarray(a)).all() for a in (h, *vjp(g)))
    np.testing.assert_array_equal(h[1], 0)
    np.testing.assert_array_equal(h[:, 2], 0)


@pytest.mark.parametrize("pairs", [4, 5, 7])
def test_multistep_ends_where_as_many_plain_steps_do(pairs):
    rng = np.random.default_rng(0)
    x = normalize_patches(jnp.asarray(rng.random((200, 75))))
    w = normalize_weights(jnp.asarray(rng.random((32, 75)) ** 3))
    ours = infer(x, w, acceleration="multistep", num_iters=pairs, exponent=18 / (pairs - 1))
    before, there, beyond = (
        float(jnp.abs(infer(x, w, num_iters=plain) - ours).sum(-1).mean()) for plain in (16, 19, 22)
    )
    assert there < 0.3 * min(before, beyond)


@pytest.mark.parametrize("how", [*({"acceleration": method} for method in METHODS), {"tolerance": 0.05}])
def test_the_approximate_gradient_is_taken_at_the_result(how):
    x, w = problem(seed=1)
    h, vjp = jax.vjp(lambda x, w: infer(x, w, num_iters=6, **how), x, w)
    g = jnp.sin(jnp.arange(h.size)).reshape(h.shape)
    for ours, expected in zip(vjp(g), approximate_adjoint(x, w, h, g), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_the_unrolled_gradient_is_that_of_the_steps_taken(method):
    x, w = problem(seed=2, rows=3)
    rng = np.random.default_rng(0)
    dx, dw = (jnp.asarray(rng.normal(size=a.shape)) * a for a in (x, w))

    def f(t):
        return infer_at(x + t * dx, w + t * dw)

    def infer_at(x, w):
        h = iterate(x, w, Settings(num_iters=7, acceleration=method, exponent=2.5))
        return (h * jnp.sin(jnp.arange(h.size)).reshape(h.shape)).sum()

    step = 1e-6
    np.testing.assert_allclose(jax.grad(f)(0.0), (f(step) - f(-step)) / (2 * step), rtol=1e-6)


@pytest.mark.slow
def test_the_implicit_gradient_at_the_optimum_does_not_ask_how_it_was_reached():
    x, w = problem(seed=6)

    def gradient(x, w, **how):
        h, vjp = jax.vjp(lambda x, w: infer(x, w, gradient="implicit", cg_steps=20, **how), x, w)
        return vjp(jnp.sin(jnp.arange(h.size)).reshape(h.shape))

    plain = gradient(x, w, num_iters=50000)
    for method in METHODS:
        how = {"acceleration": method, "num_iters": 8000}
        for ours, expected in zip(gradient(x, w, **how), plain, strict=True):
            np.testing.assert_allclose(ours, expected, atol=1e-5 * float(jnp.abs(expected).max()))


def test_a_refused_candidate_lets_no_input_rest():
    # Steps of 30 go past the optimum of two units; some refused candidates pass by close to it.
    rng = np.random.default_rng(2)
    x, w = (jnp.asarray(rng.dirichlet(np.ones(3), size=size)) for size in (2000, 2))
    for tolerance in (0.003, 0.03):
        h = infer(x, w, num_iters=200, acceleration="multistep", exponent=30.0, tolerance=tolerance)
        excess = kl_divergence(x, w, h) - kl_divergence(x, w, infer(x, w, num_iters=3000))
        assert float(excess.max()) <= tolerance


@pytest.mark.parametrize("method", METHODS)
def test_inputs_that_no_unit_has_slow_nothing_down(method):
    x, w = with_inputs_left_out()
    left = normalize_patches(x[:, 3:])
    own, without = (infer(a, b, num_iters=9, acceleration=method) for a, b in ((x, w), (left, w[:, 3:])))
    np.testing.assert_allclose(own, without, rtol=1e-9)


def test_the_certificate_and_the_rest_know_of_inputs_that_no_unit_has():
    x, w = with_inputs_left_out()
    least = kl_divergence(x, w, infer(x, w, num_iters=20000))
    for pairs in (1, 5, 50, 20000):
        h = infer(x, w, num_iters=pairs)
        assert (kl_divergence(x, w, h) - least <= certificate(x, w, h) + 1e-12).all()
    assert float(certificate(x, w, h).max()) < 1e-3
    rested = infer(x, w, num_iters=5000, tolerance=0.01)
    assert 1e-5 < float((kl_divergence(x, w, rested) - least).max()) <= 0.01


def test_the_implicit_gradient_knows_of_inputs_that_no_unit_has():
    x, w = with_inputs_left_out()

    def gradient(x, w):
        h, vjp = jax.vjp(lambda w: infer(x, w, gradient="implicit", cg_steps=50, num_iters=50000), w)
        return vjp(jnp.sin(jnp.arange(h.size)).reshape(h.shape))[0]

    # The same codes of the inputs that are left, of which each row is a weighted part.
    weight = jnp.sum(x[:, 3:], axis=-1, keepdims=True)
    ours, expected = gradient(x, w)[:, 3:], gradient(x[:, 3:] / weight, w[:, 3:])
    np.testing.assert_allclose(ours, expected, atol=1e-6 * float(jnp.abs(expected).max()))


def test_the_certificate_of_16_bits_is_a_bound():
    x, w = problem(seed=9, rows=200, dtype="bfloat16")
    h = infer(x, w, num_iters=5)
    wide = [a.astype(jnp.float32) for a in (x, w)]
    least = kl_divergence(*wide, iterate(*wide, Settings(num_iters=3000)))
    excess = kl_divergence(*wide, h.astype(jnp.float32)) - least
    bound = certificate(x, w, h)
    assert bound.dtype == jnp.float32
    # The sums of codes of 16 bits are 1 within a rounding of theirs alone.
    assert float((excess - bound).max()) < 2e-3


@pytest.mark.parametrize("method", ["none", *METHODS])
def test_an_input_rests_at_the_tolerance_whatever_else_is_in_the_batch(method):
    x, w = problem(seed=7, rows=30)
    run = partial(infer, num_iters=5000, acceleration=method, tolerance=0.01)
    together = run(x, w)
    assert (np.asarray(certificate(x, w, infer(x, w, num_iters=2))) > 0.01).any()
    excess = kl_divergence(x, w, together) - kl_divergence(x, w, infer(x, w, num_iters=20000))
    assert float(excess.max()) <= 0.01
    # It stopped: further steps would have gone on.
    assert float(excess.max()) > 1e-5
    for row in (0, 11, 29):
        np.testing.assert_allclose(together[row], run(x[row : row + 1], w)[0], rtol=1e-10)
    # The limit on the iterations holds too, and a loose tolerance ends after the first pair.
    np.testing.assert_allclose(infer(x, w, num_iters=3, tolerance=1e-9), infer(x, w, num_iters=3), rtol=1e-12)
    np.testing.assert_allclose(run(x, w) * 0 + infer(x, w, tolerance=100.0), infer(x, w, num_iters=1), rtol=1e-12)


@pytest.mark.slow
def test_the_split_into_two_loops_changes_nothing(monkeypatch):
    x, w = problem(rows=60)
    x = x.reshape(4, 5, 3, 20)
    for how in ({}, {"acceleration": "adaptive"}, {"tolerance": 0.02}):
        whole = iterate(x, w, Settings(**how))
        monkeypatch.setattr(iteration, "SMALLEST_SPLIT", 1)
        loops = str(jax.make_jaxpr(iterate, static_argnums=2)(x, w, Settings(**how)))
        assert loops.count(" while[") + loops.count(" scan[") == 2
        np.testing.assert_allclose(iterate(x, w, Settings(**how)), whole, rtol=1e-8, atol=1e-14)
        monkeypatch.undo()


def operands(compiled, where=""):
    """The dtypes that the products of a compiled program read, of those whose line names `where`."""
    dtypes = dict(re.findall(r"%([\w.-]+) = (\w+)\[", compiled))
    names = re.findall(r" dot\(%([\w.-]+), %([\w.-]+)\).*" + where, compiled)
    return {dtypes[name] for pair in names for name in pair}


@pytest.fixture
def optimized(compilation):
    compile_as("usual")
    yield
    compile_as(compilation)


@pytest.mark.slow
def test_bfloat16_products_read_bfloat16(optimized):
    """A transposition that XLA folds into a product makes it one of float32 on a CPU, three times slower."""
    x, w = problem(rows=64, n=300, k=16, dtype="float32")

    def rounded(h, w):
        return jnp.matmul(h.astype(jnp.bfloat16), w.astype(jnp.bfloat16), preferred_element_type=jnp.float32)

    h = infer(x, w)
    if operands(jax.jit(rounded).lower(h, w).compile().as_text()) != {"bf16"}:
        pytest.skip("this processor, or this version of XLA, multiplies bfloat16 numbers as float32")
    program = jax.jit(partial(infer, products="bfloat16")).lower(x, w).compile()
    assert operands(program.as_text(), where="while/body") == {"bf16"}


@pytest.mark.parametrize("method", ["none", *METHODS])
def test_bfloat16_products_round_the_operands_and_nothing_else(method):
    x, w = problem(rows=64, n=300, k=16, dtype="float32")
    h = infer(x, w, products="bfloat16", acceleration=method, num_iters=10)
    exact = infer(x, w, acceleration=method, num_iters=10)
    assert h.dtype == jnp.float32
    assert 1e-4 < float(jnp.abs(h - exact).sum(-1).mean()) < 0.1
    np.testing.assert_allclose(h.sum(-1), 1, rtol=1e-6)
    if method == "none":
        # One step written out: operands rounded, sums in float32.
        def rounded(a):
            return a.astype(jnp.bfloat16).astype(jnp.float32)

        q = rounded(x) @ rounded(w / w.mean(0)).T
        expected = q / q.sum(-1, keepdims=True)
        np.testing.assert_allclose(infer(x, w, products="bfloat16", num_iters=1), expected, rtol=1e-5)
