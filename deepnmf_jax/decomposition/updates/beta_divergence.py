"""Beta divergences: Frobenius (2), Kullback-Leibler (1), Itakura-Saito (0) and those between.

Fevotte and Idier, Algorithms for nonnegative matrix factorization with the beta-divergence, 2011. a (m, q) is the
data, x (m, k) the factor sought, f (k, q) the other one, w = x f the reconstruction.

Where a is 0 the terms of beta = 1 are linear in w, so that of sparse data its entries and sums of the factors are all
that is needed. Other betas need the whole reconstruction, which is made of a block of rows at a time.
"""

from typing import cast

import jax
import jax.numpy as jnp
from jax import Array

from deepnmf_jax.core.checks import check_choice, check_number
from deepnmf_jax.core.updates import em_factor, ratio
from deepnmf_jax.decomposition.io.nonzeros import Blocks, Nonzeros
from deepnmf_jax.decomposition.updates.linear_algebra import product

BETA_LOSSES = {"frobenius": 2.0, "kullback-leibler": 1.0, "itakura-saito": 0.0}


def beta_of(beta_loss: float | str) -> float:
    """The number beta of a beta_loss given by name or number. ValueError for another name."""
    if isinstance(beta_loss, str):
        check_choice("beta_loss", beta_loss, tuple(BETA_LOSSES))
        return BETA_LOSSES[beta_loss]
    check_number("beta_loss", beta_loss)
    return float(beta_loss)


def floor_of(dtype: jnp.dtype, beta: float) -> Array:
    """Smallest reconstruction that the powers of `beta` are taken of, so that none of them overflows."""
    return jnp.asarray(float(jnp.finfo(dtype).max) ** (-0.25 / max(2 - beta, 1)), dtype)


def beta_divergence(a: Array, w: Array, beta: float, weights: Array | None = None) -> Array:
    """Sum of the beta divergences of a (m, q) from w (m, q), times `weights` if given: a scalar.

    beta = 2 is half the squared error, 1 the generalised Kullback-Leibler divergence, 0 that of Itakura and Saito.
    """
    if beta == 2:
        each = 0.5 * (a - w) ** 2
    else:
        w = jnp.maximum(w, floor_of(w.dtype, beta))
        positive = a > 0
        some = jnp.where(positive, a, 1)
        if beta == 1:
            each = jnp.where(positive, a * jnp.log(some / w), 0) - a + w
        elif beta == 0:
            each = jnp.where(positive, a / w - jnp.log(some / w) - 1, 0)
        else:
            power = jnp.where(positive, some**beta, 0)
            each = (power + (beta - 1) * w**beta - beta * a * w ** (beta - 1)) / (beta * (beta - 1))
    return jnp.sum(each if weights is None else weights * each)


def beta_divergence_of(a: Array | Nonzeros, x: Array, f: Array, beta: float, weights: Array | None = None) -> Array:
    """`beta_divergence` of a (m, q), dense or sparse, from x f: a scalar. Weights are for a dense one."""
    if not isinstance(a, Nonzeros):
        return beta_divergence(a, product(x, f), beta, weights)

    def of_dense(block: Blocks, x: Array) -> Array:
        w = product(x, f)
        return jax.vmap(lambda a, w: beta_divergence(a, w, beta))(block.written_out(f.shape[1]), w)

    if a.dense:
        return jnp.sum(a.over_rows(of_dense, x))
    columns, total = f.T, jnp.sum(f, axis=1)

    def of_entries(block: Blocks, x: Array) -> Array:
        a, w = block.values, entries_of_product(block, x, columns)[1]
        w = jnp.where(a > 0, jnp.maximum(w, floor_of(w.dtype, beta)), 0)
        each = jnp.where(a > 0, a * jnp.log(jnp.where(a > 0, a, 1) / jnp.where(a > 0, w, 1)) - a + w, 0)
        # What the reconstruction has beside the entries.
        rest = product(x, total[:, None])[:, 0] - block.sums(jnp.sum(w, axis=1))
        return block.sums(jnp.sum(each, axis=1)) + jnp.maximum(rest, 0)

    return jnp.sum(a.over_rows(of_entries, x))


def entries_of_product(block: Blocks, x: Array, columns: Array) -> tuple[Array, Array]:
    """For the entries of a block, the columns of F (s, l, k), and those times the rows x (r, k): w (s, l)."""
    at = block.gathered(columns)
    return at, jnp.einsum("sk,slk->sl", block.spread(x), at, precision="highest")


def beta_terms(
    a: Array | Nonzeros, x: Array, f: Array, beta: float, weights: Array | None = None
) -> tuple[Array, Array]:
    """Negative and positive part of the gradient with respect to x: ((A W^(beta-2)) F^T, W^(beta-1) F^T), each (m, k).

    For beta = 1 the first is the step of the network's inference (paper, eq. 3), with A for x and F for w.
    """
    if isinstance(a, Nonzeros):
        return _sparse_terms(a, x, f, beta)
    if beta == 1:
        weighted = a if weights is None else weights * a
        every = jnp.ones_like(a) if weights is None else weights
        return em_factor(weighted, f, x), product(every, f.T)
    w = product(x, f)
    if beta == 2:
        above, below = a, w
    else:
        w = jnp.maximum(w, floor_of(w.dtype, beta))
        above, below = a * w ** (beta - 2), w ** (beta - 1)
    if weights is not None:
        above, below = weights * above, weights * below
    return product(above, f.T), product(below, f.T)


def _sparse_terms(a: Nonzeros, x: Array, f: Array, beta: float) -> tuple[Array, Array]:
    if a.dense:
        return cast(
            tuple[Array, Array],
            a.over_rows(lambda block, x: beta_terms(block.written_out(f.shape[1]), x, f, beta), x),
        )
    columns = f.T

    def above(block: Blocks, x: Array) -> Array:
        at, w = entries_of_product(block, x, columns)
        return block.sums(jnp.einsum("sl,slk->sk", ratio(block.values, w), at, precision="highest"))

    return a.sums_over_rows(above, x), jnp.broadcast_to(jnp.sum(f, axis=1), x.shape)


def beta_curvature(a: Array, w: Array, beta: float, weights: Array | None = None) -> Array:
    """Second derivative of the beta divergence with respect to the reconstruction w, times the weights. (m, q)."""
    if beta == 2:
        second = jnp.ones_like(w)
    else:
        w = jnp.maximum(w, floor_of(w.dtype, beta))
        second = (beta - 1) * w ** (beta - 2) - (beta - 2) * a * w ** (beta - 3)
    return second if weights is None else weights * second


def divergence_change(a: Array, w: Array, step: Array, beta: float, weights: Array | None = None) -> Array:
    """Sum of what the divergences of a from w grow by when w becomes w + step, exact for small steps: a scalar."""
    each = divergence_changes(a, w, step, beta)
    return jnp.sum(each if weights is None else weights * each)


def log_change(w: Array, step: Array, beta: float) -> Array:
    """log((w + step) / w), of the shape of step, for reconstructions no smaller than `floor_of`."""
    floor = floor_of(w.dtype, beta)
    w = jnp.maximum(w, floor)
    return jnp.maximum(jnp.log1p(jnp.maximum(step / w, -1)), jnp.log(floor / w))


def divergence_changes(a: Array, w: Array, step: Array, beta: float) -> Array:
    """What `divergence_change` sums up, of the shape of a."""
    if beta == 2:
        return step * (w - a + 0.5 * step)
    log, w = log_change(w, step, beta), jnp.maximum(w, floor_of(w.dtype, beta))
    # d(a | w) = (w^beta - 1) / beta - a (w^(beta - 1) - 1) / (beta - 1) + a constant; the logarithm for exponent 0.
    of_w = log if beta == 0 else w**beta * jnp.expm1(beta * log) / beta
    of_a = log if beta == 1 else w ** (beta - 1) * jnp.expm1((beta - 1) * log) / (beta - 1)
    return of_w - jnp.where(a > 0, a * of_a, 0)
