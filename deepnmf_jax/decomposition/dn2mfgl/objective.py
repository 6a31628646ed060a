"""Deep NMF with local and global structure in a form that has a minimum: objective and one sweep.

    J = data(X - Q V) + sum_i w_i tr(V~_i M V~_i^T) + lam sum_i ||H_i||^2,  Q = H_1 ... H_l, V~_i = H_{i+1} ... H_l V
    M = alpha L - beta (I - 11^T/n) + nu (11^T - I) + RIDGE I
    data: sum over samples ("sample") or features ("feature") of sqrt(||residual||^2 + delta^2), or ||X - Q V||_F^2

after Saberi-Movahed et al. 2023; docs/dn2mfgl.md has the derivation. X (m, n) has samples as columns, H_1 (m, r_1),
H_i (r_{i-1}, r_i), V (r_l, n). Every function can be jitted, and mapped over factors and strengths.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from deepnmf_jax.decomposition.dn2mfgl.graph import Graph, laplacian_energies, laplacian_gram, times_similarity
from deepnmf_jax.decomposition.updates.linear_algebra import product

ROBUST = ("sample", "feature", "none")
# Keeps v^T M v above 0 for v > 0, else V can run off along a flat direction while H goes to 0.
RIDGE = 1e-6
# Exponent of the multiplicative step that is proved never to raise J.
PROVED = 0.5


class Strengths(NamedTuple):
    """Numbers of the objective: alpha, beta, nu, lam, delta (), layer_weights (l,) the w_i."""

    alpha: Array | float
    beta: Array | float
    nu: Array | float
    lam: Array | float
    delta: Array | float
    layer_weights: Array


class Form(NamedTuple):
    """What the compiled program depends on: `robust`; `inner`, whether any w_i with i < l is above 0; `long_steps`,
    whether exponents above 1/2 are tried (`structure_loop`)."""

    robust: str = "sample"
    inner: bool = False
    long_steps: bool = True


def local_and_global(v: Array, graph: Graph, strengths: Strengths) -> tuple[Array, Array]:
    """V M+ and V M-, both (r, n) and non-negative, with M = M+ - M-."""
    gamma = strengths.beta / v.shape[1] + strengths.nu
    sums = jnp.sum(v, axis=1, keepdims=True)
    above = strengths.alpha * v * graph.degrees + gamma * sums + RIDGE * v
    return above, strengths.alpha * times_similarity(v, graph) + (strengths.beta + strengths.nu) * v


def global_factors(n: int, strengths: Strengths) -> tuple[Array | float, Array | float]:
    """gamma and kappa: beta and nu together, with the ridge, are gamma ||V 1||^2 - kappa ||V||^2."""
    return strengths.beta / n + strengths.nu, strengths.beta + strengths.nu - RIDGE


def structure_gram(v: Array, graph: Graph, strengths: Strengths) -> Array:
    """V M V^T (r, r)."""
    gamma, kappa = global_factors(v.shape[1], strengths)
    sums = jnp.sum(v, axis=1, keepdims=True)
    return strengths.alpha * laplacian_gram(v, graph) + gamma * sums * sums.T - kappa * product(v, v.T)


def structure_energies(v: Array, graph: Graph, strengths: Strengths) -> Array:
    """The diagonal of `structure_gram`, (r,): v_k^T M v_k of every component."""
    gamma, kappa = global_factors(v.shape[1], strengths)
    local = strengths.alpha * laplacian_energies(v, graph)
    return local + gamma * jnp.sum(v, axis=1) ** 2 - kappa * jnp.sum(v**2, axis=1)


def chain(h: tuple[Array, ...]) -> Array:
    """Q = H_1 ... H_l (m, r_l)."""
    result = h[0]
    for matrix in h[1:]:
        result = product(result, matrix)
    return result


def inner_grams(h: tuple[Array, ...], layer_weights: Array) -> list[Array]:
    """G_2 ... G_{l+1}: sum_{j<i} w_j B_j^T B_j with B_j = H_{j+1} ... H_{i-1}; G_i (r_{i-1}, r_{i-1}).

    The structure terms of all layers together are <G_{l+1}, V M V^T>.
    """
    grams: list[Array] = []
    for matrix, weight in zip(h, layer_weights, strict=True):
        grams.append(_next_gram(grams[-1] if grams else None, matrix, weight))
    return grams


def _next_gram(gram: Array | None, matrix: Array, weight: Array) -> Array:
    own = weight * jnp.eye(matrix.shape[1], dtype=matrix.dtype)
    return own if gram is None else own + product(matrix.T, product(gram, matrix))


def evaluate(
    h: tuple[Array, ...], v: Array, x: Array, graph: Graph, strengths: Strengths, form: Form
) -> tuple[Array, Array]:
    """The objective () and the weights p = 1 / (2 sqrt(||residual||^2 + delta^2)) of its majoriser."""
    residual = x - product(chain(h), v)
    if form.robust == "none":
        data, weights = jnp.sum(residual**2), jnp.ones((1, 1), x.dtype)
    else:
        axis = 0 if form.robust == "sample" else 1
        lengths = jnp.sqrt(jnp.sum(residual**2, axis=axis, keepdims=True) + strengths.delta**2)
        data, weights = jnp.sum(lengths), 1 / (2 * lengths)
    if form.inner:
        structure = jnp.sum(inner_grams(h, strengths.layer_weights)[-1] * structure_gram(v, graph, strengths))
    else:
        structure = strengths.layer_weights[-1] * jnp.sum(structure_energies(v, graph, strengths))
    return data + structure + strengths.lam * sum(jnp.sum(matrix**2) for matrix in h), weights


def powered(y: Array, above: Array, below: Array, exponent: Array | float) -> Array:
    """y (above / below)^exponent; where the denominator is 0 the entry stays."""
    ratio = above / jnp.where(below > 0, below, 1)
    return jnp.where(below > 0, y * ratio**exponent, y)


def sweep(
    h: tuple[Array, ...],
    v: Array,
    weights: Array,
    x: Array,
    graph: Graph,
    strengths: Strengths,
    form: Form,
    exponent: Array | float = PROVED,
) -> tuple[tuple[Array, ...], Array]:
    """One update of H_1, ..., H_l, V at fixed weights, then the rescaling; with exponent 1/2 never raises J.

    Args:
        h: H_1 (m, r_1), ..., H_l (r_{l-1}, r_l).
        v: V (r_l, n).
        weights: of `evaluate` at these factors, (1, n), (m, 1) or (1, 1).
        x: X (m, n).
        graph: over the n samples.
        strengths: of the terms.
        form: what is compiled.
        exponent: of the multiplicative step.
    """
    plus, minus = local_and_global(v, graph, strengths)
    h, left = _update_dictionaries(h, v, weights, x, plus, minus, strengths, form, exponent)
    over_features, over_samples = _by_axis(weights)
    q = chain(h)
    weighted = over_features * q
    above = product(weighted.T, x * over_samples) + _from_left(left, minus)
    below = product(product(weighted.T, q), v) * over_samples + _from_left(left, plus)
    return rescale(h, powered(v, above, below, exponent), graph, strengths, form)


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
    x: Array,
    plus: Array,
    minus: Array,
    strengths: Strengths,
    form: Form,
    exponent: Array | float,
) -> tuple[tuple[Array, ...], Array]:
    """New H_1, ..., H_l, and G_{l+1} of `inner_grams` at them (w_l alone without inner weights).

    V changes last in a sweep, so that X V^T and products of r x r entries are enough for all H_i.
    """
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
            gram = _next_gram(gram, matrix, strengths.layer_weights[i])
    return tuple(new), strengths.layer_weights[-1] if gram is None else gram


def rescale(
    h: tuple[Array, ...], v: Array, graph: Graph, strengths: Strengths, form: Form
) -> tuple[tuple[Array, ...], Array]:
    """The best scale of every component between a layer and the next, from the last layer to the first.

    Column k of H_i times 1/t and row k of what follows it times t change nothing but lam ||H_i||^2 and the term beside
    it; the best t is (lam ||h_k||^2 / (v_k^T M v_k))^(1/4) for the last layer. Where the quotient is not positive and
    finite (an unbounded setting, an empty component) the scale stays.
    """
    new = list(h)
    grams = inner_grams(h, strengths.layer_weights) if form.inner else None
    gram = structure_gram(v, graph, strengths) if form.inner else None
    energies = structure_energies(v, graph, strengths) if gram is None else jnp.diagonal(gram)
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
