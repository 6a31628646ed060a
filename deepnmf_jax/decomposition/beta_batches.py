"""Batches for other divergences than the squared error: steps of the dictionary from sums over the batches.

With V_t = Z_t D_t the multiplicative step of D needs the sums of Z_t^T (A_t V_t^(beta-2)) and of Z_t^T V_t^(beta-1).
Each term, times D_t, belongs to a majoriser of the divergence of its batch, so that batches of earlier dictionaries can
be kept in the sums: for Kullback-Leibler D is the exact minimum of all majorisers together (Lefevre, Bach and Fevotte,
2011). Batches A (b, p) are checked and scaled already, dense or `Nonzeros`; D is (k, p).
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from deepnmf_jax.decomposition.io.nonzeros import Matrix, Nonzeros
from deepnmf_jax.decomposition.statistics import codes_of_batch
from deepnmf_jax.decomposition.updates.beta_divergence import beta_terms
from deepnmf_jax.decomposition.updates.multiplicative import exponent_of, rescaled_by
from deepnmf_jax.decomposition.updates.objective import Half, Penalties, Target, objective, penalty
from deepnmf_jax.decomposition.updates.solvers import SolverSettings, step_of

# Steps of the dictionary for each batch of `partial_fit`.
DICTIONARY_STEPS = 3


class Sums(NamedTuple):
    """All that is kept of the batches: numerators times D to a power and denominators (k, p), seen () samples."""

    above: Array
    below: Array
    seen: Array


def no_sums(d: Array) -> Sums:
    """Of no batches, for a dictionary of the shape of D."""
    return Sums(jnp.zeros_like(d), jnp.zeros_like(d), jnp.zeros((), d.dtype))


@partial(jax.jit, static_argnames=("beta",))
def gather(sums: Sums, d: Array, zt: Array, a: Array | Nonzeros, beta: float) -> Sums:
    """The sums with one more batch A (b, p), of codes Z^T (k, b) for the dictionary D."""
    above, below = beta_terms(a.T, d.T, zt, beta)
    return Sums(sums.above + _root(d, beta) * above.T, sums.below + below.T, sums.seen + a.shape[0])


def _root(d: Array, beta: float) -> Array:
    exponent = exponent_of(beta)
    return d if exponent == 1 else d ** (1 / exponent)


@partial(jax.jit, static_argnames=("beta",))
def improved(d: Array, sums: Sums, penalties: Penalties, beta: float, free: Array | None = None) -> Array:
    """D after one step from the sums; `penalties` are those of all samples in them. Entries not `free` (k, p) stay."""
    root = _root(d, beta)
    above = jnp.where(root > 0, sums.above / jnp.where(root > 0, root, 1), 0)
    half = Half(d, d, penalties.l1_d, penalties.l2_d, ortho=penalties.ortho_d, free=free)
    return half.moved(d, rescaled_by(d, above, sums.below, half, beta))


def step(
    d: Array,
    sums: Sums,
    a: Matrix,
    penalties_for: Callable[[int], Penalties],
    settings: SolverSettings,
    free: Array | None = None,
) -> tuple[Array, Array, Sums]:
    """What one batch does: its codes Z^T (k, b), then the dictionary, and the sums with the batch.

    `penalties_for` gives those of a number of samples: those of the dictionary grow with the samples seen.
    """
    zt = codes_of_batch(a, d, penalties_for(a.shape[0]), settings)
    for _ in range(DICTIONARY_STEPS):
        with_batch = gather(sums, d, zt, a, settings.beta)
        d = improved(d, with_batch, penalties_for(max(1, round(float(with_batch.seen)))), settings.beta, free)
    return zt, d, with_batch


@partial(jax.jit, static_argnames=("settings",))
def _in_epoch(zt: Array, d: Array, sums: Sums, target: Target, settings: SolverSettings) -> tuple[Array, Sums, Array]:
    """New codes of a batch, the sums with it, and its part of the objective."""
    zt = step_of(target.for_codes(d), settings)(zt)
    penalties = target.penalties._replace(l1_d=0.0, l2_d=0.0, ortho_d=None)
    value = objective(zt, d, target._replace(penalties=penalties), settings.beta)
    return zt, gather(sums, d, zt, target.a, settings.beta), value  # type: ignore[arg-type]


def epoch(
    batches: Iterable[Matrix],
    codes: list[np.ndarray],
    d: Array,
    penalties: Penalties,
    settings: SolverSettings,
    free: Array | None = None,
) -> tuple[list[np.ndarray], Array, float]:
    """One sweep over all batches, from codes Z^T of each: new codes, new D, and the objective before that last step.

    From the same start the iterates are those of a sweep of "mu" on the whole matrix, with one step of D.
    """
    sums, new, value = no_sums(d), [], 0.0
    for a, old in zip(batches, codes, strict=True):
        zt, sums, part = _in_epoch(jnp.asarray(old), d, sums, Target(a, penalties), settings)
        value += float(part)
        new.append(np.asarray(zt))
    value += float(penalty(jnp.zeros((1, 1), d.dtype), d, penalties))
    return new, improved(d, sums, penalties, settings.beta, free), value
