"""alpha, beta, nu and the graph without labels: one rule for all data. docs/dn2mfgl.md has the measurements."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from deepnmf_jax.decomposition.dn2mfgl import objective as structure
from deepnmf_jax.decomposition.dn2mfgl.graph import Graph, Neighbors
from deepnmf_jax.decomposition.dn2mfgl.objective import Form, Strengths
from deepnmf_jax.decomposition.dn2mfgl.released import Factors

# Neighbours that are left out of the graph and test it, the farthest ones.
LEFT_OUT = 1
# Structure and lam terms over the data term, where the test is passed in full: as much of the one as of the other.
BALANCE = 1.0
# Passes of the rescaling from which the smallest penalty is read off.
RESCALINGS = 30


class Choice(NamedTuple):
    """The structure terms of a fit.

    alpha, beta, nu; n_neighbors, join, edge_weights, normalize of the graph (`knn_graph`). By the rule: trust (`trust`)
    and balance (`balance_for`), else None. reason: a sentence.
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


def kept_neighbors(n_neighbors: int) -> int:
    """How many of the nearest neighbours make the graph.

    Raises:
        ValueError: too few for one to be left in the graph.
    """
    if n_neighbors <= LEFT_OUT:
        raise ValueError(
            f"n_neighbors = {n_neighbors} with alpha = beta = nu = None: the rule tests the graph on the farthest "
            f"{LEFT_OUT}, which it leaves out; use at least {LEFT_OUT + 1}, or give alpha"
        )
    return n_neighbors - LEFT_OUT


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


def balance_for(trusted: float) -> float:
    """Structure and lam terms over the data term at the start: `BALANCE` times the trust."""
    return BALANCE * trusted


def choose(
    graph_choice: Choice, trusted: float, starts: Factors, x: Array, graph: Graph, lam: float, delta: float, robust: str
) -> Choice:
    """The rule of alpha = beta = nu = None: beta = nu = 0, which always has a lower bound, and the alpha that gives
    the first of the starts the balance that the graph's test allows.

    Args:
        graph_choice: the graph.
        trusted: of `trust`.
        starts: of `deep_solve.make_starts`. x: X (m, n). graph: over the samples. lam, delta, robust: of the fit.
    """
    balance = balance_for(trusted)
    h, v = tuple(matrix[0] for matrix in starts.h), starts.v[-1][0]
    reason = f"groups of the graph hold the neighbours left out with kappa = {trusted:.2f}, so that structure and lam "
    return graph_choice._replace(
        alpha=balanced_alpha(h, v, x, graph, lam, delta, robust, balance),
        reason=reason + f"terms are {balance:.2g} times the data term at the start",
        trust=trusted,
        balance=balance,
    )


def balanced_alpha(
    h: tuple[Array, ...], v: Array, x: Array, graph: Graph, lam: float, delta: float, robust: str, balance: float
) -> float:
    """The alpha for which structure and lam terms of a start, at their best scale, are `balance` times its data term.

    With the scales between the layers eliminated they are proportional to alpha^(1 / (l + 1)), so that one evaluation
    is enough. The number does not depend on the unit of alpha, on lam or on the number of layers. Where the start has
    no structure term to speak of (groups that no edge joins), the ridge takes its place and alpha stays small.

    Args:
        h: H_1 ... H_l. v: V (r_l, n). x: X (m, n). graph: over the samples. lam, delta, robust: of the fit.
        balance: at least 0.
    """
    one, zero = jnp.ones((), x.dtype), jnp.zeros((), x.dtype)
    last = jnp.zeros(len(h), x.dtype).at[-1].set(1)
    numbers = Strengths(one, zero, zero, jnp.asarray(lam, x.dtype), jnp.asarray(delta, x.dtype), last)
    data, penalties = (float(value) for value in _terms(h, v, x, graph, numbers, robust))
    return (balance * data / penalties) ** (len(h) + 1) if penalties > 0 else 0.0


@partial(jax.jit, static_argnames=("robust",))
def _terms(
    h: tuple[Array, ...], v: Array, x: Array, graph: Graph, strengths: Strengths, robust: str
) -> tuple[Array, Array]:
    form = Form(robust)
    none = strengths._replace(alpha=jnp.zeros_like(strengths.alpha), lam=jnp.zeros_like(strengths.lam))
    data, _ = structure.evaluate(h, v, x, graph, none, form)
    data = data - structure.RIDGE * jnp.sum(v**2)
    h, v = lax.fori_loop(0, RESCALINGS, lambda _, f: structure.rescale(f[0], f[1], graph, strengths, form), (h, v))
    penalties = jnp.sum(structure.structure_energies(v, graph, strengths))
    return data, penalties + strengths.lam * sum(jnp.sum(matrix**2) for matrix in h)
