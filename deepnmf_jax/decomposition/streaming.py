"""Factorization of data that comes in batches: only the codes, two small matrices and one batch are held.

With M = sum Z_t^T A_t and N = sum Z_t^T Z_t over the batches, the step of the dictionary needs nothing else (Mairal,
Bach, Ponce and Sapiro, Online learning for matrix factorization, 2010). Batches A (b, p) are checked and scaled
already, dense or sparse; D is (k, p). What other divergences than the squared error keep is in `beta_batches`.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple, Self, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental.sparse import BCOO

from deepnmf_jax.decomposition import beta_batches
from deepnmf_jax.decomposition.codes import find_codes
from deepnmf_jax.decomposition.estimator import ENCODE_LIMIT, FIT_LIMIT, Estimator
from deepnmf_jax.decomposition.io import arrays, progress
from deepnmf_jax.decomposition.io.arrays import batches_of
from deepnmf_jax.decomposition.io.checked import Data
from deepnmf_jax.decomposition.io.nonzeros import Matrix, nonzeros_of
from deepnmf_jax.decomposition.io.units import FAR, unit_of_objective
from deepnmf_jax.decomposition.updates.hals import coordinate_sweep
from deepnmf_jax.decomposition.updates.linear_algebra import product
from deepnmf_jax.decomposition.updates.objective import (
    Half,
    Penalties,
    Target,
    divergence,
    penalty,
    rescaled,
    scaled_penalties,
    square_sum,
)
from deepnmf_jax.decomposition.updates.solvers import SolverSettings, check_batches, step_of
from deepnmf_jax.decomposition.updates.starts import compiled_start

DICTIONARY_SWEEPS = 3
# Codes for the dictionary of the moment: sweeps, tolerance.
CODES_LIMIT, CODES_TOL = 300, 1e-4

Batch = Matrix


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


_divergence = jax.jit(divergence, static_argnames=("beta",))


def step(
    d: Array,
    zt: Array,
    statistics: Statistics,
    a: Batch,
    penalties_for: Callable[[int], Penalties],
    settings: SolverSettings,
) -> tuple[Array, Statistics]:
    """The dictionary from the statistics of all batches so far, A with codes Z^T (k, b) the last; and those.

    `penalties_for` gives those of a number of samples: those of the dictionary grow with the samples seen.
    """
    statistics = gather(statistics, zt, a)
    penalties = penalties_for(max(1, round(float(statistics.seen))))
    return _improved(d, statistics.m, statistics.n, penalties, DICTIONARY_SWEEPS), statistics


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


def outweighs(data: Data, unit: float) -> bool:
    """Whether beside this batch all earlier ones, of that unit, are nothing (0: they are), so that it is the first."""
    return not data.zero and data.unit > FAR * unit


class Batches:
    """Batches that can be walked through again, as `read` makes them, and that are the same each time.

    A walk ends early at a batch that `outweighs` the leading one, and takes its place.
    """

    def __init__(
        self, batches: Iterable, read: Callable[..., Data], lead: Data, matrix: Callable[[Batch], Batch]
    ) -> None:
        # `lead` is the batch in whose unit all are; `begin` finds it. `matrix` makes of a batch what the updates need.
        self.batches, self.read, self.lead, self.matrix = batches, read, lead, matrix
        # Samples and the sum of squares of each batch, once they have been walked through.
        self.seen: list[tuple[int, float]] = []

    def __iter__(self) -> Iterator[Batch]:
        seen = []
        for batch in batches_of(self.batches):
            data = self.read(batch, scale=self.lead.scale)
            if outweighs(data, self.lead.unit):
                self.lead = self.read(batch)
                return
            a = data.a
            seen.append((a.shape[0], float(square_sum(a))))
            if self.seen and self.seen[: len(seen)] != seen:
                break
            yield self.matrix(a)
        if self.seen and seen != self.seen:
            raise ValueError(
                "the iterable gives other batches in each epoch (a loader that shuffles?), but codes belong to "
                "samples; switch shuffling off, or call partial_fit on each batch"
            )
        self.seen = seen


def begin(
    batches: Batches, start_of: Callable[[Batch], Array], settings: SolverSettings
) -> tuple[Array, list[np.ndarray]]:
    """The first dictionary, by `start_of` from a batch that none outweighs, and codes of all batches for it."""
    while True:
        lead = batches.lead
        d = start_of(lead.a)
        # The pass also counts the samples.
        codes = [np.asarray(find_codes(Target(a), d, settings, CODES_LIMIT, CODES_TOL)) for a in batches]
        if batches.lead is lead:
            return d, codes


def fit_epochs(
    batches: Batches,
    d: Array,
    codes: list[np.ndarray],
    penalties_for: Callable[[int], Penalties],
    settings: SolverSettings,
    limit: int,
    tol: float,
    report: Callable[[int, float], None] | None = None,
) -> tuple[Array, list[float], bool]:
    """Epochs from D and codes of `begin`: D at the end, the objective after each, whether the tolerance ended them.

    `limit` of them at most, or until over ten of them the objective fell by less than `tol` times what it was.
    """
    penalties, squares = penalties_for(sum(n for n, _ in batches.seen)), sum(square for _, square in batches.seen)
    sweep = partial(epoch, squares=squares) if settings.beta == 2 else beta_batches.epoch
    history: list[float] = []
    converged = squares == 0
    while len(history) < limit and not converged:
        codes, d, value = sweep(batches, codes, d, penalties, settings)
        history.append(value)
        if report is not None:
            report(len(history), value)
        before = history[max(0, len(history) - 11)]
        converged = len(history) > 10 and before - value < tol * before
    return d if squares else jnp.zeros_like(d), history, converged


def codes_of(
    batches: Batches, d: Array, penalties: Penalties, settings: SolverSettings, limit: int, tol: float
) -> tuple[list[np.ndarray], float]:
    """Codes Z^T (k, b) of each batch for the dictionary D, and the divergence of all."""
    codes, total = [], 0.0
    for a in batches:
        zt = find_codes(Target(a, penalties), d, settings, limit, tol)
        total += float(_divergence(zt, d, Target(a), settings.beta))
        codes.append(np.asarray(zt))
    return codes, total


class FromBatches(Estimator):
    """What `NMF` does with data that comes in batches."""

    init: str
    alpha_W: float
    alpha_H: float | str
    l1_ratio: float
    _settings: SolverSettings

    def _forget(self) -> None:
        super()._forget()
        # Sums over the batches: `Statistics`, or in `_m` and `_below` those of `beta_batches.Sums`.
        self._m: Array | None = None
        self._n: Array | None = None
        self._below: Array | None = None
        self._seen: Array | None = None

    def _penalties(self, n: int, p: int, scale: float, of_dictionary: float | None = None) -> Penalties:
        given = scaled_penalties(self.alpha_W, self.alpha_H, self.l1_ratio, n, p)
        return rescaled(given, scale, self._settings.beta, of_dictionary)

    def _matrix(self, a: Batch, both: bool) -> Batch:
        """A as the updates need it, of codes and dictionary (`both`) or of codes alone."""
        return nonzeros_of(a, self.nb_concepts, self._settings.beta, both) if isinstance(a, BCOO) else a

    def _first_dictionary(self, a: Batch) -> Array:
        return compiled_start(self._key(), a, self.nb_concepts, self.init)[1]

    def partial_fit(self, A: Any) -> Self:
        """One step on one batch A (b, p): its codes, then the dictionary from the statistics of all batches so far.

        Batches that are nothing beside a later one (all 0, or of a unit 2^40 times smaller) are forgotten with it: it
        gives the start. The reports of an earlier `fit` are forgotten too.

        Raises:
            ValueError: a bad or an empty batch, another number of features; nothing has changed then.
        """
        self._fit_batch(A)
        return self

    def _fit_batch(self, batch: Any) -> Array:
        """One step of `partial_fit`; returns Z^T (k, b)."""
        check_batches(self._settings)
        d = self._d
        dtype = arrays.dtype_for(batch, self.dtype) if d is None else d.dtype
        with arrays.with_precision(dtype):
            fixed = {} if d is None else {"features": d.shape[1]}
            data = self._read(batch, dtype, **fixed, **({} if d is None else {"scale": self._scale}))
            count = 0 if self._seen is None or self.n_iter_ is None else self.n_iter_
            nothing = d is None or (self._seen is None and not bool(jnp.any(d)))
            if nothing or outweighs(data, self._scale):
                # The batch is the first one that counts.
                data, count = data if d is None else self._read(batch, dtype, **fixed), 0
                self._begin(batch, data)
                if data.zero:
                    self._d, self.n_iter_ = jnp.zeros((self.nb_concepts, data.a.shape[1]), dtype), 1
                    return jnp.zeros((self.nb_concepts, data.a.shape[0]), dtype)
                d = self._first_dictionary(data.a)
            else:
                d = cast(Array, d) / math.sqrt(self._scale)
            penalties_for = partial(self._penalties, p=d.shape[1], scale=self._scale)
            a = self._matrix(data.a, both=True)
            zt = find_codes(Target(a, penalties_for(a.shape[0])), d, self._settings, CODES_LIMIT, CODES_TOL)
            d, sums = self._improve(d, zt, a, penalties_for)
            kept = self._kind, self._like, self._scale
            self._forget()
            self._kind, self._like, self._scale = kept
            self._m, self._n, self._below, self._seen = sums
            self._d, self.n_iter_ = d * math.sqrt(self._scale), count + 1
            return zt * math.sqrt(self._scale)

    def _improve(self, d: Array, zt: Array, a: Batch, penalties_for: Callable[[int], Penalties]) -> tuple[Array, tuple]:
        """The dictionary after a batch A and its codes, and what is kept: `_m`, `_n`, `_below`, `_seen`."""
        if self._settings.beta == 2:
            so_far = no_statistics(d)
            if self._m is not None and self._n is not None:
                so_far = Statistics(self._m, self._n, jnp.asarray(self._seen, d.dtype))
            d, (m, n, seen) = step(d, zt, so_far, a, penalties_for, self._settings)
            return d, (m, n, None, seen)
        sums = beta_batches.no_sums(d)
        if self._m is not None and self._below is not None:
            sums = beta_batches.Sums(self._m, self._below, jnp.asarray(self._seen, d.dtype))
        d, (m, below, seen) = beta_batches.step(d, zt, sums, a, penalties_for, self._settings)
        return d, (m, None, below, seen)

    def _fit_batches(self, batches: Iterable, limit: int | None) -> tuple[np.ndarray, np.ndarray]:
        """`fit` of an iterable of batches: an epoch is a sweep; a one-shot iterator gives one pass of `partial_fit`."""
        check_batches(self._settings)
        if arrays.can_restart(batches):
            return self._fit_epochs(batches, FIT_LIMIT if limit is None else limit)
        if limit not in (None, 1):
            raise ValueError(
                f"max_iter = {limit} epochs of an iterator that can be walked through once; pass max_iter=1 for one "
                "pass, or a list or a loader that can be walked through again"
            )
        fresh = type(self)(**self.arguments())
        codes = [np.asarray(fresh._fit_batch(batch)).T for batch in arrays.batches_of(batches)]
        self.__dict__.update(fresh.__dict__)
        self._kind, self._like = "numpy", None
        self.converged_ = False
        return np.concatenate(codes), self.D

    def _fit_epochs(self, batches: Iterable, limit: int) -> tuple[np.ndarray, np.ndarray]:
        first = next(arrays.batches_of(batches))
        dtype = arrays.dtype_for(first, self.dtype)
        with arrays.with_precision(dtype):
            data = self._read(first, dtype)
            p = data.a.shape[1]
            read, matrix = partial(self._read, dtype=dtype, features=p), partial(self._matrix, both=True)
            all_of = Batches(batches, read, data, matrix)
            start, codes = begin(all_of, self._first_dictionary, self._settings)
            data, scale = all_of.lead, all_of.lead.scale
            unit, root = unit_of_objective(scale, self._settings.beta), math.sqrt(scale)
            penalties_for = partial(self._penalties, p=p, scale=scale)
            with progress.bar(self.verbose, limit, "fit", unit) as report:
                d, history, converged = fit_epochs(
                    all_of, start, codes, penalties_for, self._settings, limit, self.tol, report
                )
            limit = self._limit(None, ENCODE_LIMIT)
            codes, left = codes_of(all_of, d, penalties_for(1), self._settings, limit, self.tol)
            error = math.sqrt(2 * max(left * unit, 0))
            self._begin(None, data)
            self._d = d * root
            self._report(len(history), converged, np.asarray(history) * unit, error, stacklevel=5)
            return np.concatenate([zt.T * root for zt in codes]), self.D
