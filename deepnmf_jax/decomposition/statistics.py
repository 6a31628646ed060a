"""What is kept of data that comes in batches, and what one batch and one epoch do to the dictionary.

With M = sum Z_t^T A_t and N = sum Z_t^T Z_t over the batches, the step of the dictionary needs nothing else (Mairal,
Bach, Ponce and Sapiro, Online learning for matrix factorization, 2010). Matrixes A (b, p) are checked and scaled
already, dense or sparse; D is (k, p). What other divergences than the squared error keep is in `beta_batches`.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from deepnmf_jax.decomposition.codes import find_codes
from deepnmf_jax.decomposition.io.nonzeros import Matrix
from deepnmf_jax.decomposition.updates.hals import coordinate_sweep
from deepnmf_jax.decomposition.updates.linear_algebra import product
from deepnmf_jax.decomposition.updates.objective import Penalties, Target, penalty
from deepnmf_jax.decomposition.updates.solvers import SolverSettings, improved

DICTIONARY_SWEEPS = 3
# Codes for the dictionary of the moment: sweeps, tolerance.
CODES_LIMIT, CODES_TOL = 300, 1e-4


class Statistics(NamedTuple):
    """All that is kept of the batches so far: m (k, p) = sum Z^T A, n (k, k) = sum Z^T Z, seen () samples."""

    m: Array
    n: Array
    seen: Array


def no_statistics(d: Array) -> Statistics:
    """Of no batches, for a dictionary of the shape of D."""
    return Statistics(jnp.zeros_like(d), jnp.zeros((len(d), len(d)), d.dtype), jnp.zeros((), d.dtype))


@jax.jit
def gather(statistics: Statistics, zt: Array, a: Matrix) -> Statistics:
    """The statistics with one more batch, of codes Z^T (k, b)."""
    m, n, seen = statistics
    return Statistics(m + product(zt, a), n + product(zt, zt.T), seen + a.shape[0])


@partial(jax.jit, static_argnames=("sweeps",))
def _improved(d: Array, m: Array, n: Array, penalties: Penalties, sweeps: int, free: Array | None) -> Array:
    """D after so many coordinate sweeps on the statistics M and N; entries that are not `free` (k, p) stay."""
    one = jnp.eye(n.shape[0], dtype=n.dtype)
    b = n + penalties.l2_d * one
    b = b if penalties.ortho_d is None else b + penalties.ortho_d * (1 - one)
    return jax.lax.fori_loop(0, sweeps, lambda _, d: coordinate_sweep(d, m - penalties.l1_d, b, free=free), d)


def codes_of_batch(a: Matrix, d: Array, penalties: Penalties, settings: SolverSettings) -> Array:
    """Codes Z^T (k, b) of a batch for the dictionary of the moment."""
    return find_codes(Target(a, penalties), d, settings, CODES_LIMIT, CODES_TOL)


def step(
    d: Array,
    statistics: Statistics,
    a: Matrix,
    penalties_for: Callable[[int], Penalties],
    settings: SolverSettings,
    free: Array | None = None,
) -> tuple[Array, Array, Statistics]:
    """What one batch does: its codes Z^T (k, b), then the dictionary from the statistics of all batches so far.

    `penalties_for` gives those of a number of samples: those of the dictionary grow with the samples seen.
    """
    zt = codes_of_batch(a, d, penalties_for(a.shape[0]), settings)
    statistics = gather(statistics, zt, a)
    penalties = penalties_for(max(1, round(float(statistics.seen))))
    return zt, _improved(d, statistics.m, statistics.n, penalties, DICTIONARY_SWEEPS, free), statistics


def epoch(
    batches: Iterable[Matrix],
    codes: list[np.ndarray],
    d: Array,
    penalties: Penalties,
    settings: SolverSettings,
    squares: float,
    free: Array | None = None,
) -> tuple[list[np.ndarray], Array, float]:
    """One sweep over all batches, from codes Z^T of each: new codes, new D, and the objective after it.

    From the same start the iterates are those of a sweep of "hals" on the whole matrix. `squares` is ||A||_F^2.
    """
    statistics, new, of_codes = no_statistics(d), [], 0.0
    nothing = jnp.zeros((1, 1), d.dtype)
    for a, old in zip(batches, codes, strict=True):
        zt = improved(jnp.asarray(old), Target(a, penalties).for_codes(d), settings)
        statistics = gather(statistics, zt, a)
        of_codes += float(penalty(zt, nothing, penalties))
        new.append(np.asarray(zt))
    m, n, _ = statistics
    d = _improved(d, m, n, penalties, settings.inner, free)
    error = 0.5 * (squares - 2 * jnp.sum(m * d) + jnp.sum(n * product(d, d.T)))
    return new, d, float(error + penalty(nothing, d, penalties)) + of_codes
