"""Dn2MFGL's update rule: one sweep over H_1, ..., H_l and V, which with exponent 1/2 never raises the objective.

Every factor is multiplied by a power of (what pulls up / what pulls down), the negative and the positive part of the
gradient of a majoriser; then every component gets its best scale. docs/dn2mfgl.md has the formulas and the proof;
longer steps and stopping are in fit.py. Shapes as in objective.py; every function can be jitted and mapped.
"""

import jax.numpy as jnp
from jax import Array

from deepnmf_jax.decomposition.dn2mfgl.objective import (
    RIDGE,
    Form,
    Problem,
    chain,
    global_factors,
    inner_grams,
    next_gram,
    structure_energies,
    structure_gram,
)
from deepnmf_jax.decomposition.updates.graph import times_similarity
from deepnmf_jax.decomposition.updates.linear_algebra import product

# Exponent of the multiplicative step that is proved never to raise J.
PROVED = 0.5


def local_and_global(v: Array, problem: Problem) -> tuple[Array, Array]:
    """V M+ and V M-, both (r, n) and non-negative, with M = M+ - M-."""
    _, graph, strengths = problem
    gamma, kappa = global_factors(v.shape[1], strengths.beta, strengths.nu)
    sums = jnp.sum(v, axis=1, keepdims=True)
    plus = strengths.alpha * v * graph.degrees + gamma * sums + RIDGE * v
    return plus, strengths.alpha * times_similarity(v, graph) + kappa * v


def powered(y: Array, above: Array, below: Array, exponent: Array | float) -> Array:
    """y (above / below)^exponent; where the denominator is 0 the entry stays."""
    ratio = above / jnp.where(below > 0, below, 1)
    return jnp.where(below > 0, y * ratio**exponent, y)


def sweep(
    h: tuple[Array, ...], v: Array, weights: Array, problem: Problem, form: Form, exponent: Array | float = PROVED
) -> tuple[tuple[Array, ...], Array]:
    """One update of H_1, ..., H_l, V at fixed weights, then the rescaling; with exponent 1/2 never raises J.

    Args:
        h: H_1 (m, r_1), ..., H_l (r_{l-1}, r_l).
        v: V (r_l, n).
        weights: of `evaluate` at these factors, (1, n), (m, 1) or (1, 1).
        problem: data, graph and strengths.
        form: what is compiled.
        exponent: of the multiplicative step.
    """
    plus, minus = local_and_global(v, problem)
    h, left = _update_dictionaries(h, v, weights, plus, minus, problem, form, exponent)
    over_features, over_samples = _by_axis(weights)
    q = chain(h)
    weighted = over_features * q
    above = product(weighted.T, problem.x * over_samples) + _from_left(left, minus)
    below = product(product(weighted.T, q), v) * over_samples + _from_left(left, plus)
    return rescale(h, powered(v, above, below, exponent), problem, form)


def _by_axis(weights: Array) -> tuple[Array | float, Array | float]:
    """Weights of the features (m, 1) and of the samples (1, n); 1.0 for the ones that are not weighed."""
    return (weights, 1.0) if weights.shape[1] == 1 else (1.0, weights)


def _from_left(gram: Array, y: Array) -> Array:
    """G Y, or a number times Y."""
    return gram * y if gram.ndim == 0 else product(gram, y)


def _update_dictionaries(
    h: tuple[Array, ...],
    v: Array,
    weights: Array,
    plus: Array,
    minus: Array,
    problem: Problem,
    form: Form,
    exponent: Array | float,
) -> tuple[tuple[Array, ...], Array]:
    """New H_1, ..., H_l, and G_{l+1} of `inner_grams` at them (w_l alone without inner weights).

    V changes last in a sweep, so that X V^T and products of r x r entries are enough for all H_i.
    """
    x, _, strengths = problem
    over_features, over_samples = _by_axis(weights)
    x_v = product(over_features * x, (over_samples * v).T)
    v_v = product(v * over_samples, v.T)
    above_gram, below_gram = (product(v, m.T) for m in (plus, minus)) if form.inner else (v_v, v_v)
    right = [jnp.eye(v.shape[0], dtype=v.dtype)]
    for matrix in reversed(h[1:]):
        right.insert(0, product(matrix, right[0]))
    new: list[Array] = []
    q: Array | None = None
    gram: Array | None = None
    for i, (matrix, k) in enumerate(zip(h, right, strict=True)):
        a_a = product(product(k, v_v), k.T)
        if q is None:
            numerator, denominator = product(x_v, k.T), over_features * product(matrix, a_a)
        else:
            numerator = product(q.T, product(x_v, k.T))
            denominator = product(product(product(q.T, over_features * q), matrix), a_a)
        if gram is not None:
            left = product(gram, matrix)
            numerator = numerator + product(left, product(product(k, below_gram), k.T))
            denominator = denominator + product(left, product(product(k, above_gram), k.T))
        matrix = powered(matrix, numerator, denominator + strengths.lam * matrix, exponent)
        new.append(matrix)
        q = matrix if q is None else product(q, matrix)
        if form.inner:
            gram = next_gram(gram, matrix, strengths.layer_weights[i])
    return tuple(new), strengths.layer_weights[-1] if gram is None else gram


def rescale(h: tuple[Array, ...], v: Array, problem: Problem, form: Form) -> tuple[tuple[Array, ...], Array]:
    """The best scale of every component between a layer and the next, from the last layer to the first.

    Column k of H_i times 1/t and row k of what follows it times t change nothing but lam ||H_i||^2 and the term beside
    it; the best t is (lam ||h_k||^2 / (v_k^T M v_k))^(1/4) for the last layer. Where the quotient is not positive and
    finite (an unbounded setting, an empty component) the scale stays.
    """
    new, strengths = list(h), problem.strengths
    grams = inner_grams(h, strengths.layer_weights) if form.inner else None
    gram = structure_gram(v, problem) if form.inner else None
    energies = structure_energies(v, problem) if gram is None else jnp.diagonal(gram)
    for i in reversed(range(len(h))):
        if i == len(h) - 1:
            after = strengths.layer_weights[-1] * energies
        else:
            after = strengths.lam * jnp.sum(new[i + 1] ** 2, axis=1)
            if grams is not None and gram is not None:
                right = chain(tuple(new[i + 1 :]))
                after = after + strengths.layer_weights[i] * jnp.sum(product(right, gram) * right, axis=1)
        before = strengths.lam * jnp.sum(new[i] ** 2, axis=0)
        usable = (before > 0) & (after > 0)
        t = (jnp.where(usable, before, 1) / jnp.where(usable, after, 1)) ** 0.25
        t = jnp.where(usable & jnp.isfinite(t), t, 1)
        new[i] = new[i] / t
        if i == len(h) - 1:
            v = v * t[:, None]
            gram = None if gram is None else gram * t * t[:, None]
        else:
            new[i + 1] = new[i + 1] * t[:, None]
    return tuple(new), v
