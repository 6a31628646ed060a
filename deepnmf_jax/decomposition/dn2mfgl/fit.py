"""Whole fits of deep NMF with structure: starts, sweeps for all seeds at once, the best seed."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from deepnmf_jax.decomposition.dn2mfgl import loop as structure_loop
from deepnmf_jax.decomposition.dn2mfgl import objective as structure
from deepnmf_jax.decomposition.dn2mfgl import released
from deepnmf_jax.decomposition.dn2mfgl.graph import Graph
from deepnmf_jax.decomposition.dn2mfgl.loop import State
from deepnmf_jax.decomposition.dn2mfgl.objective import Form, Strengths
from deepnmf_jax.decomposition.dn2mfgl.released import Factors
from deepnmf_jax.decomposition.dn2mfgl.spectral import dictionary_for
from deepnmf_jax.decomposition.updates.loop import CHECK_EVERY, history_length, over_starts

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


@partial(jax.jit, static_argnames=("layer_sizes",))
def make_starts(keys: Array, x: Array, codes: Array | None, layer_sizes: tuple[int, ...]) -> Factors:
    """Layers pretrained from random numbers, one start a key: every factor has a first axis of seeds.

    Args:
        keys: (seeds,).
        x: X (m, n).
        codes: V_l (r_l, n) that takes the place of the last layer's pretrained codes, H_l being fitted to it; None.
        layer_sizes: r_1 ... r_l.
    """

    def one(key: Array) -> Factors:
        random_layers = layer_sizes if codes is None else layer_sizes[:-1]
        factors = Factors((), ())
        if random_layers:
            start = released.random_start(key, x.shape[0], x.shape[1], random_layers, x.dtype)
            factors, _ = released.pretrain(x, start)
        if codes is None:
            return factors
        below = factors.v[-1] if factors.v else x
        return Factors((*factors.h, dictionary_for(below, codes)), (*factors.v, codes))

    return jax.vmap(one)(keys)


def given_starts(init: tuple[Any, Any], x: Array, layer_sizes: tuple[int, ...]) -> Factors:
    """One start from given factors (H_1, ..., H_l), (V_1, ..., V_l), as `make_starts` returns it.

    Raises:
        ValueError: another number of factors, other shapes, entries that are negative or not finite.
    """
    sizes = (x.shape[0], *layer_sizes)
    layers = range(1, len(sizes))
    shapes = [*(f"H_{i}" for i in layers), *(f"V_{i}" for i in layers)]
    wanted = [*zip(sizes, layer_sizes, strict=False), *((r, x.shape[1]) for r in layer_sizes)]
    try:
        arrays = [np.asarray(matrix, x.dtype) for matrices in init for matrix in matrices]
    except (TypeError, ValueError) as error:
        raise ValueError(f"init must be ((H_1, ..., H_l), (V_1, ..., V_l)): {error}") from error
    if [array.shape for array in arrays] != wanted:
        raise ValueError(
            f"init has factors of shapes {[array.shape for array in arrays]}; they must be "
            + ", ".join(f"{name} {shape}" for name, shape in zip(shapes, wanted, strict=True))
        )
    for name, array in zip(shapes, arrays, strict=True):
        if not (np.isfinite(array) & (array >= 0)).all():
            raise ValueError(f"init has entries in {name} that are negative or not finite")
    stacked = [jnp.asarray(array)[None] for array in arrays]
    return Factors(tuple(stacked[: len(layer_sizes)]), tuple(stacked[len(layer_sizes) :]))


def solve_well_posed(
    starts: Factors,
    x: Array,
    graph: Graph,
    strengths: Strengths,
    form: Form,
    max_iter: int,
    tol: float,
    report: Callable[[int, float], None] | None = None,
) -> Solution:
    """Minimise the objective of `structure` from all starts at once. x (m, n).

    `report` is called with the sweeps made and the lowest objective after every ten sweeps; the result is the same.
    """
    states = _begin(starts.h, starts.v[-1], x, graph, strengths, form, history_length(max_iter))
    limit = jnp.asarray(tol, x.dtype)
    if report is None:
        states = _go_on(states, x, graph, strengths, form, limit, max_iter)
    done = 0 if report else max_iter
    while report and done < max_iter and not bool(jnp.all(states.converged)):
        done = min(done + CHECK_EVERY, max_iter)
        states = _go_on(states, x, graph, strengths, form, limit, done)
        report(done, float(jnp.nanmin(states.value)))
    losses = np.asarray(states.value)
    state: Any = jax.tree.map(lambda a: np.asarray(a[_lowest(losses)]), states)
    q = np.asarray(structure.chain(state.h))
    lengths = np.linalg.norm(q, axis=0)
    lengths = np.where(lengths > 0, lengths, 1)
    history = state.history[np.isfinite(state.history)] if np.isfinite(state.value) else np.r_[state.history[0], np.nan]
    return Solution(
        [*state.h[:-1], state.h[-1] / lengths],
        (q / lengths).T,
        (state.v * lengths[:, None]).T,
        np.ravel(state.weights) if form.robust == "feature" else np.ones(x.shape[0], x.dtype),
        history,
        losses,
        int(state.sweeps),
        bool(state.converged),
    )


def _lowest(losses: np.ndarray) -> int:
    return int(np.argmin(np.where(np.isfinite(losses), losses, np.inf)))


@partial(jax.jit, static_argnames=("form", "length"))
def _begin(
    hs: tuple[Array, ...], vs: Array, x: Array, graph: Graph, strengths: Strengths, form: Form, length: int
) -> State:
    def one(h: tuple[Array, ...], v: Array) -> State:
        return structure_loop.init_state(h, v, x, graph, strengths, form, length)

    return over_starts(one, len(vs))(hs, vs)


@partial(jax.jit, static_argnames=("form",))
def _go_on(
    states: State, x: Array, graph: Graph, strengths: Strengths, form: Form, tol: Array, stop_at: Array | int
) -> State:
    def one(state: State) -> State:
        return structure_loop.advance(state, x, graph, strengths, form, tol, stop_at)

    return over_starts(one, len(states.v))(states)


def solve_released(
    starts: Factors, x: Array, graph: Graph, strengths: tuple[float, float, float], max_iter: int
) -> Solution:
    """Exactly `max_iter` released sweeps from every start; the lowest objective is kept. x (m, n)."""
    numbers = tuple(jnp.asarray(value, x.dtype) for value in strengths)
    factors, weights, histories = _released_all(starts, x, graph, numbers, max_iter)
    losses = np.asarray(histories[:, -1])
    best = _lowest(losses)
    kept: Any = jax.tree.map(lambda a: np.asarray(a[best]), factors)
    return Solution(
        list(kept.h),
        np.asarray(structure.chain(kept.h)).T,
        kept.v[-1].T,
        np.ravel(weights[best]),
        np.asarray(histories[best]),
        losses,
        max_iter,
        False,
    )


@partial(jax.jit, static_argnames=("max_iter",))
def _released_all(
    starts: Factors, x: Array, graph: Graph, strengths: tuple[Array, ...], max_iter: int
) -> tuple[Factors, Array, Array]:
    alpha, beta, nu = strengths
    stops = [*range(CHECK_EVERY, max_iter, CHECK_EVERY), max_iter]

    def solve(factors: Factors) -> tuple[Factors, Array, Array]:
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

    return jax.vmap(solve)(starts)
