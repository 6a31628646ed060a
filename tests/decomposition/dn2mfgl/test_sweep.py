"""The update rule never raises the objective, whatever the strengths; it knows no unit, scale or order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepnmf_jax.decomposition.dn2mfgl import objective
from deepnmf_jax.decomposition.dn2mfgl import sweep as rule
from deepnmf_jax.decomposition.dn2mfgl.objective import ROBUST, Form, Problem, Strengths
from deepnmf_jax.decomposition.updates.graph import Graph
from tests.decomposition.dn2mfgl.examples import M, N, example, strengths_of

sweep = jax.jit(rule.sweep, static_argnames=("form",))
evaluate = jax.jit(objective.evaluate, static_argnames=("form",))
rescale = jax.jit(rule.rescale, static_argnames=("form",))

numbers = st.sampled_from([0.0, 0.001, 0.1, 1.0, 30.0])
forms = st.tuples(st.sampled_from(ROBUST), st.booleans())


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10_000), numbers, numbers, numbers, st.sampled_from([1e-4, 0.01, 1.0]), forms)
def test_the_objective_never_rises(
    seed: int, alpha: float, beta: float, nu: float, lam: float, form: tuple[str, bool]
) -> None:
    """Also where it has no lower bound, as far as its numbers can be told apart."""
    h, v, problem = example(seed, strengths_of(alpha, beta, nu, lam, 0.7 if form[1] else 0.0))
    kind = Form(*form)
    value, weights = evaluate(h, v, problem, form=kind)
    for _ in range(12):
        h, v = sweep(h, v, weights, problem, form=kind)
        new, weights = evaluate(h, v, problem, form=kind)
        # The terms cancel in part: rounding is relative to them, not to what is left.
        terms = (alpha + beta + nu) * float(jnp.sum(v) ** 2 + jnp.sum((h[-1] @ v).sum(1) ** 2) * form[1])
        if not np.isfinite(float(new)) or terms > 1e12:
            break
        assert float(new - value) <= 1e-9 * abs(float(value)) + 1e-13 * terms
        value = new


def test_single_precision() -> None:
    start = example(3, jax.tree.map(jnp.asarray, strengths_of(1.0, 0.01, 0.01)))
    h, v, problem = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32) if a.dtype == float else a, start)
    value, weights = evaluate(h, v, problem, form=Form())
    for _ in range(100):
        h, v = sweep(h, v, weights, problem, form=Form())
        new, weights = evaluate(h, v, problem, form=Form())
        assert v.dtype == jnp.float32 and float(new) <= float(value) * (1 + 1e-5)
        value = new


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_rescaling_keeps_the_product_and_never_raises(seed: int, inner: bool) -> None:
    h, v, problem = example(seed, strengths_of(0.5, 0.02, 0.4, inner=0.7 if inner else 0.0))
    form = Form("sample", inner)
    new_h, new_v = rescale(h, v, problem, form=form)
    np.testing.assert_allclose(new_h[0] @ new_h[1] @ new_v, h[0] @ h[1] @ v, rtol=1e-12)
    before, after = (float(evaluate(*f, problem, form=form)[0]) for f in ((h, v), (new_h, new_v)))
    assert after <= before * (1 + 1e-12)


@pytest.mark.parametrize("factor", [10.0, 0.1])
def test_the_scale_of_the_start_does_not_matter(factor: float) -> None:
    h, v, problem = example(1, Strengths(0.1, 0.01, 0.01, 0.01, 1e-3, jnp.ones(1)), (3,))
    values = []
    for scale in (1.0, factor):
        state = rescale((h[0] * scale,), v / scale, problem, form=Form())
        for _ in range(50):
            _, weights = evaluate(*state, problem, form=Form())
            state = sweep(*state, weights, problem, form=Form())
        values.append(float(evaluate(*state, problem, form=Form())[0]))
    assert values[1] == pytest.approx(values[0], rel=1e-9)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_the_order_of_samples_and_features_does_not_matter(seed: int) -> None:
    h, v, problem = example(seed, strengths_of(1, 0.1, 0.1))
    x, graph, strengths = problem
    rng = np.random.default_rng(seed)
    samples, features = rng.permutation(N), rng.permutation(M)
    place = np.argsort(samples)
    rows, columns = place[np.asarray(graph.rows)], place[np.asarray(graph.columns)]
    order = np.argsort(rows, kind="stable")
    moved = Graph(jnp.asarray(rows[order]), jnp.asarray(columns[order]), graph.weights[order], graph.degrees[samples])
    weights = jnp.ones((1, N))
    one = sweep(h, v, weights, problem, form=Form())
    permuted = Problem(x[features][:, samples], moved, strengths)
    other = sweep((h[0][features], h[1]), v[:, samples], weights, permuted, form=Form())
    np.testing.assert_allclose(other[1], one[1][:, samples], rtol=1e-10)
    np.testing.assert_allclose(other[0][0], one[0][0][features], rtol=1e-10)
