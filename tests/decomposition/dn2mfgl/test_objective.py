"""The well-posed objective: never rises, does not depend on the scale of the start, is what its formula says."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepnmf_jax.decomposition.dn2mfgl import fit
from deepnmf_jax.decomposition.dn2mfgl import objective as structure
from deepnmf_jax.decomposition.dn2mfgl.graph import Graph, find_neighbors, knn_graph
from deepnmf_jax.decomposition.dn2mfgl.objective import RIDGE, Form, Strengths

M, N, SIZES = 9, 14, (6, 3)

sweep = jax.jit(structure.sweep, static_argnames=("form",))
evaluate = jax.jit(structure.evaluate, static_argnames=("form",))
step = jax.jit(fit.step, static_argnames=("form",))
rescale = jax.jit(structure.rescale, static_argnames=("form",))


def example(seed: int, sizes: tuple[int, ...] = SIZES) -> tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray, Graph]:
    rng = np.random.default_rng(seed)
    x = rng.random((M, 3)) @ rng.random((3, N)) + 0.2 * rng.random((M, N))
    x /= np.linalg.norm(x, axis=0)
    h = tuple(rng.random(shape) + 1e-3 for shape in zip((M, *sizes[:-1]), sizes, strict=True))
    graph = knn_graph(find_neighbors(x.T, 3))
    # The same number of edges in every example: one compilation.
    missing = 2 * 3 * N - len(graph.rows)
    padding = (jnp.full(missing, N - 1, jnp.int32), jnp.full(missing, N - 1, jnp.int32), jnp.zeros(missing))
    graph = Graph(*(jnp.concatenate(pair) for pair in zip(graph[:3], padding, strict=True)), graph.degrees)
    return h, rng.random((sizes[-1], N)) + 1e-3, x, graph


def strengths_of(alpha: float, beta: float, nu: float, lam: float = 0.01, inner: float = 0.0) -> Strengths:
    return Strengths(alpha, beta, nu, lam, 1e-3, jnp.array([inner, 1.0]))


def dense_objective(h: tuple, v: np.ndarray, x: np.ndarray, graph: Graph, strengths: Strengths, robust: str) -> float:
    s = np.zeros((N, N))
    np.add.at(s, (np.asarray(graph.rows), np.asarray(graph.columns)), np.asarray(graph.weights))
    ones = np.ones((N, N))
    m = strengths.alpha * (np.diag(s.sum(1)) - s) - strengths.beta * (np.eye(N) - ones / N)
    m = m + strengths.nu * (ones - np.eye(N)) + RIDGE * np.eye(N)
    residual = x - h[0] @ h[1] @ v
    if robust == "none":
        data = np.sum(residual**2)
    else:
        data = np.sum(np.sqrt(np.sum(residual**2, axis=0 if robust == "sample" else 1) + strengths.delta**2))
    codes = [h[1] @ v, v]
    inner = sum(float(w) * np.trace(c @ m @ c.T) for w, c in zip(strengths.layer_weights, codes, strict=True))
    return float(data + inner + strengths.lam * sum(np.sum(a**2) for a in h))


@pytest.mark.parametrize("robust", structure.ROBUST)
@pytest.mark.parametrize("inner", [0.0, 0.7])
def test_the_formula(robust: str, inner: float) -> None:
    h, v, x, graph = example(0)
    strengths = strengths_of(0.7, 0.2, 0.3, inner=inner)
    value, _ = evaluate(h, v, x, graph, strengths, form=Form(robust, inner > 0))
    assert float(value) == pytest.approx(dense_objective(h, v, x, graph, strengths, robust), rel=1e-12)


numbers = st.sampled_from([0.0, 0.001, 0.1, 1.0, 30.0])
FORMS = st.tuples(st.sampled_from(structure.ROBUST), st.booleans())


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10_000), numbers, numbers, numbers, st.sampled_from([1e-4, 0.01, 1.0]), FORMS)
def test_the_objective_never_rises(
    seed: int, alpha: float, beta: float, nu: float, lam: float, form: tuple[str, bool]
) -> None:
    """Also where it has no lower bound, as far as its numbers can be told apart."""
    h, v, x, graph = example(seed)
    strengths = strengths_of(alpha, beta, nu, lam, 0.7 if form[1] else 0.0)
    kind = Form(form[0], form[1], long_steps=False)
    value, weights = evaluate(h, v, x, graph, strengths, form=kind)
    for _ in range(12):
        h, v = sweep(h, v, weights, x, graph, strengths, form=kind)
        new, weights = evaluate(h, v, x, graph, strengths, form=kind)
        # The terms cancel in part: rounding is relative to them, not to what is left.
        terms = (alpha + beta + nu) * float(jnp.sum(v) ** 2 + jnp.sum((h[-1] @ v).sum(1) ** 2) * form[1])
        if not np.isfinite(float(new)) or terms > 1e12:
            break
        assert float(new - value) <= 1e-9 * abs(float(value)) + 1e-13 * terms
        value = new


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(0, 0, 0), (1, 0, 0), (1, 1, 1), (0.1, 0.01, 0.01)]), FORMS)
def test_long_steps_never_raise_it_either(seed: int, setting: tuple, form: tuple[str, bool]) -> None:
    h, v, x, graph = example(seed)
    strengths = strengths_of(*setting, inner=0.7 if form[1] else 0.0)  # type: ignore[misc]
    kind = Form(*form)
    state = fit.begin(h, v, x, graph, strengths, kind)
    for _ in range(25):
        new = step(state, x, graph, strengths, form=kind)
        assert float(new.value) <= float(state.value) * (1 + 1e-9)
        state = new
    expected, _ = evaluate(state.h, state.v, x, graph, strengths, form=kind)
    assert float(state.value) == pytest.approx(float(expected), rel=1e-12)


def test_single_precision() -> None:
    h, v, x, graph = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32) if a.dtype == float else a, example(3))
    strengths = jax.tree.map(jnp.float32, strengths_of(1, 0.01, 0.01))
    kind = Form("sample", False, False)
    value, weights = evaluate(h, v, x, graph, strengths, form=kind)
    for _ in range(100):
        h, v = sweep(h, v, weights, x, graph, strengths, form=kind)
        new, weights = evaluate(h, v, x, graph, strengths, form=kind)
        assert v.dtype == jnp.float32 and float(new) <= float(value) * (1 + 1e-5)
        value = new


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_rescaling_keeps_the_product_and_never_raises(seed: int, inner: bool) -> None:
    h, v, x, graph = example(seed)
    strengths = strengths_of(0.5, 0.02, 0.4, inner=0.7 if inner else 0.0)
    form = Form("sample", inner)
    new_h, new_v = rescale(h, v, graph, strengths, form=form)
    np.testing.assert_allclose(new_h[0] @ new_h[1] @ new_v, h[0] @ h[1] @ v, rtol=1e-12)
    before, after = (float(evaluate(*f, x, graph, strengths, form=form)[0]) for f in ((h, v), (new_h, new_v)))
    assert after <= before * (1 + 1e-12)


@pytest.mark.parametrize("factor", [10.0, 0.1])
def test_the_scale_of_the_start_does_not_matter(factor: float) -> None:
    h, v, x, graph = example(1, (3,))
    strengths = Strengths(0.1, 0.01, 0.01, 0.01, 1e-3, jnp.ones(1))
    form = Form("sample", False, False)
    values = []
    for scale in (1.0, factor):
        scaled = rescale((h[0] * scale,), v / scale, graph, strengths, form=form)
        state = fit.begin(*scaled, x, graph, strengths, form)
        for _ in range(100):
            state = step(state, x, graph, strengths, form=form)
        values.append(float(state.value))
    assert values[1] == pytest.approx(values[0], rel=1e-9)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_the_order_of_samples_and_features_does_not_matter(seed: int) -> None:
    h, v, x, graph = example(seed)
    rng = np.random.default_rng(seed)
    samples, features = rng.permutation(N), rng.permutation(M)
    place = np.argsort(samples)
    rows, columns = place[np.asarray(graph.rows)], place[np.asarray(graph.columns)]
    order = np.argsort(rows, kind="stable")
    moved = Graph(jnp.asarray(rows[order]), jnp.asarray(columns[order]), graph.weights[order], graph.degrees[samples])
    strengths, form = strengths_of(1, 0.1, 0.1), Form()
    weights = jnp.ones((1, N))
    one = sweep(h, v, weights, x, graph, strengths, form=form)
    other = sweep((h[0][features], h[1]), v[:, samples], weights, x[features][:, samples], moved, strengths, form=form)
    np.testing.assert_allclose(other[1], one[1][:, samples], rtol=1e-10)
    np.testing.assert_allclose(other[0][0], one[0][0][features], rtol=1e-10)


def test_many_seeds_and_settings_at_once() -> None:
    starts = [example(0)[:2], example(5)[:2]]
    _, _, x, graph = example(0)
    settings_ = [strengths_of(1, 0.0, 0.0), strengths_of(0.1, 0.01, 0.01)]
    form = Form()

    @jax.jit
    @partial(jax.vmap, in_axes=(0, 0, 0))
    def solve(h: tuple, v: jax.Array, strengths: Strengths) -> jax.Array:
        start = fit.begin(h, v, x, graph, strengths, form)
        return fit.advance(start, 20, x, graph, strengths, form, 0.0).state.v

    stacked = jax.tree.map(lambda *a: jnp.stack(a), *starts)
    together = solve(*stacked, jax.tree.map(lambda *a: jnp.stack([jnp.asarray(b) for b in a]), *settings_))
    for (h, v), strengths, found in zip(starts, settings_, together, strict=True):
        state = fit.begin(h, v, x, graph, strengths, form)
        for _ in range(20):
            state = step(state, x, graph, strengths, form=form)
        np.testing.assert_allclose(found, state.v, rtol=1e-7)
