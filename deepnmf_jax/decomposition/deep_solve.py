"""Whole fits of deep NMF with structure: start, sweeps for all seeds at once, the best seed."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from deepnmf_jax.decomposition import released, structure
from deepnmf_jax.decomposition.graphs import Graph
from deepnmf_jax.decomposition.solve import history_length
from deepnmf_jax.decomposition.spectral import dictionary_for, spectral_codes
from deepnmf_jax.decomposition.structure import CHECK_EVERY, Form, State, Strengths

INITS = ("spectral", "pretrained")


class Solution(NamedTuple):
    """The best seed's factors, as numpy.

    dictionaries: H_1 ... H_l. components (r_l, m): Q^T. codes (n, r_l). feature_weights (m,): of the residual at the
    end, 1 where samples are weighed or nothing is. history: objective at the start and after every tenth sweep.
    losses (seeds,): where every seed ended. sweeps, converged: of the best one.
    """

    dictionaries: list[np.ndarray]
    components: np.ndarray
    codes: np.ndarray
    feature_weights: np.ndarray
    history: np.ndarray
    losses: np.ndarray
    sweeps: int
    converged: bool


def solve_well_posed(
    keys: Array,
    x: Array,
    graph: Graph,
    strengths: tuple[float, float, float],
    layer_sizes: tuple[int, ...],
    max_iter: int,
    *,
    lam: float,
    delta: float,
    layer_weights: tuple[float, ...],
    robust: str,
    init: str,
    tol: float,
) -> Solution:
    """Minimise the objective of `structure` from one start per key, all of them at once. x (m, n)."""
    alpha, beta, nu = (jnp.asarray(value, x.dtype) for value in strengths)
    weights = jnp.asarray(layer_weights, x.dtype)
    numbers = Strengths(alpha, beta, nu, jnp.asarray(lam, x.dtype), jnp.asarray(delta, x.dtype), weights)
    form = Form(robust, any(weight > 0 for weight in layer_weights[:-1]))
    last = spectral_codes(graph, layer_sizes[-1]) if init == "spectral" else np.zeros((layer_sizes[-1], x.shape[1]))
    states = _solve_all(
        keys, jnp.asarray(last, x.dtype), x, graph, numbers,
        jnp.asarray(tol, x.dtype), max_iter, layer_sizes, form, init, history_length(max_iter),
    )  # fmt: skip
    losses = np.asarray(states.value)
    best = int(np.argmin(np.where(np.isfinite(losses), losses, np.inf)))
    state: Any = jax.tree.map(lambda a: np.asarray(a[best]), states)
    q = np.asarray(structure.chain(state.h))
    lengths = np.linalg.norm(q, axis=0)
    lengths = np.where(lengths > 0, lengths, 1)
    final = np.ravel(state.weights) if robust == "feature" else np.ones(x.shape[0], x.dtype)
    history = state.history[np.isfinite(state.history)] if np.isfinite(state.value) else np.r_[state.history[0], np.nan]
    return Solution(
        [*state.h[:-1], state.h[-1] / lengths],
        (q / lengths).T,
        (state.v * lengths[:, None]).T,
        final,
        history,
        losses,
        int(state.sweeps),
        bool(state.converged),
    )


@partial(jax.jit, static_argnames=("layer_sizes", "form", "init", "length"))
def _solve_all(
    keys: Array,
    last: Array,
    x: Array,
    graph: Graph,
    strengths: Strengths,
    tol: Array,
    max_iter: Array,
    layer_sizes: tuple[int, ...],
    form: Form,
    init: str,
    length: int,
) -> State:
    """States (seeds, ...) at the end; `last` (r_l, n) are the starting codes of init="spectral"."""

    def solve(key: Array) -> State:
        h, v = start(key, last, x, layer_sizes, init)
        state = structure.init_state(h, v, x, graph, strengths, form, length)
        return structure.advance(state, x, graph, strengths, form, tol, max_iter)

    return jax.vmap(solve)(keys)


def start(
    key: Array, last: Array, x: Array, layer_sizes: tuple[int, ...], init: str
) -> tuple[tuple[Array, ...], Array]:
    """H_1 ... H_l and V to start from: pretrained layers, of which "spectral" replaces the last one's codes."""
    m, n = x.shape
    if init == "pretrained":
        factors, _ = released.pretrain(x, released.random_start(key, m, n, layer_sizes, x.dtype))
        return factors.h, factors.v[-1]
    h: tuple[Array, ...] = ()
    z = x
    if len(layer_sizes) > 1:
        factors, _ = released.pretrain(x, released.random_start(key, m, n, layer_sizes[:-1], x.dtype))
        h, z = factors.h, factors.v[-1]
    return (*h, dictionary_for(z, last)), last


def solve_released(
    keys: Array,
    x: Array,
    graph: Graph,
    strengths: tuple[float, float, float],
    layer_sizes: tuple[int, ...],
    max_iter: int,
) -> Solution:
    """The released pretraining and exactly `max_iter` released sweeps for every key; the lowest objective is kept."""
    numbers = tuple(jnp.asarray(value, x.dtype) for value in strengths)
    factors, weights, histories = _released_all(keys, x, graph, numbers, layer_sizes, max_iter)
    losses = np.asarray(histories[:, -1])
    best = int(np.argmin(np.where(np.isfinite(losses), losses, np.inf)))
    kept = jax.tree.map(lambda a: np.asarray(a[best]), factors)
    components = np.asarray(structure.chain(kept.h)).T
    return Solution(
        list(kept.h), components, kept.v[-1].T, np.ravel(weights[best]), np.asarray(histories[best]), losses, max_iter,
        False,
    )  # fmt: skip


@partial(jax.jit, static_argnames=("layer_sizes", "max_iter"))
def _released_all(
    keys: Array, x: Array, graph: Graph, strengths: tuple[Array, ...], layer_sizes: tuple[int, ...], max_iter: int
) -> tuple[released.Factors, Array, Array]:
    alpha, beta, nu = strengths
    stops = [*range(CHECK_EVERY, max_iter, CHECK_EVERY), max_iter]

    def solve(key: Array) -> tuple[released.Factors, Array, Array]:
        factors, _ = released.pretrain(x, released.random_start(key, x.shape[0], x.shape[1], layer_sizes, x.dtype))

        def until(carry: Any, stop: Array) -> tuple[Any, Array]:
            factors, weights, done = carry
            factors, weights = lax.fori_loop(
                0, stop - done, lambda _, c: released.sweep(c[0], c[1], x, graph, alpha, beta, nu), (factors, weights)
            )
            return (factors, weights, stop), released.objective(factors, x, graph, alpha, beta, nu)

        first = released.objective(factors, x, graph, alpha, beta, nu)
        carry = (factors, released.row_weights(x, factors), jnp.zeros((), jnp.int32))
        (factors, weights, _), values = lax.scan(until, carry, jnp.asarray(stops, jnp.int32))
        return factors, weights, jnp.concatenate([first[None], values])

    return jax.vmap(solve)(keys)
