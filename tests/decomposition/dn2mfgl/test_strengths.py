"""The rule trusts a graph that foretells its neighbours; its alpha balances the terms of the start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepnmf_jax import Dn2MFGL
from deepnmf_jax.decomposition.dn2mfgl import objective, scores
from deepnmf_jax.decomposition.dn2mfgl.fit import make_starts
from deepnmf_jax.decomposition.dn2mfgl.objective import Form, Problem, Strengths
from deepnmf_jax.decomposition.dn2mfgl.spectral import spectral_codes
from deepnmf_jax.decomposition.dn2mfgl.strengths import RULE, Rule, balanced_alpha, trust
from deepnmf_jax.decomposition.dn2mfgl.sweep import rescale
from deepnmf_jax.decomposition.updates.graph import find_neighbors, knn_graph


def test_the_rule_trusts_a_graph_that_foretells_its_neighbours() -> None:
    """Two blobs: the groups of the graph hold every neighbour left out. Mixed groups: no more than by chance."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    neighbors = find_neighbors(rng.random((60, 5)) + 10 * y[:, None], 5)
    assert trust(neighbors, 4, y) == 1
    assert trust(neighbors, 4, rng.permutation(y)) < 0.3
    assert trust(neighbors, 4, np.zeros(60, int)) == 0


def test_how_many_neighbours_the_rule_keeps() -> None:
    assert [RULE.kept(k) for k in (2, 5)] == [1, 4] and Rule(left_out=2).kept(5) == 3
    for rule, least in ((RULE, 2), (Rule(left_out=3), 4)):
        with pytest.raises(ValueError, match=f"use at least {least}"):
            rule.kept(least - 1)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(3,), (6, 3)])
def test_the_alpha_of_the_rule_balances_the_terms(sizes: tuple[int, ...]) -> None:
    """With it the best scale of the start has the wanted ratio of penalties and data, whatever lam and the layers."""
    x = np.random.default_rng(0).random((12, 40))
    graph = knn_graph(find_neighbors(x.T, 4), "union", "local_scaling", True)
    starts = make_starts(jax.random.split(jax.random.key(0), 1), x, spectral_codes(graph, 3), sizes)
    h, v = tuple(matrix[0] for matrix in starts.h), starts.v[-1][0]
    data = np.sqrt(np.sum((x - objective.chain(h) @ v) ** 2, axis=0) + 1e-6).sum()
    last = jnp.zeros(len(sizes)).at[-1].set(1)
    scaled_once = jax.jit(rescale, static_argnames=("form",))
    for lam in (0.01, 1.0):
        problem = Problem(x, graph, Strengths(7.0, 1.0, 1.0, lam, 1e-3, last))
        alpha = balanced_alpha(h, v, problem, "sample", 0.4)
        problem = problem._replace(strengths=Strengths(alpha, 0.0, 0.0, lam, 1e-3, last))
        scaled = (h, v)
        for _ in range(60):
            scaled = scaled_once(*scaled, problem, form=Form())
        value, _ = objective.evaluate(*scaled, problem, Form())
        assert float(value) / data - 1 == pytest.approx(0.4, rel=1e-3)


@pytest.mark.slow
def test_the_rule_on_digits() -> None:
    """At its own tolerance, after ten times as many sweeps, the accuracy is 85.8 %; k-means on the pixels has 75.6."""
    pytest.importorskip("sklearn")
    x, y = scores.digits()
    model = Dn2MFGL((10,), n_clusters=10, tol=3e-4)
    labels = model.fit_predict(x)
    assert model.converged_ and model.boundedness_ == "bounded"
    assert model.choice_.balance == model.choice_.trust > 0.9
    assert scores.accuracy(y, labels) > 0.84
    half = Dn2MFGL((10,), max_iter=1, tol=0).fit(x, rule=Rule(balance=lambda trusted: trusted / 2)).choice_
    assert half.trust == model.choice_.trust == 2 * half.balance
    assert half.alpha == pytest.approx(model.choice_.alpha / 4, rel=1e-4)
