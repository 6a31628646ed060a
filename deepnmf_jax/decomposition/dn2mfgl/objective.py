"""What Dn2MFGL minimises: deep NMF with local and global structure, in a form that has a minimum. Value and terms.

    J = data(X - Q V) + sum_i w_i tr(V~_i M V~_i^T) + lam sum_i ||H_i||^2,  Q = H_1 ... H_l, V~_i = H_{i+1} ... H_l V
    M = alpha L - beta (I - 11^T/n) + nu (11^T - I) + RIDGE I
    data: sum over samples ("sample") or features ("feature") of sqrt(||residual||^2 + delta^2), or ||X - Q V||_F^2

after Saberi-Movahed et al. 2023; docs/dn2mfgl.md has the derivation, sweep.py the update rule. X (m, n) has samples as
columns, H_1 (m, r_1), H_i (r_{i-1}, r_i), V (r_l, n). Every function can be jitted, and mapped over factors and
strengths.
"""

from functools import reduce
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from deepnmf_jax.decomposition.updates.graph import Graph, laplacian_energies, laplacian_gram
from deepnmf_jax.decomposition.updates.linear_algebra import product

ROBUST = ("sample", "feature", "none")
# Keeps v^T M v above 0 for v > 0, else V can run off along a flat direction while H goes to 0.
RIDGE = 1e-6


class Strengths(NamedTuple):
    """Numbers of the objective: alpha, beta, nu, lam, delta (), layer_weights (l,) the w_i."""

    alpha: Array | float
    beta: Array | float
    nu: Array | float
    lam: Array | float
    delta: Array | float
    layer_weights: Array


class Problem(NamedTuple):
    """What is factorized: x, X (m, n); graph over its n samples; strengths of the terms."""

    x: Array
    graph: Graph
    strengths: Strengths


class Form(NamedTuple):
    """What the compiled program depends on: `robust`; `inner`, whether any w_i with i < l is above 0."""

    robust: str = "sample"
    inner: bool = False


def global_factors(n: int, beta: Array | float, nu: Array | float) -> tuple[Array | float, Array | float]:
    """gamma and kappa: the terms of beta and nu together are gamma ||V 1||^2 - kappa ||V||^2."""
    return beta / n + nu, beta + nu


def structure_gram(v: Array, problem: Problem) -> Array:
    """V M V^T (r, r)."""
    _, graph, strengths = problem
    gamma, kappa = global_factors(v.shape[1], strengths.beta, strengths.nu)
    sums = jnp.sum(v, axis=1, keepdims=True)
    return strengths.alpha * laplacian_gram(v, graph) + gamma * sums * sums.T - (kappa - RIDGE) * product(v, v.T)


def structure_energies(v: Array, problem: Problem) -> Array:
    """The diagonal of `structure_gram`, (r,): v_k^T M v_k of every component."""
    _, graph, strengths = problem
    gamma, kappa = global_factors(v.shape[1], strengths.beta, strengths.nu)
    local = strengths.alpha * laplacian_energies(v, graph)
    return local + gamma * jnp.sum(v, axis=1) ** 2 - (kappa - RIDGE) * jnp.sum(v**2, axis=1)


def chain(h: tuple[Array, ...]) -> Array:
    """Q = H_1 ... H_l (m, r_l)."""
    return reduce(product, h)


def inner_grams(h: tuple[Array, ...], layer_weights: Array) -> list[Array]:
    """G_2 ... G_{l+1}: sum_{j<i} w_j B_j^T B_j with B_j = H_{j+1} ... H_{i-1}; G_i (r_{i-1}, r_{i-1}).

    The structure terms of all layers together are <G_{l+1}, V M V^T>.
    """
    grams: list[Array] = []
    for matrix, weight in zip(h, layer_weights, strict=True):
        grams.append(next_gram(grams[-1] if grams else None, matrix, weight))
    return grams


def next_gram(gram: Array | None, matrix: Array, weight: Array) -> Array:
    """G_{i+1} of G_i, H_i and w_i; None: there is no G_1."""
    own = weight * jnp.eye(matrix.shape[1], dtype=matrix.dtype)
    return own if gram is None else own + product(matrix.T, product(gram, matrix))


def evaluate(h: tuple[Array, ...], v: Array, problem: Problem, form: Form) -> tuple[Array, Array]:
    """The objective () and the weights p = 1 / (2 sqrt(||residual||^2 + delta^2)) of its majoriser."""
    x, strengths = problem.x, problem.strengths
    residual = x - product(chain(h), v)
    if form.robust == "none":
        data, weights = jnp.sum(residual**2), jnp.ones((1, 1), x.dtype)
    else:
        axis = 0 if form.robust == "sample" else 1
        lengths = jnp.sqrt(jnp.sum(residual**2, axis=axis, keepdims=True) + strengths.delta**2)
        data, weights = jnp.sum(lengths), 1 / (2 * lengths)
    if form.inner:
        structure = jnp.sum(inner_grams(h, strengths.layer_weights)[-1] * structure_gram(v, problem))
    else:
        structure = strengths.layer_weights[-1] * jnp.sum(structure_energies(v, problem))
    return data + structure + strengths.lam * sum(jnp.sum(matrix**2) for matrix in h), weights
