"""Entries held fixed, overlap penalties and a graph over the samples: every step lowers the objective they are in."""

from functools import partial
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepnmf_jax.decomposition.updates.graph import Graph, make_graph
from deepnmf_jax.decomposition.updates.objective import (
    Penalties,
    Smoothness,
    Target,
    gradient_of,
    objective,
    projected_gradient_norm,
)
from deepnmf_jax.decomposition.updates.solvers import SOLVERS, SolverSettings, sweep

N, P, K = 9, 7, 4
KINDS = [*((s, 2.0) for s in SOLVERS), *(("mu", b) for b in (0.0, 0.5, 1.0, 1.5, 3.0))]
STEPS = {kind: jax.jit(partial(sweep, settings=SolverSettings(*kind))) for kind in KINDS}
OBJECTIVE = jax.jit(objective, static_argnums=3)
GRADIENTS = jax.jit(jax.grad(objective, (0, 1)), static_argnums=3)
OURS = jax.jit(
    lambda zt, d, target, beta: (
        gradient_of(target.for_codes(d), beta)(zt),
        gradient_of(target.for_dictionary(zt), beta)(d),
    ),
    static_argnums=3,
)
strengths = st.sampled_from([0.0, 1e-2, 0.5, 20.0])


def ring(n: int) -> Graph:
    """Samples in a circle, each bound to the next, strongly and weakly in turn."""
    rows, columns = np.arange(n), (np.arange(n) + 1) % n
    ends = np.concatenate([rows, columns]), np.concatenate([columns, rows])
    order = np.lexsort(ends[::-1])
    weights = np.tile(np.where(rows % 2, 0.3, 1.0), 2)
    return make_graph(ends[0][order], ends[1][order], weights[order], n, False, np.float64)


def laplacian(graph: Graph) -> np.ndarray:
    s = np.zeros((len(graph.degrees),) * 2)
    s[np.asarray(graph.rows), np.asarray(graph.columns)] = graph.weights
    return np.diag(s.sum(1)) - s


def problem(seed: int, beta: float = 2.0, **more: Any) -> tuple[np.ndarray, np.ndarray, Target]:
    rng = np.random.default_rng(seed)
    a = rng.random((N, P)) * (rng.random((N, P)) > 0.3) + 0.05 * (beta <= 0)
    return rng.random((K, N)), rng.random((K, P)), Target(a, **more)


@pytest.mark.slow
@pytest.mark.parametrize(("solver", "beta"), KINDS)
@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 10_000), strengths, strengths, strengths, st.sampled_from([0.0, 0.3]), st.booleans(), st.booleans()
)
def test_the_objective_never_rises_and_what_is_held_stays(
    solver: str, beta: float, seed: int, ortho_z: float, ortho_d: float, bound: float, l2: float, held: bool, seen: bool
) -> None:
    rng = np.random.default_rng(seed)
    free = rng.random((K, P)) > 0.4 if held else np.ones((K, P), bool)
    weights = rng.integers(0, 3, (N, P)).astype(float) if seen else None
    penalties = Penalties(0.1 * l2, l2, 0.1 * l2, l2, ortho_z, ortho_d)
    zt, d, target = problem(
        seed, beta, penalties=penalties, weights=weights, free=free, smooth=Smoothness(ring(N), bound)
    )
    d[~free & (rng.random((K, P)) > 0.5)] = 0
    first, before = d, float(OBJECTIVE(zt, d, target, beta))
    for _ in range(5):
        zt, d = STEPS[solver, beta](zt, d, target)
        after = float(OBJECTIVE(zt, d, target, beta))
        assert after <= before * (1 + 1e-9) + 1e-12
        assert (np.asarray(zt) >= 0).all() and (np.asarray(d) >= 0).all()
        np.testing.assert_array_equal(np.asarray(d)[~free], first[~free])
        before = after


@pytest.mark.parametrize(("solver", "beta"), KINDS)
def test_neighbours_far_apart_are_not_sent_past_one_another(solver: str, beta: float) -> None:
    """By steps that are too long for a strong graph."""
    more: dict[str, Any] = {"penalties": Penalties(ortho_z=0.0, ortho_d=0.0), "free": np.ones((K, P), bool)}
    for seed in range(8):
        zt, d, target = problem(seed, beta, smooth=Smoothness(ring(N), 20.0), **more)
        zt = zt * np.where(np.arange(N) % 2, 3, 0.01)
        before = float(OBJECTIVE(zt, d, target, beta))
        for _ in range(3):
            zt, d = STEPS[solver, beta](zt, d, target)
            after = float(OBJECTIVE(zt, d, target, beta))
            assert after <= before * (1 + 1e-9)
            before = after


def test_the_objective_is_that_of_the_formulas() -> None:
    graph = ring(N)
    zt, d, target = problem(1, penalties=Penalties(0, 0, 0, 0, 0.7, 0.9), smooth=Smoothness(graph, 1.3))
    overlap = lambda x: np.sum(x @ x.T) - np.trace(x @ x.T)  # noqa: E731
    expected = 0.5 * np.sum((target.a - zt.T @ d) ** 2) + 0.35 * overlap(zt) + 0.45 * overlap(d)
    expected += 0.65 * sum(np.sum(d[j] ** 2) * zt[j] @ laplacian(graph) @ zt[j] for j in range(K))
    assert float(objective(zt, d, target)) == pytest.approx(expected, rel=1e-12)
    # The unit of the atoms does not matter to the graph.
    scales = np.array([[0.1], [3.0], [1.0], [50.0]])
    smooth = target._replace(penalties=Penalties())
    assert float(objective(zt * scales, d / scales, smooth)) == pytest.approx(float(objective(zt, d, smooth)))


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 2.0, 3.0])
def test_gradients_are_those_of_the_objective(beta: float) -> None:
    rng = np.random.default_rng(0)
    free = rng.random((K, P)) > 0.4
    for weights in (None, rng.random((N, P))):
        zt, d, target = problem(
            3, beta, penalties=Penalties(0.1, 0.2, 0.3, 0.4, 0.5, 0.6), free=free, smooth=Smoothness(ring(N), 0.8),
            weights=weights,
        )  # fmt: skip
        target = target._replace(a=target.a + 0.1)
        of_z, of_d = GRADIENTS(zt, d, target, beta)
        found_z, found_d = OURS(zt, d, target, beta)
        np.testing.assert_allclose(found_z, of_z, atol=1e-9)
        np.testing.assert_allclose(found_d, np.where(free, of_d, 0), atol=1e-9)


def plain_hals(
    x: np.ndarray, c: np.ndarray, b: np.ndarray, free: np.ndarray, bound: np.ndarray, lap: np.ndarray
) -> Any:
    """One sweep, entry by entry; the row j is bound by the graph with Laplacian `lap` and strength bound[j]."""
    x = x.copy()
    for j in range(len(x)):
        old = x[j].copy()
        for i in range(x.shape[1]):
            slope = c[j, i] - b[j] @ x[:, i] - bound[j] * lap[i] @ old
            curvature = b[j, j] + 2 * bound[j] * lap[i, i]
            if free[j, i] and curvature > 0:
                x[j, i] = max(0.0, old[i] + slope / curvature)
    return x


def test_coordinate_descent_against_a_plain_loop() -> None:
    graph, rng = ring(N), np.random.default_rng(2)
    free = rng.random((K, P)) > 0.4
    zt, d, target = problem(
        4, penalties=Penalties(0.1, 0.2, 0.05, 0.3, 0.4, 0.6), free=free, smooth=Smoothness(graph, 0.8)
    )
    lap, others = laplacian(graph), 1 - np.eye(K)
    bound = 0.8 * np.sum(d**2, axis=1)
    b = d @ d.T + 0.2 * np.eye(K) + 0.4 * others
    codes = plain_hals(zt, d @ target.a.T - 0.1, b, np.ones((K, N), bool), bound, lap)
    energies = 0.8 * np.array([codes[j] @ lap @ codes[j] for j in range(K)])
    b = codes @ codes.T + np.diag(0.3 + energies) + 0.6 * others
    expected = plain_hals(d, codes @ target.a - 0.05, b, free, np.zeros(K), np.zeros((P, P)))
    found = STEPS["hals", 2.0](zt, d, target)
    np.testing.assert_allclose(found[0], codes, atol=1e-12)
    np.testing.assert_allclose(found[1], expected, atol=1e-12)


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_multiplicative_steps_against_a_plain_loop(beta: float) -> None:
    graph, rng = ring(N), np.random.default_rng(2)
    free = rng.random((K, P)) > 0.4
    zt, d, target = problem(5, beta, free=free, smooth=Smoothness(graph, 0.8))
    s = np.diag(np.diag(laplacian(graph))) - laplacian(graph)
    codes, expected = zt.copy(), d.copy()
    for j in range(K):
        for i in range(N):
            bound = 0.8 * d[j] @ d[j]
            push, pull = bound * s[i] @ zt[j], bound * s[i].sum() * zt[j, i]
            w = zt[:, i] @ d
            if beta == 2:
                above, below = target.a[i] @ d[j], w @ d[j] + pull
                t = (above + np.sqrt(above**2 + 4 * below * push)) / (2 * below)
            else:
                above, below = (target.a[i] / w) @ d[j] + push, d[j].sum()
                t = (-below + np.sqrt(below**2 + 4 * pull * above)) / (2 * pull)
            codes[j, i] *= t
    energies = 0.8 * np.array([codes[j] @ laplacian(graph) @ codes[j] for j in range(K)])
    for j in range(K):
        for i in range(P):
            w, pull = codes.T @ d[:, i], energies[j] * d[j, i]
            if beta == 2:
                t = codes[j] @ target.a[:, i] / (codes[j] @ w + pull)
            else:
                above, below = codes[j] @ (target.a[:, i] / w), codes[j].sum()
                t = (-below + np.sqrt(below**2 + 4 * pull * above)) / (2 * pull)
            expected[j, i] *= t if free[j, i] else 1
    found = STEPS["mu", beta](zt, d, target)
    np.testing.assert_allclose(found[0], codes, rtol=1e-9)
    np.testing.assert_allclose(found[1], expected, rtol=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_conditions_of_a_minimum_are_reached(solver: str) -> None:
    free = np.random.default_rng(0).random((K, P)) > 0.3
    zt, d, target = problem(
        6, penalties=Penalties(0, 0.1, 0, 0.1, 0.2, 0.2), free=free, smooth=Smoothness(ring(N), 0.5)
    )
    norm = jax.jit(projected_gradient_norm)
    first, step = float(norm(zt, d, target)), STEPS[solver, 2.0]
    for _ in range(600):
        zt, d = step(zt, d, target)
    assert float(norm(zt, d, target)) < (5e-2 if solver == "mu" else 1e-4) * first


def test_many_atoms_in_blocks() -> None:
    """More than one block of rows, with padding: the iterates are those of the plain loop."""
    rng, k, graph = np.random.default_rng(1), 37, ring(N)
    free = rng.random((k, P)) > 0.5
    zt, d, a = rng.random((k, N)), rng.random((k, P)), rng.random((N, P))
    target = Target(a, Penalties(ortho_d=0.2), free=free, smooth=Smoothness(graph, 0.1))
    found = STEPS["hals", 2.0](zt, d, target)
    bound = 0.1 * np.sum(d**2, axis=1)
    codes = plain_hals(zt, d @ a.T, d @ d.T, np.ones((k, N), bool), bound, laplacian(graph))
    np.testing.assert_allclose(found[0], codes, atol=1e-10)
    energies = 0.1 * np.array([row @ laplacian(graph) @ row for row in codes])
    b = codes @ codes.T + np.diag(energies) + 0.2 * (1 - np.eye(k))
    expected = plain_hals(d, codes @ a, b, free, np.zeros(k), np.zeros((P, P)))
    np.testing.assert_allclose(found[1], expected, atol=1e-10)
