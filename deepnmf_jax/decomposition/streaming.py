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
    """All that is kept of the batches so far: m (k, p) = sum Z^T A, n (k, k) = sum Z^T Z, seen () samples."""

    m: Array
    n: Array
    seen: Array


def no_statistics(d: Array) -> Statistics:
    """Of no batches, for a dictionary of the shape of D."""
    return Statistics(jnp.zeros_like(d), jnp.zeros((len(d), len(d)), d.dtype), jnp.zeros((), d.dtype))


@jax.jit
def gather(statistics: Statistics, zt: Array, a: Batch) -> Statistics:
    """The statistics with one more batch, of codes Z^T (k, b)."""
    m, n, seen = statistics
    return Statistics(m + product(zt, a), n + product(zt, zt.T), seen + a.shape[0])


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
    penalties = penalties_for(max(1, round(float(statistics.seen))))
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


class Batches:
    """Batches that can be walked through again, as `read` makes them, and that are the same each time."""

    def __init__(self, batches: Iterable, read: Callable[[Any], Batch]) -> None:
        self.batches, self.read = batches, read
        # Samples and the sum of squares of each batch, once they have been walked through.
        self.seen: list[tuple[int, float]] = []

    def __iter__(self) -> Iterator[Batch]:
        seen = []
        for batch in batches_of(self.batches):
            a = self.read(batch)
            seen.append((a.shape[0], float(square_sum(a))))
            if self.seen and self.seen[: len(seen)] != seen:
                break
            yield a
        if self.seen and seen != self.seen:
            raise ValueError(
                "the iterable gives other batches in each epoch (a loader that shuffles?), but codes belong to "
                "samples; switch shuffling off, or call partial_fit on each batch"
            )
        self.seen = seen


def fit_epochs(
    batches: Batches,
    d: Array,
    penalties_for: Callable[[int], Penalties],
    settings: SolverSettings,
    limit: int,
    tol: float,
    report: Callable[[int, float], None] | None = None,
) -> tuple[Array, list[float], bool]:
    """Epochs from the dictionary D: D at the end, the objective after each, and whether the tolerance ended them.

    `limit` of them at most, or until over ten of them the objective fell by less than `tol` times what it was.
    """
    # One pass to know how many samples there are, and codes for the first dictionary.
    codes = [np.asarray(find_codes(Target(a), d, settings, CODES_LIMIT, CODES_TOL)) for a in batches]
    penalties, squares = penalties_for(sum(n for n, _ in batches.seen)), sum(square for _, square in batches.seen)
    history: list[float] = []
    converged = squares == 0
    while len(history) < limit and not converged:
        codes, d, value = epoch(batches, codes, d, penalties, settings, squares)
        history.append(value)
        if report is not None:
            report(len(history), value)
        before = history[max(0, len(history) - 11)]
        converged = len(history) > 10 and before - value < tol * before
    return d if squares else jnp.zeros_like(d), history, converged


def codes_of(
    batches: Batches, d: Array, penalties: Penalties, settings: SolverSettings, limit: int, tol: float
) -> tuple[list[np.ndarray], float]:
    """Codes Z^T (k, b) of each batch for the dictionary D, and ||A - Z D||_F of all."""
    codes, squares = [], 0.0
    for a in batches:
        zt = find_codes(Target(a, penalties), d, settings, limit, tol)
        squares += 2 * float(_error(a, zt, d))
        codes.append(np.asarray(zt))
    return codes, math.sqrt(max(squares, 0))
