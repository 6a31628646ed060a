"""The objective is what its formula says, written out with matrices of n x n."""

import jax
import numpy as np
import pytest

from deepnmf_jax.decomposition.dn2mfgl import objective
from deepnmf_jax.decomposition.dn2mfgl.objective import Form, Problem
from tests.decomposition.dn2mfgl.dense import full_m
from tests.decomposition.dn2mfgl.examples import example, strengths_of


def dense_objective(h: tuple, v: np.ndarray, problem: Problem, m: np.ndarray, robust: str) -> float:
    x, _, strengths = problem
    residual = x - h[0] @ h[1] @ v
    if robust == "none":
        data = np.sum(residual**2)
    else:
        data = np.sum(np.sqrt(np.sum(residual**2, axis=0 if robust == "sample" else 1) + strengths.delta**2))
    codes = [h[1] @ v, v]
    structure = sum(float(w) * np.trace(c @ m @ c.T) for w, c in zip(strengths.layer_weights, codes, strict=True))
    return float(data + structure + strengths.lam * sum(np.sum(a**2) for a in h))


@pytest.mark.parametrize("robust", objective.ROBUST)
@pytest.mark.parametrize("inner", [0.0, 0.7])
def test_the_formula(robust: str, inner: float) -> None:
    h, v, problem = example(0, strengths_of(0.7, 0.2, 0.3, inner=inner))
    value, weights = objective.evaluate(h, v, problem, Form(robust, inner > 0))
    expected = dense_objective(h, v, problem, full_m(problem.graph, 0.7, 0.2, 0.3), robust)
    assert float(value) == pytest.approx(expected, rel=1e-12)
    # The weights make the majoriser touch the data term: half its gradient by the squared residuals.
    if robust == "sample":
        lengths = np.linalg.norm(problem.x - h[0] @ h[1] @ v, axis=0)
        np.testing.assert_allclose(weights[0], 0.5 / np.hypot(lengths, problem.strengths.delta), rtol=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_the_energies_are_the_diagonal_of_the_gram(beta: float) -> None:
    _, v, problem = example(2, strengths_of(0.7, beta, 0.3))
    gram = jax.jit(objective.structure_gram)(v, problem)
    np.testing.assert_allclose(gram, v @ full_m(problem.graph, 0.7, beta, 0.3) @ v.T, rtol=1e-12)
    np.testing.assert_allclose(objective.structure_energies(v, problem), np.diagonal(gram), rtol=1e-12)
