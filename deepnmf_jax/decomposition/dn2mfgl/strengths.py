"""How alpha, beta, nu and the graph are chosen without labels: one rule for all data.

The graph is tested on neighbours that are left out of it (`trust`); the more it can be trusted, the more the structure
terms weigh against the data (`balanced_alpha`). docs/dn2mfgl.md has the reasons, docs/reports/clustering.md the
measurements.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from deepnmf_jax.decomposition.dn2mfgl.objective import RIDGE, Form, Problem, evaluate, structure_energies
from deepnmf_jax.decomposition.dn2mfgl.sweep import rescale
from deepnmf_jax.decomposition.updates.graph import Neighbors

# Passes of the rescaling from which the smallest penalty is read off.
RESCALINGS = 30


class Rule(NamedTuple):
    """The two numbers of the rule, the same for all data: studies of the rule alone change them.

    left_out: neighbours, the farthest ones, that are left out of the graph and test it. balance: structure and lam
    terms over the data term at the start, for a trust in the graph; by default as much as it is trusted.
    """

    left_out: int = 1
    balance: Callable[[float], float] = lambda trusted: trusted

    def kept(self, n_neighbors: int) -> int:
        """How many of the nearest neighbours make the graph. ValueError where none would be left in it."""
        if n_neighbors <= self.left_out:
            raise ValueError(
                f"n_neighbors = {n_neighbors} with alpha = beta = nu = None: the rule tests the graph on the farthest "
                f"{self.left_out}, which it leaves out; use at least {self.left_out + 1}, or give alpha"
            )
        return n_neighbors - self.left_out


RULE = Rule()


class Choice(NamedTuple):
    """The structure terms of a fit.

    alpha, beta, nu; n_neighbors, join, edge_weights, normalize of the graph (`knn_graph`). By the rule: trust (`trust`)
    and balance (`Rule`), else None. reason: a sentence.
    """

    alpha: float
    beta: float
    nu: float
    n_neighbors: int
    join: str
    edge_weights: str
    normalize: bool
    reason: str
    trust: float | None = None
    balance: float | None = None

    def by_rule(self, alpha: float, trusted: float, balance: float) -> Self:
        """With this alpha, and beta = nu = 0, which always has a lower bound."""
        reason = (
            f"groups of the graph hold the neighbours left out with kappa = {trusted:.2f}, so that structure and lam "
            f"terms are {balance:.2g} times the data term at the start"
        )
        return self._replace(alpha=alpha, reason=reason, trust=trusted, balance=balance)


def choice_of(arguments: Mapping[str, Any], rule: Rule) -> tuple[Choice, bool]:
    """What the arguments of `Dn2MFGL` choose, and whether its alpha is still to be found by the rule."""
    given, kept = [arguments[name] for name in ("alpha", "beta", "nu")], arguments["n_neighbors"]
    if arguments["mode"] == "released":
        alpha, beta, nu = (1.0 if value is None else float(value) for value in given)
        return Choice(alpha, beta, nu, kept, "union", "binary", False, "the released code's graph"), False
    alpha, beta, nu = (0.0 if value is None else float(value) for value in given)
    ruled, normalize = all(value is None for value in given), arguments["normalize_graph"]
    weights = arguments["edge_weights"] or ("shared" if ruled else "binary")
    kept, join = rule.kept(kept) if ruled else kept, arguments["join"] or "union"
    return Choice(alpha, beta, nu, kept, join, weights, ruled if normalize is None else normalize, "given"), ruled


def trust(neighbors: Neighbors, kept: int, groups: np.ndarray) -> float:
    """Whether groups found in the graph of the nearest `kept` neighbours hold the farther ones too, in [0, 1].

    The share of the neighbours beyond `kept` that are in the group of their sample, less the share that chance would
    give, over what chance leaves (Cohen's kappa). 1: all are; 0: no more than by chance.

    Args:
        neighbors: more than `kept` of all n samples.
        kept: neighbours in the graph.
        groups: (n,) of every sample, from 0.
    """
    seen = float(np.mean(groups[neighbors.indices[:, kept:]] == groups[:, None]))
    chance = float(np.sum((np.bincount(groups) / len(groups)) ** 2))
    return max(0.0, (seen - chance) / (1 - chance)) if chance < 1 else 0.0


def balanced_alpha(h: tuple[Array, ...], v: Array, problem: Problem, robust: str, balance: float) -> float:
    """The alpha for which structure and lam terms of a start, at their best scale, are `balance` times its data term.

    With the scales between the layers eliminated they are proportional to alpha^(1 / (l + 1)), so that one evaluation
    is enough. The number does not depend on the unit of alpha, on lam or on the number of layers. Where the start has
    no structure term to speak of (groups that no edge joins), the ridge takes its place and alpha stays small.

    Args:
        h: H_1 ... H_l.
        v: V (r_l, n).
        problem: of the fit, with whatever alpha; beta and nu are left out, and the weights of all layers but the last.
        robust: of the fit.
        balance: at least 0.
    """
    one, zero = jnp.ones((), v.dtype), jnp.zeros((), v.dtype)
    last = jnp.zeros(len(h), v.dtype).at[-1].set(1)
    strengths = problem.strengths._replace(alpha=one, beta=zero, nu=zero, layer_weights=last)
    data, penalties = (float(term) for term in _terms(h, v, problem._replace(strengths=strengths), Form(robust)))
    return (balance * data / penalties) ** (len(h) + 1) if penalties > 0 else 0.0


@partial(jax.jit, static_argnames=("form",))
def _terms(h: tuple[Array, ...], v: Array, problem: Problem, form: Form) -> tuple[Array, Array]:
    """The data term, and the others at the best scale of every component."""
    strengths = problem.strengths
    none = strengths._replace(alpha=jnp.zeros_like(strengths.alpha), lam=jnp.zeros_like(strengths.lam))
    data = evaluate(h, v, problem._replace(strengths=none), form)[0] - RIDGE * jnp.sum(v**2)
    h, v = lax.fori_loop(0, RESCALINGS, lambda _, f: rescale(f[0], f[1], problem, form), (h, v))
    penalties = jnp.sum(structure_energies(v, problem))
    return data, penalties + strengths.lam * sum(jnp.sum(matrix**2) for matrix in h)
