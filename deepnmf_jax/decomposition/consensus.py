"""Consensus NMF: components on which many fits from random starts agree (Kotliar et al. 2019, cNMF).

A single fit ends in a local minimum, and which of its components are wrong depends on its start. Over many starts the
right ones come again and again, so they lie dense among all components; those that do not are dropped, the others
clustered, and the median of each cluster is a component of the consensus.
"""

import math
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from deepnmf_jax.core.checks import check_flag, check_integer, check_number
from deepnmf_jax.decomposition.estimator import ENCODE_LIMIT, FIT_LIMIT, ConvergenceWarning
from deepnmf_jax.decomposition.io import arrays
from deepnmf_jax.decomposition.io.checked import Data, with_missing_filled
from deepnmf_jax.decomposition.io.host import beside, stacked, transposed
from deepnmf_jax.decomposition.io.nonzeros import Blocks, Nonzeros
from deepnmf_jax.decomposition.io.units import reconstruction_error, unit_of_objective
from deepnmf_jax.decomposition.nmf import NMF
from deepnmf_jax.decomposition.selection import check_ks
from deepnmf_jax.decomposition.stability import agreement, cophenetic_correlation
from deepnmf_jax.decomposition.updates.objective import Target, divergence
from deepnmf_jax.decomposition.updates.starts import start_of

# Bytes that the fits made at once may take.
MEMORY = 2**30
# Arguments of NMF that a consensus has no use for: starts are random, components have no place of their own.
UNUSED = ("init", "warm_start", "shuffle", "n_components", "known_D", "alpha_graph")
# The stability that a k must have, mean and least, as SigProfilerExtractor asks for (Islam et al. 2022).
MEAN, LEAST = 0.8, 0.2


class Replicates(NamedTuple):
    """Every fit: codes (r, n, k) after its last sweep and dictionary (r, k, p), in the unit of the data; numpy."""

    codes: np.ndarray
    dictionaries: np.ndarray


class Consensus(NamedTuple):
    """What many fits agree on, the most used component first; numpy but for codes, dictionary and model.

    Attributes:
        codes: Z (n, k), of the kind of A.
        dictionary: D (k, p), rows of length 1, of the kind of A.
        model: an `NMF` with this dictionary, for codes of other data.
        error: reconstruction error, as `NMF.reconstruction_err_`.
        silhouettes: how well each cluster stands apart (k,), its mean silhouette by 1 - cosine; all components count,
            those dropped in the nearest cluster. NaN for k = 1.
        stability: mean silhouette of all components.
        cophenetic: cophenetic correlation of the samples' strongest components.
        labels: cluster of each component of each fit (r, k), of those dropped the nearest, of dead ones -1.
        kept: which components were clustered (r, k), the others having been dropped.
        density: mean distance of each component to its nearest ones (r, k), of length 1 all; infinite for those of 0.
        restart_errors: reconstruction error of each fit (r,).
        converged: whether the tolerance ended each fit (r,).
        replicates: every fit, if asked for, else None.
    """

    codes: Any
    dictionary: Any
    model: NMF
    error: float
    silhouettes: np.ndarray
    stability: float
    cophenetic: float
    labels: np.ndarray
    kept: np.ndarray
    density: np.ndarray
    restart_errors: np.ndarray
    converged: np.ndarray
    replicates: Replicates | None


class Stability(NamedTuple):
    """Consensus for several k: `best` is the chosen one, `ks` (m,) those tried, `results` what was found for each."""

    best: int
    ks: np.ndarray
    results: tuple[Consensus, ...]

    def table(self) -> str:
        """One line a number of components: stability, cophenetic correlation, error, share of components kept."""
        lines = [
            "| k | stability | least stable | cophenetic | error | kept |",
            "| --: | --: | --: | --: | --: | --: |",
        ]
        for k, found in zip(self.ks, self.results, strict=True):
            chosen = f"**{k}**" if k == self.best else str(k)
            numbers = found.stability, found.silhouettes.min(), found.cophenetic
            shown = " | ".join(f"{number:.3f}" for number in numbers)
            lines.append(f"| {chosen} | {shown} | {found.error:.4g} | {100 * found.kept.mean():.0f} % |")
        return "\n".join(lines)


class _Found(NamedTuple):
    """The fits: Z^T (r, k, n) and D (r, k, p) of scaled data, errors (r,), whether converged (r,)."""

    zts: np.ndarray
    ds: np.ndarray
    errors: np.ndarray
    converged: np.ndarray


class _Restarts(NMF):
    """`NMF` whose fits from random starts are all kept."""

    def read(self, A: Any, weights: Any, mask: Any) -> tuple[Data, np.dtype]:
        """A as data, of which the unit is taken. ValueError for batches, and where A is 0."""
        if arrays.is_batches(A):
            raise ValueError("consensus fits one matrix many times; put the batches together, as in np.concatenate")
        dtype = arrays.dtype_for(A, self.dtype)
        with arrays.with_precision(dtype):
            data = self._read(A, dtype, weights=weights, mask=mask)
            if data.zero:
                raise ValueError("A is 0 everywhere; it has no components")
            unit_of_objective(data.scale, self._settings.beta)
            self._begin(A, data)
        return data, dtype

    def fit_all(self, data: Data, dtype: np.dtype, count: int, memory: int) -> _Found:
        """Fits from `count` random starts, as many at once as `memory` bytes hold."""
        k, keys, parts = self.nb_concepts, jax.random.split(self._key(), count), []
        with arrays.with_precision(dtype):
            target = self._target(data)
            filled = target.a if data.weights is None else with_missing_filled(data)
            one = bytes_of_one(target, k, self._settings.beta)
            # Blocks of one size, the last one filled up: another size would be another program.
            size = math.ceil(count / math.ceil(count / max(1, memory // one)))
            for first in range(0, count, size):
                chosen = [min(i, count - 1) for i in range(first, first + size)]
                starts = [start_of(partial(keys.__getitem__, i), filled, k, "random") for i in chosen]
                name = f"k = {k}, fits {first + 1} to {min(first + size, count)} of {count}"
                part = self._fit_block(target, data.scale, starts, name)
                parts.append(_Found(*(x[: count - first] for x in part)))
        return _Found(*(np.concatenate(x) for x in zip(*parts, strict=True)))

    def _fit_block(self, target: Target, scale: float, starts: list, name: str) -> _Found:
        beta, limit = self._settings.beta, self._limit(None, FIT_LIMIT)
        zts, ds = (stacked(x) for x in zip(*starts, strict=True))
        unit = unit_of_objective(scale, beta)
        done = self._sweeps(target, (zts, ds), limit, unit, name)
        zts, ds = done.state.zt, done.state.d
        divergences = _divergences(zts, ds, target, beta)
        errors = reconstruction_error(divergences, unit)
        return _Found(np.asarray(zts), np.asarray(ds), errors, np.asarray(done.converged))

    def finish(self, rows: np.ndarray, A: Any, data: Data, dtype: np.dtype) -> tuple[Any, NMF]:
        """Codes (n, k), of the kind of A, for components (k, p) of length 1; the NMF that has these components."""
        model = NMF(**self.arguments())
        with arrays.with_precision(dtype):
            model._begin(A, data)
            target, root, beta = self._target(data), math.sqrt(data.scale), self._settings.beta
            # As long as the factors of a fit are, so that neither they nor their squares overflow.
            model._d = beside(np.asarray(rows * root, dtype), data.a)
            zt = model._solve_codes(target, self._limit(None, ENCODE_LIMIT), self.tol)
            left = divergence(zt, jnp.asarray(rows, dtype), target, beta)
            model.reconstruction_err_ = float(reconstruction_error(left, unit_of_objective(data.scale, beta)))
            return model._restore(beside(transposed(zt, model._codes_unit(data)), data.a)), model


@partial(jax.jit, static_argnames=("beta",))
def _divergences(zts: Array, ds: Array, target: Target, beta: float) -> Array:
    # One after the other: of other divergences than the squared error each makes a matrix of the size of A.
    return jax.lax.map(lambda pair: divergence(pair[0], pair[1], target, beta), (zts, ds))


def bytes_of_one(target: Target, k: int, beta: float) -> int:
    """Memory that one fit of k components takes among those made at once: its factors, their Gram matrices and copies
    of both, and matrices of the size of A, one for the objective, four where sweeps make them too; for sparse A what
    one block needs."""
    a, (n, p) = target.a, target.a.shape
    factors = 6 * k * (n + p + k)
    if isinstance(a, Nonzeros):
        return a.dtype.itemsize * (factors + max(of_one_block(a, k, beta), of_one_block(a.T, k, beta)))
    whole = not target.for_codes(jnp.zeros((k, p))).has_gram(beta)
    return a.dtype.itemsize * (factors + (4 if whole else 1) * n * p)


def of_one_block(a: Nonzeros, k: int, beta: float) -> int:
    """Numbers that a fit has of one block of rows at a time: what its entries gather, and its rows written out."""
    blocks = cast(Blocks, a.by_rows)
    rows, entries = blocks.rows.shape[1], math.prod(blocks.values.shape[1:])
    if a.dense:
        return rows * (2 * k + 4 * a.shape[1])
    # Other divergences than the squared error multiply what was gathered, and gather again.
    return 2 * k * rows + (1 if beta == 2 else 4) * k * entries


def consensus(
    A: Any,
    nb_concepts: int,
    n_restarts: int = 100,
    *,
    density_threshold: float = 0.2,
    neighbours: float = 0.3,
    random_state: int = 0,
    keep: bool = False,
    memory: int = MEMORY,
    verbose: bool = False,
    weights: Any = None,
    mask: Any = None,
    **arguments: Any,
) -> Consensus:
    """Components on which many fits from random starts agree, and codes for them.

    All components of all fits, at length 1, are compared by Euclidean distance. Those far from their nearest ones are
    dropped, and the others clustered by k-means, from where the most fits agree; the medians of the clusters are the
    dictionary, for which codes are solved last. Its rows have one length, a power of 2 near the root of the mean of A.

    Args:
        A: matrix (n, p), dense or sparse, as for `NMF.fit`; no batches.
        nb_concepts: k.
        n_restarts: r, how many fits, at least 2.
        density_threshold: components whose mean distance to the nearest ones is larger are dropped; none is where too
            few would be left, and with 2. cNMF has 0.5; 0.2 (a cosine of 0.98) found more of planted components.
        neighbours: how many are the nearest ones, as a share of the fits, in (0, 1).
        random_state: seed of the starts, the clustering and the samples that the cophenetic correlation compares.
        keep: whether to return every fit (`Consensus.replicates`).
        memory: bytes that the fits made at once may take, 1 GiB; more fits go in blocks.
        verbose: a progress bar for each block of fits.
        weights: as in `NMF.fit`.
        mask: as in `NMF.fit`.
        **arguments: of `NMF`, such as solver, beta_loss, tol or max_iter; not those of its starts.

    Raises:
        ValueError: an argument outside what it allows; data that `NMF.fit` would not take, or that is 0; fewer than k
            components without a dead one in all fits, or fewer than k distinct ones.

    Source: Kotliar et al. 2019, eLife 8:e43803.
    """
    count = check_integer("n_restarts", n_restarts, 2)
    threshold = check_number("density_threshold", density_threshold, 0, 2, above=True)
    share = check_number("neighbours", neighbours, 0, 1, above=True, below=True)
    keep, memory = check_flag("keep", keep), check_integer("memory", memory, 1)
    if unused := sorted(set(arguments) & set(UNUSED)):
        raise ValueError(
            f"consensus takes no {', '.join(unused)}: all its fits are from random starts, and "
            "components of which none is known are clustered"
        )
    model = _Restarts(nb_concepts, random_state=random_state, verbose=verbose, **arguments)
    data, dtype = model.read(A, weights, mask)
    found = model.fit_all(data, dtype, count, memory)
    if 2 * found.converged.sum() < count and model.tol > 0:
        warnings.warn(
            f"{count - found.converged.sum()} of {count} fits stopped at max_iter before they reached tol = "
            f"{model.tol:g}; raise max_iter, or tol if the results hardly change",
            ConvergenceWarning,
            stacklevel=2,
        )
    rng = np.random.default_rng(model.random_state)
    agreed = agreement(found.zts, found.ds, threshold, share)
    codes, fitted = model.finish(agreed.medians, A, data, dtype)
    strongest = np.argmax(found.zts * np.linalg.norm(found.ds, axis=2, keepdims=True), axis=1)
    root = math.sqrt(data.scale)
    return Consensus(
        codes=codes,
        dictionary=fitted.D,
        model=fitted,
        error=fitted.reconstruction_err_ or 0.0,
        cophenetic=cophenetic_correlation(strongest, rng),
        restart_errors=found.errors,
        converged=found.converged,
        replicates=Replicates(found.zts.transpose(0, 2, 1) * root, found.ds * root) if keep else None,
        **{name: value for name, value in agreed._asdict().items() if name != "medians"},
    )


def consensus_of_each(A: Any, ks: Sequence[int], n_restarts: int = 100, **arguments: Any) -> Stability:
    """`consensus` for several numbers of components, and the largest of them that is stable.

    Stable is a k with a mean silhouette of at least 0.8 and of no cluster below 0.2, the rule of SigProfilerExtractor
    (Islam et al. 2022); where none is, the k with the largest mean is taken. `choose_k` asks another question, which k
    foretells entries it has not seen.

    Args:
        A: as for `consensus`.
        ks: numbers to try, at least 2, ascending.
        n_restarts: how many fits for each.
        **arguments: of `consensus`.

    Raises:
        ValueError: no or unordered ks; otherwise as `consensus`.
    """
    ks = check_ks(ks, 2)
    results = tuple(consensus(A, k, n_restarts, **arguments) for k in ks)
    means = np.array([found.stability for found in results])
    stable = [i for i, found in enumerate(results) if found.stability >= MEAN and found.silhouettes.min() >= LEAST]
    return Stability(ks[stable[-1] if stable else int(np.argmax(means))], np.array(ks), results)
