"""Mini-batches for every beta divergence: multiplicative steps whose sums over the batches are kept.

Lefevre, Bach and Fevotte, Online algorithms for nonnegative matrix factorization with the Itakura-Saito divergence,
2011; scikit-learn's `MiniBatchNMF` has the same rule. X (b, p) a batch, dense or `Nonzeros`, W (b, k), H (k, p).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from deepnmf_jax.decomposition.io.nonzeros import Nonzeros
from deepnmf_jax.decomposition.updates.beta_divergence import beta_divergence_of, beta_terms
from deepnmf_jax.decomposition.updates.multiplicative import beta_step, exponent_of
from deepnmf_jax.decomposition.updates.objective import Half, Penalties, penalty
from deepnmf_jax.decomposition.updates.starts import mean_of

Matrix = Array | Nonzeros


class Memory(NamedTuple):
    """What is kept of the batches: H (k, p), and numerator and denominator of its rule (k, p), summed."""

    h: Array
    above: Array
    below: Array


def remembered(h: Array) -> Memory:
    """Of no batches, for the start H."""
    return Memory(h, h, jnp.ones_like(h))


@partial(jax.jit, static_argnames=("beta",))
def solve_codes(
    x: Matrix, h: Array, penalties: Penalties, beta: float, max_iter: Array | int, tol: Array | float
) -> Array:
    """W (b, k) for H by multiplicative steps from a constant, until they change it by less than `tol`, relatively."""
    half = Half(h, x, penalties.l1_z, penalties.l2_z)
    first = jnp.full((len(h), x.shape[0]), jnp.sqrt(mean_of(x) / len(h)), h.dtype)

    def running(carry: tuple[Array, Array, Array]) -> Array:
        return (carry[1] < max_iter) & ~((carry[2] <= tol) & (jnp.asarray(tol) > 0))

    def step(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        new = beta_step(carry[0], half, beta)
        size = jnp.linalg.norm(new)
        change = jnp.linalg.norm(new - carry[0]) / jnp.where(size > 0, size, 1)
        return new, carry[1] + 1, change

    start = first, jnp.zeros((), jnp.int32), jnp.full((), jnp.inf, h.dtype)
    return lax.while_loop(running, step, start)[0].T


@partial(jax.jit, static_argnames=("beta",))
def step(
    x: Matrix, w: Array, memory: Memory, penalties: Penalties, beta: float, forget: Array | float
) -> tuple[Memory, Array, Array]:
    """One step of H for a batch and its codes: the memory, the objective a sample before it, and the relative change.

    `forget` in [0, 1]: what the sums so far are multiplied with; 0 is the plain multiplicative step.
    """
    h = memory.h
    cost = (beta_divergence_of(x, w, h, beta) + penalty(w, h, penalties)) / x.shape[0]
    above, below = beta_terms(x.T, h.T, w.T, beta)
    below = below.T + penalties.l1_d + penalties.l2_d * h
    exponent = exponent_of(beta)
    # The sums are of what the rule multiplies with, at the power that makes it exact.
    root = h if exponent == 1 else h ** (1 / exponent)
    above = forget * memory.above + root * above.T
    below = forget * memory.below + below
    new = above / jnp.where(below > 0, below, jnp.finfo(h.dtype).eps)
    new = new if exponent == 1 else new**exponent
    if beta <= 1:
        new = jnp.where(new < jnp.finfo(jnp.float64).eps, 0, new)
    size = jnp.linalg.norm(new)
    return Memory(new, above, below), cost, jnp.linalg.norm(new - h) / jnp.where(size > 0, size, 1)


@partial(jax.jit, static_argnames=("beta",))
def divergence_of(x: Matrix, w: Array, h: Array, beta: float) -> Array:
    """Beta divergence of W H from X, a scalar."""
    return beta_divergence_of(x, w, h, beta)


@partial(jax.jit, static_argnames=("beta",))
def improved_codes(x: Matrix, w: Array, h: Array, penalties: Penalties, beta: float) -> Array:
    """W (b, k) after one multiplicative step."""
    return beta_step(w.T, Half(h, x, penalties.l1_z, penalties.l2_z), beta).T
