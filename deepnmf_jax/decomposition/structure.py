"""Deep NMF with local and global structure in a form that has a minimum: objective, one sweep, the loop.

    J = data(X - Q V) + sum_i w_i tr(V~_i M V~_i^T) + lam sum_i ||H_i||^2,  Q = H_1 ... H_l, V~_i = H_{i+1} ... H_l V
    M = alpha L - beta (I - 11^T/n) + nu (11^T - I) + RIDGE I
    data: sum over samples ("sample") or features ("feature") of sqrt(||residual||^2 + delta^2), or ||X - Q V||_F^2

after Saberi-Movahed et al. 2023; docs/dn2mfgl.md has the derivation. X (m, n) has samples as columns, H_1 (m, r_1),
H_i (r_{i-1}, r_i), V (r_l, n). Every function can be jitted, and mapped over factors and strengths.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from deepnmf_jax.core.quadratic import product
from deepnmf_jax.decomposition.graphs import Graph, times_similarity

ROBUST = ("sample", "feature", "none")
# Keeps v^T M v above 0 for v > 0, else V can run off along a flat direction while H goes to 0.
RIDGE = 1e-6
# Exponents of the multiplicative step: 1/2 is proved never to raise J; longer ones are tried and taken back.
PROVED, LONGEST, GROWTH = 0.5, 2.0, 1.1
CHECK_EVERY = 10


class Strengths(NamedTuple):
    """Numbers of the objective: alpha, beta, nu, lam, delta (), layer_weights (l,) the w_i."""

    alpha: Array | float
    beta: Array | float
    nu: Array | float
    lam: Array | float
    delta: Array | float
    layer_weights: Array


class Form(NamedTuple):
    """What the compiled program depends on: `robust`; `inner`, whether any w_i with i < l is above 0; `long_steps`."""

    robust: str = "sample"
    inner: bool = False
    long_steps: bool = True


class State(NamedTuple):
    """Where a factorization stands.

    h: H_1 ... H_l, v (r_l, n), weights (m or 1, n or 1) of the residual at these factors, value () the objective,
    exponent () of the next step, sweeps () made, rejected () of them, history (t,) objective at the start and after
    every tenth sweep (NaN where not reached), converged ().
    """

    h: tuple[Array, ...]
    v: Array
    weights: Array
    value: Array
    exponent: Array
    sweeps: Array
    rejected: Array
    history: Array
    converged: Array


def local_and_global(v: Array, graph: Graph, strengths: Strengths) -> tuple[Array, Array]:
    """V M+ and V M-, both (r, n) and non-negative, with M = M+ - M-."""
    gamma = strengths.beta / v.shape[1] + strengths.nu
    sums = jnp.sum(v, axis=1, keepdims=True)
    above = strengths.alpha * v * graph.degrees + gamma * sums + RIDGE * v
    return above, strengths.alpha * times_similarity(v, graph) + (strengths.beta + strengths.nu) * v


def chain(h: tuple[Array, ...]) -> Array:
    """Q = H_1 ... H_l (m, r_l)."""
    result = h[0]
    for matrix in h[1:]:
        result = product(result, matrix)
    return result


def inner_grams(h: tuple[Array, ...], layer_weights: Array) -> list[Array | None]:
    """G_1 ... G_{l+1}: sum_{j<i} w_j B_j^T B_j with B_j = H_{j+1} ... H_{i-1}; None where nothing lies to the left."""
    grams: list[Array | None] = [None]
    for i, matrix in enumerate(h):
        own = layer_weights[i] * jnp.eye(matrix.shape[1], dtype=matrix.dtype)
        left = grams[-1]
        grams.append(own if left is None else own + product(matrix.T, product(left, matrix)))
    return grams


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
    above, below = local_and_global(v, graph, strengths)
    gram = product(v, (above - below).T)
    left = inner_grams(h, strengths.layer_weights)[-1] if form.inner else None
    structure = jnp.trace(gram) * strengths.layer_weights[-1] if left is None else jnp.sum(left * gram)
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

    Only V V^T-like products of r x r entries and X V^T are needed for all H_i: V changes last.
    """
    over_features, over_samples = (weights, 1.0) if weights.shape[1] == 1 else (1.0, weights)
    x_v = product(over_features * x, (over_samples * v).T)
    v_v = product(v * over_samples, v.T)
    plus, minus = local_and_global(v, graph, strengths)
    above_gram, below_gram = (product(v, m.T) for m in (plus, minus)) if form.inner else (v_v, v_v)
    right = [jnp.eye(v.shape[0], dtype=v.dtype)]
    for matrix in reversed(h[1:]):
        right.insert(0, product(matrix, right[0]))
    new: list[Array] = []
    q: Array | None = None
    gram: Array | None = None
    for i, (matrix, k) in enumerate(zip(h, right, strict=True)):
        a_a = product(product(k, v_v), k.T)
        numerator = product(x_v, k.T) if q is None else product(q.T, product(x_v, k.T))
        if q is None:
            denominator = over_features * product(matrix, a_a)
        else:
            denominator = product(product(product(q.T, over_features * q), matrix), a_a)
        if form.inner and gram is not None:
            left = product(gram, matrix)
            numerator = numerator + product(left, product(product(k, below_gram), k.T))
            denominator = denominator + product(left, product(product(k, above_gram), k.T))
        matrix = powered(matrix, numerator, denominator + strengths.lam * matrix, exponent)
        new.append(matrix)
        q = matrix if q is None else product(q, matrix)
        if form.inner:
            own = strengths.layer_weights[i] * jnp.eye(matrix.shape[1], dtype=matrix.dtype)
            gram = own if gram is None else own + product(matrix.T, product(gram, matrix))
    assert q is not None
    weighted = over_features * q
    numerator = product(weighted.T, x * over_samples)
    denominator = product(product(weighted.T, q), v) * over_samples
    if form.inner and gram is not None:
        numerator, denominator = numerator + product(gram, minus), denominator + product(gram, plus)
    else:
        own_weight = strengths.layer_weights[-1]
        numerator, denominator = numerator + own_weight * minus, denominator + own_weight * plus
    v = powered(v, numerator, denominator, exponent)
    return rescale(tuple(new), v, graph, strengths, form)


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
    above, below = local_and_global(v, graph, strengths)
    differences = above - below
    gram = product(v, differences.T) if form.inner else None
    for i in reversed(range(len(h))):
        if i == len(h) - 1:
            after = strengths.layer_weights[-1] * jnp.sum(v * differences, axis=1)
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


def init_state(
    h: tuple[Array, ...], v: Array, x: Array, graph: Graph, strengths: Strengths, form: Form, length: int = 64
) -> State:
    """State before the first sweep, with room for `length` entries of history."""
    value, weights = evaluate(h, v, x, graph, strengths, form)
    start = LONGEST / 2 if form.long_steps else PROVED
    return State(
        h, v, weights, value, jnp.full((), start, x.dtype), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32),
        jnp.full(length, jnp.nan, x.dtype).at[0].set(value), jnp.zeros((), bool),
    )  # fmt: skip


def step(state: State, x: Array, graph: Graph, strengths: Strengths, form: Form) -> State:
    """One sweep. With `long_steps` its exponent grows while J falls, and a sweep that raised J is taken back.

    Salakhutdinov and Roweis, Adaptive overrelaxed bound optimization methods, 2003: the next sweep then has exponent
    1/2, for which J cannot rise.
    """
    h, v = sweep(state.h, state.v, state.weights, x, graph, strengths, form, state.exponent)
    value, weights = evaluate(h, v, x, graph, strengths, form)
    sweeps = state.sweeps + 1
    if not form.long_steps:
        return state._replace(h=h, v=v, weights=weights, value=value, sweeps=sweeps)
    good = (value <= state.value) | (state.exponent <= PROVED)

    def kept(new: Array, old: Array) -> Array:
        return jnp.where(good, new, old)

    return state._replace(
        h=tuple(kept(new, old) for new, old in zip(h, state.h, strict=True)),
        v=kept(v, state.v),
        weights=kept(weights, state.weights),
        value=kept(value, state.value),
        exponent=jnp.where(good, jnp.minimum(GROWTH * state.exponent, LONGEST), PROVED),
        sweeps=sweeps,
        rejected=state.rejected + ~good,
    )


def advance(
    state: State, x: Array, graph: Graph, strengths: Strengths, form: Form, tol: Array | float, stop_at: Array | int
) -> State:
    """Sweeps until J falls by less than tol |J| over ten of them (0: never), or until `stop_at` sweeps are made.

    A value below 0 (or none at all) ends them too: data and lam terms are at least 0, so that M then has a negative
    direction, along which J falls without end.
    """

    def running(state: State) -> Array:
        return (state.sweeps < stop_at) & ~state.converged

    def ten(state: State) -> State:
        count = jnp.minimum(CHECK_EVERY - state.sweeps % CHECK_EVERY, stop_at - state.sweeps)
        before = state.value
        state = lax.fori_loop(0, count, lambda _, s: step(s, x, graph, strengths, form), state)
        at = (state.sweeps + CHECK_EVERY - 1) // CHECK_EVERY
        fall = before - state.value
        return state._replace(
            history=state.history.at[at].set(state.value),
            converged=((fall <= tol * jnp.abs(state.value)) & (tol > 0)) | ~(state.value >= 0),
        )

    return lax.while_loop(running, ten, state)
