"""Factorization of data that comes in batches: only the codes, two small matrices and one batch are held.

With M = sum Z_t^T A_t and N = sum Z_t^T Z_t over the batches, the step of the dictionary needs nothing else (Mairal,
Bach, Ponce and Sapiro, Online learning for matrix factorization, 2010).
"""

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from deepnmf_jax.decomposition.codes import compiled_codes
from deepnmf_jax.decomposition.estimator import ENCODE_LIMIT, FIT_LIMIT
from deepnmf_jax.decomposition.io import arrays, progress
from deepnmf_jax.decomposition.updates import quadratic
from deepnmf_jax.decomposition.updates.objective import Penalties, penalty, square_sum, squared_error
from deepnmf_jax.decomposition.updates.quadratic import product
from deepnmf_jax.decomposition.updates.solvers import improve
from deepnmf_jax.decomposition.updates.starts import compiled_start

if TYPE_CHECKING:
    from deepnmf_jax.decomposition.nmf import NMF

DICTIONARY_SWEEPS = 3


class OneEpoch(ValueError):
    """More than one pass was asked of an iterator that can be walked through once."""


def _check(model: "NMF") -> None:
    if model._settings.beta != 2 or model.solver not in ("hals", "anls", "pgd"):
        raise ValueError(
            f"batches are for the squared error with solver 'hals', 'anls' or 'pgd'; this NMF has solver = "
            f"{model.solver!r} and beta_loss = {model.beta_loss!r}: pass one matrix"
        )


@jax.jit
def _accumulate(m: Array, n: Array, zt: Array, a: Any) -> tuple[Array, Array]:
    return m + product(zt, a), n + product(zt, zt.T)


def improve_dictionary(d: Array, m: Array, n: Array, penalties: Penalties, sweeps: int) -> Array:
    """D (k, p) after so many coordinate sweeps on the statistics M = Z^T A (k, p), N = Z^T Z (k, k)."""
    b = n + penalties.l2_d * jnp.eye(n.shape[0], dtype=n.dtype)
    return jax.lax.fori_loop(0, sweeps, lambda _, d: quadratic.coordinate_sweep(d, m - penalties.l1_d, b), d)


_improve_dictionary = jax.jit(improve_dictionary, static_argnames=("sweeps",))
_improve_codes = jax.jit(
    lambda zt, d, a, penalties, settings: improve(zt, d, a, penalties.l1_z, penalties.l2_z, settings),
    static_argnames=("settings",),
)


def partial_fit(model: "NMF", batch: Any, forget: float = 1.0) -> Array:
    """One step of `NMF.partial_fit`; `forget` scales down the statistics of earlier batches. Returns Z^T (k, b)."""
    _check(model)
    first = model._d is None
    dtype = arrays.dtype_for(batch, model.dtype) if first else model._dictionary().dtype
    with arrays.with_precision(dtype):
        features = None if first else model._dictionary().shape[1]
        data = model._read(batch, dtype, features=features, scale=None if first else model._scale)
        if first:
            model._forget()
            model._remember_kind(batch)
            model._scale = data.scale
            d = compiled_start(model._key(), data.a, model.nb_concepts, model.init)[1]
            model._d = d * math.sqrt(data.scale)
        root = math.sqrt(model._scale)
        d = model._dictionary() / root
        k, p = d.shape
        penalties = model._penalties(data.a.shape, model._scale)
        zt = compiled_codes(data.a, d, penalties, None, model._settings)[0]
        if model._m is None or model._n is None:
            model._m, model._n, model._seen = jnp.zeros((k, p), dtype), jnp.zeros((k, k), dtype), 0.0
        m, n = _accumulate(forget * model._m, forget * model._n, zt, data.a)
        model._seen = forget * model._seen + data.a.shape[0]
        # The penalties of the dictionary grow with the samples seen.
        penalties = model._penalties((max(1, round(model._seen)), p), model._scale)
        d = _improve_dictionary(d, m, n, penalties, DICTIONARY_SWEEPS)
        model._m, model._n, model._d = m, n, d * root
        model.n_iter_ = (model.n_iter_ or 0) + 1
        return zt * root


def fit_batches(model: "NMF", batches: Iterable, limit: int | None) -> tuple[np.ndarray, np.ndarray]:
    """`NMF.fit` of an iterable of batches: Z (n, k) and D (k, p) as numpy arrays.

    An iterable that can be walked through again is swept once an epoch, the statistics from 0 each time: with the same
    start, the iterates are those of "hals" on the whole matrix. A one-shot iterator gives one pass of `partial_fit`.

    Raises:
        OneEpoch: (a ValueError) more than one epoch of a one-shot iterator.
        ValueError: a solver other than for the squared error; batches that do not fit together; none at all.
    """
    _check(model)
    if not arrays.can_restart(batches):
        if limit not in (None, 1):
            raise OneEpoch(
                f"max_iter = {limit} epochs of an iterator that can be walked through once; pass max_iter=1 for one "
                "pass, or a list or a loader that can be walked through again"
            )
        return _one_pass(model, batches)
    return _Epochs(model, batches).fit(FIT_LIMIT if limit is None else limit)


def _one_pass(model: "NMF", batches: Iterable) -> tuple[np.ndarray, np.ndarray]:
    fresh = type(model)(**model.arguments())
    codes = [np.asarray(partial_fit(fresh, arrays.batch_of(item))).T for item in batches]
    if not codes:
        raise ValueError("the iterable has no batches; it needs at least one")
    model.__dict__.update(fresh.__dict__)
    model._kind, model._like = "numpy", None
    model.converged_ = False
    return np.concatenate(codes), model.D


class _Epochs:
    """Full passes over batches that can be walked through again."""

    def __init__(self, model: "NMF", batches: Iterable) -> None:
        self.model, self.batches = model, batches
        self.seen: list[tuple[int, float]] = []
        first = next(iter(batches), None)
        if first is None:
            raise ValueError("the iterable has no batches; it needs at least one")
        first = arrays.batch_of(first)
        self.dtype = arrays.dtype_for(first, model.dtype)
        with arrays.with_precision(self.dtype):
            data = model._read(first, self.dtype)
            self.scale = data.scale
            self.p = data.a.shape[1]
            self.d = compiled_start(model._key(), data.a, model.nb_concepts, model.init)[1]

    def data(self) -> Iterator[Any]:
        """The checked batches of one epoch; ValueError where they are not those of the epoch before."""
        seen = []
        for item in self.batches:
            a = self.model._read(arrays.batch_of(item), self.dtype, features=self.p, scale=self.scale).a
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

    def fit(self, limit: int) -> tuple[np.ndarray, np.ndarray]:
        model = self.model
        with arrays.with_precision(self.dtype), progress.bar(model.verbose, limit, "fit", self.scale**2) as report:
            # One pass to know how many samples there are, and codes for the first dictionary.
            codes, total = [], 0.0
            for a in self.data():
                zt = compiled_codes(a, self.d, Penalties(), None, model._settings)[0]
                codes.append(np.asarray(zt))
                total += float(square_sum(a))
            n = sum(zt.shape[1] for zt in codes)
            penalties = model._penalties((n, self.p), self.scale)
            history: list[float] = []
            converged = total == 0
            epoch = 0
            while epoch < limit and not converged:
                codes, value = self.epoch(codes, penalties, total)
                epoch += 1
                history.append(value)
                if report is not None:
                    report(epoch, value)
                before = history[max(0, len(history) - 11)]
                converged = len(history) > 10 and before - value < model.tol * before
            root = math.sqrt(self.scale)
            codes = []
            model._forget()
            model._scale, model._d = self.scale, self.d * root if total else jnp.zeros_like(self.d)
            squares = 0.0
            for a in self.data():
                d = model._d / root
                zt = compiled_codes(
                    a, d, penalties, None, model._settings, model._limit(None, ENCODE_LIMIT), model.tol
                )[0]
                squares += 2 * float(_error(a, zt, d))
                codes.append(np.asarray(zt.T * root))
            unit = self.scale**2
            error = math.sqrt(max(squares, 0)) * self.scale
            model._report(epoch, converged, np.asarray(history) * unit, error, stacklevel=5)
            return np.concatenate(codes), model.D

    def epoch(self, codes: list[np.ndarray], penalties: Penalties, total: float) -> tuple[list[np.ndarray], float]:
        """One sweep over all batches: new codes, and the objective after it; the dictionary changes in place."""
        k = self.d.shape[0]
        m, n = jnp.zeros((k, self.p), self.dtype), jnp.zeros((k, k), self.dtype)
        settings = self.model._settings
        new, of_codes = [], 0.0
        for a, zt in zip(self.data(), codes, strict=True):
            zt = _improve_codes(jnp.asarray(zt), self.d, a, penalties, settings)
            m, n = _accumulate(m, n, zt, a)
            of_codes += float(penalty(zt, jnp.zeros((1, 1), self.dtype), penalties))
            new.append(np.asarray(zt))
        self.d = _improve_dictionary(self.d, m, n, penalties, settings.inner)
        error = 0.5 * (total - 2 * jnp.sum(m * self.d) + jnp.sum(n * product(self.d, self.d.T)))
        return new, float(error + penalty(jnp.zeros((1, 1), self.dtype), self.d, penalties)) + of_codes


@jax.jit
def _error(a: Any, zt: Array, d: Array) -> Array:
    return squared_error(a, zt, d)
