"""Whole fits: longer steps never raise the objective, seeds go together, nothing is built for pairs of samples."""

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepnmf_jax.decomposition.dn2mfgl import fit, objective
from deepnmf_jax.decomposition.dn2mfgl.objective import ROBUST, Form, Problem, Strengths
from deepnmf_jax.decomposition.updates.graph import find_neighbors, knn_graph
from tests.decomposition.dn2mfgl.examples import example, strengths_of

ROOT = Path(__file__).resolve().parents[3]

evaluate = jax.jit(objective.evaluate, static_argnames=("form",))
step = jax.jit(fit.step, static_argnames=("form",))
forms = st.tuples(st.sampled_from(ROBUST), st.booleans())


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(0, 0, 0), (1, 0, 0), (1, 1, 1), (0.1, 0.01, 0.01)]), forms)
def test_long_steps_never_raise_the_objective(seed: int, setting: tuple, form: tuple[str, bool]) -> None:
    h, v, problem = example(seed, strengths_of(*setting, inner=0.7 if form[1] else 0.0))  # type: ignore[misc]
    kind = Form(*form)
    state = fit.begin(h, v, problem, kind)
    for _ in range(25):
        new = step(state, problem, form=kind)
        assert float(new.value) <= float(state.value) * (1 + 1e-9)
        state = new
    expected, _ = evaluate(state.h, state.v, problem, form=kind)
    assert float(state.value) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.slow
def test_many_seeds_and_settings_at_once() -> None:
    settings_ = [strengths_of(1, 0.0, 0.0), strengths_of(0.1, 0.01, 0.01)]
    starts = [example(seed, settings_[0])[:2] for seed in (0, 5)]
    problem = example(0, settings_[0])[2]

    @jax.jit
    @partial(jax.vmap, in_axes=(0, 0, 0))
    def solve(h: tuple, v: jax.Array, strengths: Strengths) -> jax.Array:
        own = problem._replace(strengths=strengths)
        return fit.advance(fit.begin(h, v, own, Form()), 20, own, Form(), 0.0).state.v

    stacked = jax.tree.map(lambda *a: jnp.stack(a), *starts)
    together = solve(*stacked, jax.tree.map(lambda *a: jnp.stack([jnp.asarray(b) for b in a]), *settings_))
    for (h, v), strengths, found in zip(starts, settings_, together, strict=True):
        own = problem._replace(strengths=strengths)
        state = fit.begin(h, v, own, Form())
        for _ in range(20):
            state = step(state, own, form=Form())
        np.testing.assert_allclose(found, state.v, rtol=1e-7)


@pytest.mark.parametrize("form", [Form(), Form("feature", inner=True)])
def test_nothing_is_built_for_every_pair_of_samples_or_features(form: Form) -> None:
    """Every array of the compiled sweeps, by its shape: m = 43 features and n = 47 samples meet in X alone."""
    n, m = 47, 43
    x = np.random.default_rng(0).random((m, n))
    graph = knn_graph(find_neighbors(x.T, 3))
    h, v = (np.ones((m, 5)), np.ones((5, 3))), np.ones((3, n))
    strengths = Strengths(*(jnp.asarray(value) for value in (1.0, 0.1, 0.1, 0.01, 1e-3, [0.1, 1.0])))

    def solve(h: tuple, v: jax.Array, problem: Problem) -> tuple:
        return fit.advance(fit.begin(h, v, problem, form), 20, problem, form, 1e-5)

    shapes = set(shapes_in(jax.make_jaxpr(solve)(h, v, Problem(x, graph, strengths)).jaxpr))
    assert (m, n) in shapes
    assert not [shape for shape in shapes if sum(size in (n, m) for size in shape) > 1 and sorted(shape) != [m, n]]


def shapes_in(jaxpr: object) -> Iterator[tuple[int, ...]]:
    """Of every value in a program and in those inside it."""
    for equation in jaxpr.eqns:  # type: ignore[attr-defined]
        yield from (tuple(value.aval.shape) for value in (*equation.invars, *equation.outvars))
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from shapes_in(inner)


@pytest.mark.slow
def test_many_samples_fit_into_little_memory() -> None:
    """12,000 samples: far below the 576 MB that one float32 number for each pair would take."""
    program = """
import resource, warnings
import numpy as np
from deepnmf_jax import Dn2MFGL
warnings.simplefilter("ignore")
x = np.random.default_rng(0).random((12_000, 20), np.float32)
Dn2MFGL((5,), max_iter=10).fit(x[:500])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = Dn2MFGL((5,), max_iter=10).fit(x)
assert model.embedding_.shape == (12_000, 5)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    # Kilobytes on Linux, bytes on a Mac.
    grown = int(ended.stdout) * (1 if sys.platform == "darwin" else 1024)
    print(f"{grown / 1e6:.0f} MB")
    assert grown < 300e6
