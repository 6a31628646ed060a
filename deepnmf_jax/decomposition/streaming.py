"""Factorization of data that comes in batches: only the codes, two small matrices and one batch are held.

With M = sum Z_t^T A_t and N = sum Z_t^T Z_t over the batches, the step of the dictionary needs nothing else (Mairal,
Bach, Ponce and Sapiro, Online learning for matrix factorization, 2010). Batches A (b, p) are checked and scaled
already, dense or sparse; D is (k, p).
"""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental.sparse import BCOO

from deepnmf_jax.decomposition.codes import find_codes
from deepnmf_jax.decomposition.io.arrays import batches_of
from deepnmf_jax.decomposition.updates.hals import coordinate_sweep
from deepnmf_jax.decomposition.updates.linear_algebra import product
from deepnmf_jax.decomposition.updates.objective import Half, Penalties, Target, penalty, square_sum, squared_error
from deepnmf_jax.decomposition.updates.solvers import SolverSettings, step_of

DICTIONARY_SWEEPS = 3
# Codes for the dictionary of the moment: sweeps, tolerance.
CODES_LIMIT, CODES_TOL = 300, 1e-4

Batch = Array | BCOO


class Statistics(NamedTuple):
    """All that is kept of the batches so far: m (k, p) = sum Z^T A, n (k, k) = sum Z^T Z, seen samples."""

    m: Array
    n: Array
    seen: float


class Epochs(NamedTuple):
    """d (k, p) at the end, the objective after each epoch, and whether the tolerance ended them."""

    d: Array
    history: list[float]
    converged: bool


def no_statistics(d: Array) -> Statistics:
    """Of no batches, for a dictionary of the shape of D."""
    k, p = d.shape
    return Statistics(jnp.zeros((k, p), d.dtype), jnp.zeros((k, k), d.dtype), 0.0)


def gather(statistics: Statistics, zt: Array, a: Batch) -> Statistics:
    """The statistics with one more batch, of codes Z^T (k, b)."""
    m, n = _sums(statistics.m, statistics.n, zt, a)
    return Statistics(m, n, statistics.seen + a.shape[0])


@jax.jit
def _sums(m: Array, n: Array, zt: Array, a: Batch) -> tuple[Array, Array]:
    return m + product(zt, a), n + product(zt, zt.T)


@partial(jax.jit, static_argnames=("sweeps",))
def _improved(d: Array, m: Array, n: Array, penalties: Penalties, sweeps: int) -> Array:
    """D after so many coordinate sweeps on the statistics M and N."""
    b = n + penalties.l2_d * jnp.eye(n.shape[0], dtype=n.dtype)
    return jax.lax.fori_loop(0, sweeps, lambda _, d: coordinate_sweep(d, m - penalties.l1_d, b), d)


@partial(jax.jit, static_argnames=("settings",))
def _improved_codes(zt: Array, half: Half, settings: SolverSettings) -> Array:
    return step_of(half, settings)(zt)


_error = jax.jit(squared_error)


def step(
    d: Array, statistics: Statistics, a: Batch, penalties_for: Callable[[int], Penalties], settings: SolverSettings
) -> tuple[Array, Array, Statistics]:
    """What one batch does: its codes Z^T (k, b), then the dictionary from the statistics of all batches so far.

    `penalties_for` gives those of a number of samples: those of the dictionary grow with the samples seen.
    """
    zt = find_codes(Target(a, penalties_for(a.shape[0])), d, settings, CODES_LIMIT, CODES_TOL)
    statistics = gather(statistics, zt, a)
    penalties = penalties_for(max(1, round(statistics.seen)))
    return zt, _improved(d, statistics.m, statistics.n, penalties, DICTIONARY_SWEEPS), statistics


def epoch(
    batches: Iterable[Batch],
    codes: list[np.ndarray],
    d: Array,
    penalties: Penalties,
    settings: SolverSettings,
    squares: float,
) -> tuple[list[np.ndarray], Array, float]:
    """One sweep over all batches, from codes Z^T of each: new codes, new D, and the objective after it.

    From the same start the iterates are those of a sweep of "hals" on the whole matrix. `squares` is ||A||_F^2.
    """
    statistics, new, of_codes = no_statistics(d), [], 0.0
    nothing = jnp.zeros((1, 1), d.dtype)
    for a, old in zip(batches, codes, strict=True):
        zt = _improved_codes(jnp.asarray(old), Target(a, penalties).for_codes(d), settings)
        statistics = gather(statistics, zt, a)
        of_codes += float(penalty(zt, nothing, penalties))
        new.append(np.asarray(zt))
    m, n, _ = statistics
    d = _improved(d, m, n, penalties, settings.inner)
    error = 0.5 * (squares - 2 * jnp.sum(m * d) + jnp.sum(n * product(d, d.T)))
    return new, d, float(error + penalty(nothing, d, penalties)) + of_codes


def fit_epochs(
    walk: Callable[[], Iterator[Batch]],
    d: Array,
    penalties_for: Callable[[int], Penalties],
    settings: SolverSettings,
    limit: int,
    tol: float,
    report: Callable[[int, float], None] | None = None,
) -> Epochs:
    """Epochs over the batches of `walk`, from the dictionary D.

    `limit` of them at most, or until over ten of them the objective fell by less than `tol` times what it was.
    """
    # One pass to know how many samples there are, and codes for the first dictionary.
    codes, squares = [], 0.0
    for a in walk():
        codes.append(np.asarray(find_codes(Target(a), d, settings, CODES_LIMIT, CODES_TOL)))
        squares += float(square_sum(a))
    penalties = penalties_for(sum(zt.shape[1] for zt in codes))
    history: list[float] = []
    converged = squares == 0
    while len(history) < limit and not converged:
        codes, d, value = epoch(walk(), codes, d, penalties, settings, squares)
        history.append(value)
        if report is not None:
            report(len(history), value)
        before = history[max(0, len(history) - 11)]
        converged = len(history) > 10 and before - value < tol * before
    return Epochs(d if squares else jnp.zeros_like(d), history, converged)


def codes_of(
    walk: Callable[[], Iterator[Batch]],
    d: Array,
    penalties: Penalties,
    settings: SolverSettings,
    limit: int,
    tol: float,
) -> tuple[list[np.ndarray], float]:
    """Codes Z^T (k, b) of each batch for the dictionary D, and ||A - Z D||_F of all."""
    codes, squares = [], 0.0
    for a in walk():
        zt = find_codes(Target(a, penalties), d, settings, limit, tol)
        squares += 2 * float(_error(a, zt, d))
        codes.append(np.asarray(zt))
    return codes, math.sqrt(max(squares, 0))


def same_each_time(batches: Iterable, read: Callable[[Any], Batch]) -> Callable[[], Iterator[Batch]]:
    """A function that walks through the batches as `read` makes them.

    Its iterators raise ValueError where they meet other batches than the first one did, as of a loader that shuffles.
    """
    first: list[tuple[int, float]] | None = None

    def walk() -> Iterator[Batch]:
        nonlocal first
        seen = []
        for batch in batches_of(batches):
            a = read(batch)
            seen.append((a.shape[0], float(square_sum(a))))
            if first and first[: len(seen)] != seen:
                break
            yield a
        if first and seen != first:
            raise ValueError(
                "the iterable gives other batches in each epoch (a loader that shuffles?), but codes belong to "
                "samples; switch shuffling off, or call partial_fit on each batch"
            )
        first = seen

    return walk
