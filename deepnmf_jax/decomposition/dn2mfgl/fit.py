"""Whole fits of deep NMF with structure: starts, sweeps for all seeds at once, the best seed."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from deepnmf_jax.decomposition.dn2mfgl import released
from deepnmf_jax.decomposition.dn2mfgl.objective import Form, Problem, chain, evaluate
from deepnmf_jax.decomposition.dn2mfgl.released import Factors
from deepnmf_jax.decomposition.dn2mfgl.spectral import dictionary_for
from deepnmf_jax.decomposition.dn2mfgl.sweep import PROVED, sweep
from deepnmf_jax.decomposition.io.arrays import to_numpy
from deepnmf_jax.decomposition.updates.graph import Graph
from deepnmf_jax.decomposition.updates.loop import Descent, descend, history_length, in_view, over_starts

INITS = ("spectral", "pretrained")
# Exponents of the multiplicative step above the proved one grow by GROWTH up to LONGEST.
LONGEST, GROWTH = 2.0, 1.1

Report = Callable[[int, float], None]
# Factors of a released sweep, and the weights of its next one.
Weighted = tuple[Factors, Array]


class Iterate(NamedTuple):
    """What the sweeps change: h: H_1 ... H_l, v (r_l, n), weights (m or 1, n or 1) of the residual at these factors,
    value () the objective, exponent () of the next step, rejected () sweeps that were taken back."""

    h: tuple[Array, ...]
    v: Array
    weights: Array
    value: Array
    exponent: Array
    rejected: Array


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
        arrays = [to_numpy(matrix, x.dtype) for matrices in init for matrix in matrices]
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


def begin(h: tuple[Array, ...], v: Array, problem: Problem, form: Form) -> Iterate:
    """Before the first sweep."""
    value, weights = evaluate(h, v, problem, form)
    return Iterate(h, v, weights, value, jnp.full((), LONGEST / 2, value.dtype), jnp.zeros((), jnp.int32))


def step(state: Iterate, problem: Problem, form: Form) -> Iterate:
    """One sweep. Its exponent grows while J falls, and a sweep that raised J is taken back.

    Salakhutdinov and Roweis, Adaptive overrelaxed bound optimization methods, 2003: the next sweep then has exponent
    1/2, for which J cannot rise.
    """
    h, v = sweep(state.h, state.v, state.weights, problem, form, state.exponent)
    value, weights = evaluate(h, v, problem, form)
    good = (value <= state.value) | (state.exponent <= PROVED)

    def kept(new: Array, old: Array) -> Array:
        return jnp.where(good, new, old)

    return Iterate(
        h=tuple(kept(new, old) for new, old in zip(h, state.h, strict=True)),
        v=kept(v, state.v),
        weights=kept(weights, state.weights),
        value=kept(value, state.value),
        exponent=jnp.where(good, jnp.minimum(GROWTH * state.exponent, LONGEST), PROVED),
        rejected=state.rejected + ~good,
    )


def advance(
    start: Iterate | Descent[Iterate],
    stop_at: Array | int,
    problem: Problem,
    form: Form,
    tol: Array | float,
    length: int = 64,
) -> Descent[Iterate]:
    """Sweeps until J falls by less than tol |J| over ten of them (0: never), or until `stop_at` sweeps are made.

    A value below 0 (or none at all) ends them too: data and lam terms are at least 0, so that M then has a negative
    direction, along which J falls without end.
    """

    def sweeps(state: Iterate) -> Iterate:
        return step(state, problem, form)

    def stop(before: Array, now: Array, state: Iterate) -> Array:
        begun = before < jnp.inf
        return ((before - now <= tol * jnp.abs(now)) & (tol > 0)) | (~(now >= 0) & begun)

    return descend(start, stop_at, sweeps, lambda state: state.value, stop, length=length)


def solve_well_posed(
    starts: Factors, problem: Problem, form: Form, max_iter: int, tol: float, report: Report | None = None
) -> Solution:
    """Minimise the objective of objective.py from all starts at once.

    `report` is called with the sweeps made and the lowest objective after every ten sweeps; the result is the same.
    """
    features, dtype = len(problem.x), problem.x.dtype
    compiled = partial(_well_posed, problem=problem, form=form, tol=jnp.asarray(tol, dtype))
    best, losses = _best(in_view(partial(compiled, length=history_length(max_iter)), starts, max_iter, report))
    h, v = best.state.h, best.state.v
    q = np.asarray(chain(h))
    lengths = np.linalg.norm(q, axis=0)
    lengths = np.where(lengths > 0, lengths, 1)
    return Solution(
        [*h[:-1], h[-1] / lengths],
        (q / lengths).T,
        (v * lengths[:, None]).T,
        np.ravel(best.state.weights) if form.robust == "feature" else np.ones(features, dtype),
        best.history[: best.looks],
        losses,
        int(best.sweeps),
        bool(best.converged),
    )


@partial(jax.jit, static_argnames=("form", "length"))
def _well_posed(
    starts: Factors | Descent[Iterate], stop_at: int, problem: Problem, form: Form, tol: Array, length: int
) -> Descent[Iterate]:
    def one(start: Factors | Descent[Iterate]) -> Descent[Iterate]:
        now = start if isinstance(start, Descent) else begin(start.h, start.v[-1], problem, form)
        return advance(now, stop_at, problem, form, tol, length)

    return over_starts(one, starts)


def solve_released(
    starts: Factors,
    x: Array,
    graph: Graph,
    strengths: tuple[float, float, float],
    max_iter: int,
    report: Report | None = None,
) -> Solution:
    """Exactly `max_iter` released sweeps from every start; the lowest objective is kept. x (m, n)."""
    numbers, length = tuple(jnp.asarray(value, x.dtype) for value in strengths), history_length(max_iter)
    compiled = partial(_released, x=x, graph=graph, strengths=numbers, length=length)
    best, losses = _best(in_view(compiled, starts, max_iter, report))
    kept, weights = best.state
    components, history = np.asarray(chain(kept.h)).T, best.history[: best.looks]
    return Solution(list(kept.h), components, kept.v[-1].T, np.ravel(weights), history, losses, max_iter, False)


@partial(jax.jit, static_argnames=("length",))
def _released(
    starts: Factors | Descent[Weighted], stop_at: int, x: Array, graph: Graph, strengths: tuple[Array, ...], length: int
) -> Descent[Weighted]:
    def sweeps(state: Weighted) -> Weighted:
        return released.sweep(*state, x, graph, *strengths)

    def value(state: Weighted) -> Array:
        return released.objective(state[0], x, graph, *strengths)

    def never(*_: Any) -> Array:
        return jnp.zeros((), bool)

    def one(start: Factors | Descent[Weighted]) -> Descent[Weighted]:
        now = start if isinstance(start, Descent) else (start, released.row_weights(x, start))
        return descend(now, stop_at, sweeps, value, never, length=length)

    # Not `over_starts`: a single start that is not mapped has its products rounded differently.
    return jax.vmap(one)(starts)


def _best(found: Descent) -> tuple[Any, np.ndarray]:
    """Of descents from several starts the one that ended lowest, as numpy, and where all of them ended."""
    losses = np.asarray(found.value)
    lowest = int(np.argmin(np.where(np.isfinite(losses), losses, np.inf)))
    return jax.tree.map(lambda a: np.asarray(a[lowest]), found), losses
