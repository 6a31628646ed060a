"""Factorization of data that comes in batches: only the codes, two small matrices and one batch are held."""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Self, cast

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
from deepnmf_jax.decomposition.io.units import FAR, reconstruction_error, unit_of_objective
from deepnmf_jax.decomposition.known import Known, free_of, known_of, with_known
from deepnmf_jax.decomposition.statistics import Statistics, codes_of_batch, epoch, no_statistics, step
from deepnmf_jax.decomposition.updates.objective import (
    Penalties,
    Target,
    divergence,
    rescaled,
    scaled_penalties,
    square_sum,
)
from deepnmf_jax.decomposition.updates.solvers import SolverSettings, check_batches, settings_of
from deepnmf_jax.decomposition.updates.starts import compiled_start

_divergence = jax.jit(divergence, static_argnames=("beta",))


def outweighs(data: Data, unit: float) -> bool:
    """Whether beside this batch all earlier ones, of that unit, are nothing (0: they are), so that it is the first."""
    return not data.zero and data.unit > FAR * unit


class Batches:
    """Batches that can be walked through again, as `read` makes them, and that are the same each time.

    A walk ends early at a batch that `outweighs` the leading one, and takes its place.
    """

    def __init__(
        self, batches: Iterable, read: Callable[..., Data], lead: Data, matrix: Callable[[Matrix], Matrix]
    ) -> None:
        # `lead` is the batch in whose unit all are; `begin` finds it. `matrix` makes of a batch what the updates need.
        self.batches, self.read, self.lead, self.matrix = batches, read, lead, matrix
        # Samples and the sum of squares of each batch, once they have been walked through.
        self.seen: list[tuple[int, float]] = []

    def __iter__(self) -> Iterator[Matrix]:
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
    batches: Batches, start_of: Callable[[Matrix], Array], settings: SolverSettings
) -> tuple[Array, list[np.ndarray]]:
    """The first dictionary, by `start_of` from a batch that none outweighs, and codes of all batches for it."""
    while True:
        lead = batches.lead
        d = start_of(lead.a)
        # The pass also counts the samples.
        codes = [np.asarray(codes_of_batch(a, d, Penalties(), settings)) for a in batches]
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
    free: Array | None = None,
) -> tuple[Array, list[float], bool]:
    """Epochs from D and codes of `begin`: D at the end, the objective after each, whether the tolerance ended them.

    `limit` of them at most, or until over ten of them the objective fell by less than `tol` times what it was.
    """
    penalties, squares = penalties_for(sum(n for n, _ in batches.seen)), sum(square for _, square in batches.seen)
    sweep = partial(epoch, squares=squares) if settings.beta == 2 else beta_batches.epoch
    history: list[float] = []
    converged = squares == 0
    while len(history) < limit and not converged:
        codes, d, value = sweep(batches, codes, d, penalties, settings, free=free)
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
    alpha_graph: float
    ortho_W: float
    ortho_H: float
    known_D: np.ndarray | None
    beta_loss: float | str
    inner_iter: int

    @property
    def _settings(self) -> SolverSettings:
        # Of the arguments as they are now: they may be set to others after the constructor has checked them.
        return settings_of(self.solver, self.beta_loss, self.inner_iter)

    def _forget(self) -> None:
        super()._forget()
        # Sums over the batches: `Statistics`, or in `_m` and `_below` those of `beta_batches.Sums`.
        self._m: Array | None = None
        self._n: Array | None = None
        self._below: Array | None = None
        self._seen: Array | None = None

    def _penalties(self, n: int, p: int, scale: float, of_dictionary: float | None = None) -> Penalties:
        given = scaled_penalties(self.alpha_W, self.alpha_H, self.l1_ratio, n, p)
        given = given._replace(ortho_z=self.ortho_W * p or None, ortho_d=self.ortho_H * n or None)
        return rescaled(given, scale, self._settings.beta, of_dictionary)

    def _matrix(self, a: Matrix, both: bool) -> Matrix:
        """A as the updates need it, of codes and dictionary (`both`) or of codes alone."""
        return nonzeros_of(a, self.nb_concepts, self._settings.beta, both) if isinstance(a, BCOO) else a

    def _known(self, p: int, scale: float, dtype: np.dtype) -> Known | None:
        """What is known of D (k, p) for data divided by `scale`."""
        return known_of(self.known_D, self.nb_concepts, p, math.sqrt(scale), dtype)

    def _first_dictionary(self, a: Matrix, known: Known | None) -> Array:
        return with_known(compiled_start(self._key(), a, self.nb_concepts, self.init)[1], known)

    def _check_batches(self) -> None:
        check_batches(self._settings)
        if self.alpha_graph:
            raise ValueError(
                f"alpha_graph = {self.alpha_graph:g} binds each sample to its neighbours, which other batches hold; "
                "pass one matrix, or alpha_graph=0"
            )

    def partial_fit(self, A: Any) -> Self:
        """One step on one batch A (b, p): its codes, then the dictionary from the statistics of all batches so far.

        Batches that are nothing beside a later one (all 0, or of a unit 2^40 times smaller) are forgotten with it: it
        gives the start. The reports of an earlier `fit` are forgotten too. What is known of D stays as it is.

        Raises:
            ValueError: a bad or an empty batch, another number of features; nothing has changed then.
        """
        self._fit_batch(A)
        return self

    def _fit_batch(self, batch: Any) -> Array:
        """One step of `partial_fit`; returns Z^T (k, b)."""
        self._check_batches()
        d = self._d
        dtype = arrays.dtype_for(batch, self.dtype) if d is None else d.dtype
        with arrays.with_precision(dtype):
            fixed = {} if d is None else {"features": d.shape[1]}
            data = self._read(batch, dtype, **fixed, **({} if d is None else {"scale": self._scale}))
            count = 0 if self._seen is None or self.n_iter_ is None else self.n_iter_
            nothing = d is None or (self._seen is None and not bool(jnp.any(d)))
            # Whether the batch is the first one that counts.
            first = nothing or outweighs(data, self._scale)
            if first:
                data, count = data if d is None else self._read(batch, dtype, **fixed), 0
            known = self._known(data.a.shape[1], data.scale, dtype)
            kept = self._kind, self._like
            if data.zero and first:
                self._begin(batch, data)
                # What is known comes in with the first batch that counts: nothing of a start may look like one.
                self._d, self.n_iter_ = jnp.zeros((self.nb_concepts, data.a.shape[1]), dtype), 1
                return jnp.zeros((self.nb_concepts, data.a.shape[0]), dtype)
            root = math.sqrt(data.scale)
            d = self._first_dictionary(data.a, known) if first else cast(Array, d) / root
            penalties_for = partial(self._penalties, p=d.shape[1], scale=data.scale)
            zt, d, sums = self._improve(d, self._matrix(data.a, both=True), penalties_for, free_of(known), first)
            # Only now, as penalties may be refused too.
            self._begin(batch, data)
            if not first:
                self._kind, self._like = kept
            self._m, self._n, self._below, self._seen = sums
            self._d, self.n_iter_ = d * root, count + 1
            return zt * root

    def _improve(
        self, d: Array, a: Matrix, penalties_for: Callable[[int], Penalties], free: Array | None, first: bool
    ) -> tuple[Array, Array, tuple]:
        """Codes of a batch A, the `first` one or not, the dictionary after it, and what is kept: `_m`, `_n`, `_below`,
        `_seen`."""
        if self._settings.beta == 2:
            so_far = no_statistics(d)
            if self._m is not None and self._n is not None and not first:
                so_far = Statistics(self._m, self._n, jnp.asarray(self._seen, d.dtype))
            zt, d, (m, n, seen) = step(d, so_far, a, penalties_for, self._settings, free)
            return zt, d, (m, n, None, seen)
        sums = beta_batches.no_sums(d)
        if self._m is not None and self._below is not None and not first:
            sums = beta_batches.Sums(self._m, self._below, jnp.asarray(self._seen, d.dtype))
        zt, d, (m, below, seen) = beta_batches.step(d, sums, a, penalties_for, self._settings, free)
        return zt, d, (m, None, below, seen)

    def _fit_batches(self, batches: Iterable, limit: int | None) -> tuple[np.ndarray, np.ndarray]:
        """`fit` of an iterable of batches: an epoch is a sweep; a one-shot iterator gives one pass of `partial_fit`."""
        self._check_batches()
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

            def first_dictionary(a: Matrix) -> Array:
                return self._first_dictionary(a, self._known(p, all_of.lead.scale, dtype))

            start, codes = begin(all_of, first_dictionary, self._settings)
            data, scale = all_of.lead, all_of.lead.scale
            free = free_of(self._known(p, scale, dtype))
            unit, root = unit_of_objective(scale, self._settings.beta), math.sqrt(scale)
            penalties_for = partial(self._penalties, p=p, scale=scale)
            with progress.bar(self.verbose, limit, "fit", unit) as report:
                d, history, converged = fit_epochs(
                    all_of, start, codes, penalties_for, self._settings, limit, self.tol, report, free
                )
            limit = self._limit(None, ENCODE_LIMIT)
            codes, left = codes_of(all_of, d, penalties_for(1), self._settings, limit, self.tol)
            error = float(reconstruction_error(left, unit))
            self._begin(None, data)
            self._d = d * root
            self._report(len(history), converged, np.asarray(history) * unit, error, stacklevel=5)
            return np.concatenate([zt.T * root for zt in codes]), self.D
