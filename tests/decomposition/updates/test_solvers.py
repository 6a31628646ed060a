"""What every step promises: the objective does not rise, factors stay non-negative, fast forms equal plain loops."""

from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental.sparse import BCOO

from deepnmf_jax.core.inference import infer
from deepnmf_jax.core.updates import em_factor
from deepnmf_jax.decomposition.updates.beta_divergence import beta_divergence, beta_terms
from deepnmf_jax.decomposition.updates.hals import coordinate_sweep, residual_sweep
from deepnmf_jax.decomposition.updates.linear_algebra import largest_eigenvalue_bound
from deepnmf_jax.decomposition.updates.objective import (
    Half,
    Penalties,
    Target,
    gradient_of,
    objective,
    projected_gradient_norm,
)
from deepnmf_jax.decomposition.updates.solvers import SOLVERS, SolverSettings, sweep

N, P, K = 11, 7, 4
STEPS = {
    (solver, beta): jax.jit(partial(sweep, settings=SolverSettings(solver, beta)))
    for solver, beta in [*((s, 2.0) for s in SOLVERS), *(("mu", b) for b in (0.0, 0.5, 1.0, 1.5, 3.0))]
}
OBJECTIVE = jax.jit(objective, static_argnums=3)
SWEEP = jax.jit(coordinate_sweep, static_argnums=3)
RESIDUAL_SWEEP = jax.jit(residual_sweep, static_argnums=2)
GRADIENT = jax.jit(lambda zt, d, target, beta: gradient_of(target.for_codes(d), beta)(zt), static_argnums=3)
BOUND = jax.jit(largest_eigenvalue_bound)
NORM = jax.jit(projected_gradient_norm)

strengths = st.sampled_from([0.0, 1e-3, 0.3, 4.0])
problems = st.tuples(st.integers(0, 10_000), strengths, strengths, strengths, strengths, st.booleans())


def problem(seed: int, sparse: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    a = rng.random((N, P)) * (rng.random((N, P)) > 0.4 if sparse else 1)
    return a, rng.random((K, N)), rng.random((K, P))


@pytest.mark.parametrize(("solver", "beta"), list(STEPS))
@settings(max_examples=20, deadline=None)
@given(problems)
def test_the_objective_never_rises(solver: str, beta: float, drawn: tuple) -> None:
    seed, l1_z, l2_z, l1_d, l2_d, weighted = drawn
    a, zt, d = problem(seed, sparse=beta > 0)
    a = a + 0.05 * (beta <= 0)
    weights = np.random.default_rng(seed).integers(0, 3, (N, P)).astype(float) if weighted else None
    target = Target(a, Penalties(l1_z, l2_z, l1_d, l2_d), weights)
    before = float(OBJECTIVE(zt, d, target, beta))
    for _ in range(6):
        zt, d = STEPS[solver, beta](zt, d, target)
        after = float(OBJECTIVE(zt, d, target, beta))
        assert after <= before * (1 + 1e-9) + 1e-12
        assert (np.asarray(zt) >= 0).all() and (np.asarray(d) >= 0).all()
        before = after


@pytest.mark.parametrize("solver", SOLVERS)
@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([2.0**-40, 2.0**-10, 2.0**20]))
def test_steps_do_not_depend_on_the_unit(solver: str, seed: int, scale: float) -> None:
    a, zt, d = problem(seed)
    step = STEPS[solver, 2.0]
    expected = step(zt, d, Target(a))
    scaled = step(zt * scale**0.5, d * scale**0.5, Target(a * scale))
    for one, other in zip(expected, scaled, strict=True):
        np.testing.assert_allclose(np.asarray(other) / scale**0.5, one, rtol=1e-9, atol=1e-12)


def plain_sweep(x: np.ndarray, c: np.ndarray, b: np.ndarray) -> np.ndarray:
    x = x.copy()
    for j in range(len(x)):
        if b[j, j] > 0:
            x[j] = np.maximum(0, x[j] + (c[j] - b[j] @ x) / b[j, j])
    return x


@pytest.mark.parametrize("block", [1, 3, 5, 64])
def test_blocks_and_residuals_give_the_iterates_of_the_plain_loop(block: int) -> None:
    rng = np.random.default_rng(0)
    f, a, x = rng.random((13, 6)), rng.random((9, 6)), rng.random((13, 9))
    f[4] = 0
    l1, l2 = 0.3, 0.0
    expected = plain_sweep(x, f @ a.T - l1, f @ f.T)
    np.testing.assert_allclose(SWEEP(x, f @ a.T - l1, f @ f.T, block), expected, atol=1e-12)
    np.testing.assert_allclose(RESIDUAL_SWEEP(x, Half(f, a, l1, l2), block), expected, atol=1e-12)
    np.testing.assert_array_equal(expected[4], x[4])
    l2 = 0.7
    expected = plain_sweep(x, f @ a.T - l1, f @ f.T + l2 * np.eye(13))
    np.testing.assert_allclose(RESIDUAL_SWEEP(x, Half(f, a, l1, l2), block), expected, atol=1e-12)


def test_many_atoms_take_the_residual_and_agree_with_gram_matrices() -> None:
    rng = np.random.default_rng(1)
    a, zt, d = rng.random((8, 6)), rng.random((30, 8)), rng.random((30, 6))
    penalties = Penalties(0.1, 0.2, 0.3, 0.0)
    step = STEPS["hals", 2.0]
    dense = step(zt, d, Target(a, penalties))
    sparse = step(zt, d, Target(BCOO.fromdense(jax.numpy.asarray(a)), penalties))
    for one, other in zip(dense, sparse, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-11)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 1.5, 2.0, 3.0])
def test_gradients_are_those_of_the_objective(beta: float) -> None:
    a, zt, d = problem(3)
    a = a + 0.1
    penalties = Penalties(0.1, 0.2, 0.3, 0.4)
    for weights in (None, np.random.default_rng(5).random((N, P))):
        target = Target(a, penalties, weights)
        expected = jax.jit(jax.grad(lambda zt: objective(zt, d, target, beta)))(zt)  # noqa: B023
        np.testing.assert_allclose(GRADIENT(zt, d, target, beta), expected, atol=1e-9)


def test_divergences_are_those_of_scikit_learn() -> None:
    nmf = pytest.importorskip("sklearn.decomposition._nmf")
    a, zt, d = problem(4, sparse=True)
    w = zt.T @ d
    for beta in (0.5, 1.0, 1.5, 2.0, 3.0):
        expected = nmf._beta_divergence(a, zt.T, d, beta)
        assert float(beta_divergence(a, w, beta)) == pytest.approx(expected, rel=1e-9)
    assert float(beta_divergence(a + 0.1, w, 0.0)) == pytest.approx(nmf._beta_divergence(a + 0.1, zt.T, d, 0), rel=1e-9)


def test_the_kullback_leibler_step_is_the_networks_inference() -> None:
    rng = np.random.default_rng(6)
    x, w = rng.random((5, 8)), rng.random((3, 8))
    x, w = x / x.sum(1, keepdims=True), w / w.sum(1, keepdims=True)
    h = np.full((5, 3), 1 / 3)
    above, below = beta_terms(x, h, w, 1.0)
    np.testing.assert_array_equal(above, em_factor(x, w, h))
    np.testing.assert_allclose(below, 1, atol=1e-12)
    d = jax.numpy.asarray(w)
    zt = h.T
    for _ in range(20):
        zt, _ = STEPS["mu", 1.0](zt, d, Target(x))
    np.testing.assert_allclose(zt.T, infer(x, w, num_iters=20), atol=1e-9)


@pytest.mark.parametrize("solver", ["hals", "anls", "pgd", "mu"])
def test_weights_against_a_plain_loop_over_samples(solver: str) -> None:
    """With weights 0 and 1, the codes of each sample are those of its observed entries alone."""
    a, zt, d = problem(7)
    q = (np.random.default_rng(8).random((N, P)) > 0.4).astype(float)
    q[2] = 0
    step = STEPS[solver, 2.0]
    codes = np.array(step(zt, d, Target(np.where(q > 0, a, 123.0), weights=q))[0]).T
    assert (codes[2] == 0).all() or solver == "mu"
    if solver == "hals":
        for i in np.flatnonzero(q.any(1)):
            seen = q[i] > 0
            f, row = d[:, seen], a[i, seen]
            np.testing.assert_allclose(codes[i], plain_sweep(zt[:, [i]], f @ row[:, None], f @ f.T)[:, 0], atol=1e-10)


def test_the_projected_gradient_norm_falls_to_zero() -> None:
    a, zt, d = problem(9)
    start = NORM(zt, d, Target(a))
    for _ in range(400):
        zt, d = STEPS["hals", 2.0](zt, d, Target(a))
    assert NORM(zt, d, Target(a)) < 1e-2 * start


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([2, 4, 6]), st.booleans())
def test_the_eigenvalue_bound_is_a_bound(seed: int, k: int, signed: bool) -> None:
    f = np.random.default_rng(seed).standard_normal((k, 5))
    b = f @ f.T if signed else np.abs(f) @ np.abs(f).T
    exact = np.linalg.eigvalsh(b)[-1]
    bound = float(BOUND(b))
    assert bound >= exact * (1 - 1e-12)
    assert signed or bound <= 1.2 * exact


@pytest.mark.parametrize("beta", [2.0, 1.0])
def test_what_underflows_in_a_multiplicative_step_can_grow_again(beta: float) -> None:
    a, zt, d = (x.astype(np.float32) for x in problem(7))
    tiny, step = np.finfo(np.float32).tiny, STEPS["mu", beta]
    zt[0, 0], zt[1, 0], a[1] = 2 * tiny, 0, 0
    far = Target(np.where(np.arange(N)[:, None] == 0, np.float32(1e-3) * a, a))
    low, _ = step(zt, d, far)
    assert low[0, 0] == tiny and low[1, 0] == 0 and not np.asarray(low)[:, 1].any()
    grown, _ = step(low, d, Target(np.float32(1e3) * a))
    assert grown[0, 0] > tiny and grown[1, 0] == 0
