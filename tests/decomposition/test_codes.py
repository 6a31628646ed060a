"""Codes for a fixed dictionary: exact, deterministic, with the gradients of finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepnmf_jax import NMF
from deepnmf_jax.decomposition.codes import Penalties, Settings, encode, solve_codes

N, P, K = 4, 9, 3
ENCODE = jax.jit(encode, static_argnames=("settings",))
SOLVE = jax.jit(solve_codes, static_argnames=("settings",))
CASES = [
    ("hals", 2.0, False),
    ("pgd", 2.0, False),
    ("hals", 2.0, True),
    ("mu", 1.0, False),
    ("mu", 1.5, True),
]


def problem(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.random((N, P)) + 0.05, rng.random((K, P))


def test_codes_are_the_non_negative_least_squares_solution() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    a, d = problem()
    for solver in ("hals", "pgd", "anls", "mu"):
        codes = ENCODE(a, d, settings=Settings(solver), max_iter=2000, tol=1e-12)
        expected = np.stack([optimize.nnls(d.T, row)[0] for row in a])
        np.testing.assert_allclose(codes, expected, atol=1e-9)


def test_the_report_says_how_it_ended() -> None:
    a, d = problem()
    _, report = SOLVE(a, d, Penalties(), tol=1e-6, max_iter=300)
    assert report.converged and 0 < report.iterations < 300 and report.residual <= 1e-8
    rng = np.random.default_rng(0)
    _, report = SOLVE(rng.random((9, 30)), rng.random((20, 30)), Penalties(), tol=1e-6, max_iter=1)
    assert not report.converged and report.iterations == 1 and report.residual > 1e-8


@pytest.mark.slow
@pytest.mark.parametrize(("solver", "beta", "weighted"), CASES)
def test_gradients_are_those_of_finite_differences(solver: str, beta: float, weighted: bool) -> None:
    a, d = problem(1)
    rng = np.random.default_rng(2)
    q = rng.random((N, P)) + 0.2 if weighted else None
    target = rng.random((N, K))
    penalties = Penalties(0.05, 0.1)
    settings = Settings(solver, beta)
    solved = jax.jit(lambda a, d, penalties, q: jnp.sum(encode(a, d, penalties, q, settings, 20_000, 1e-11) * target))
    gradients = jax.jit(jax.grad(solved, argnums=(0, 1, 2)))(a, d, penalties, q)
    step = 1e-5
    for argument, gradient in ((a, gradients[0]), (d, gradients[1])):
        for _ in range(2):
            direction = rng.standard_normal(argument.shape)
            pairs = [(x * direction + a, d) if argument is a else (a, x * direction + d) for x in (step, -step)]
            up, down = (float(solved(*pair, penalties, q)) for pair in pairs)
            assert float(jnp.sum(gradient * direction)) == pytest.approx((up - down) / (2 * step), rel=1e-5, abs=1e-7)
    up, down = (float(solved(a, d, penalties._replace(l1_z=0.05 + x), q)) for x in (step, -step))
    assert float(gradients[2].l1_z) == pytest.approx((up - down) / (2 * step), rel=1e-5)


def test_zeros_stay_and_pass_no_gradient() -> None:
    a, d = problem(3)
    d[1] = 0
    a[0] = 0
    gradient = jax.jit(jax.grad(lambda a: jnp.sum(encode(a, d))))(a)
    assert np.isfinite(gradient).all() and not gradient[0].any() and gradient[1:].any()


@pytest.mark.slow
def test_the_method_is_differentiable() -> None:
    a, _ = problem(4)
    model = NMF(2, max_iter=200, tol=0)
    model.fit(a)
    gradient = jax.jit(jax.grad(lambda a: jnp.sum(model.encode(a) ** 2)))(jnp.asarray(a))
    direction = np.random.default_rng(0).standard_normal(a.shape)
    up, down = (np.sum(model.encode(a + x * direction, 2000, 1e-10) ** 2) for x in (1e-5, -1e-5))
    assert float(jnp.sum(gradient * direction)) == pytest.approx((up - down) / 2e-5, rel=1e-3)


def test_jit_and_vmap() -> None:
    a, d = problem(5)
    expected = encode(a, d)
    np.testing.assert_allclose(jax.jit(encode)(a, d), expected, atol=1e-12)
    mapped = jax.jit(jax.vmap(lambda row: encode(row[None], d)[0]))(jnp.asarray(a))
    np.testing.assert_allclose(mapped, expected, atol=1e-5)
