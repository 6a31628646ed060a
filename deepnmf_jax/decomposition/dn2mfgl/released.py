"""The released Dn2MFGL, step by step (Saberi-Movahed et al. 2023, code Dn2MFGO): pretraining, sweep, objective.

Everything is as that code has it, oddities too: one robust weight per feature, guards of 1e-10 and 1e-5, codes of the
inner layers that nothing reads. Only the n x n matrix of ones and the m x m matrix of weights are not written out.
X (m, n) has samples as columns, H_1 (m, r_1), H_i (r_{i-1}, r_i), V_i (r_i, n).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from deepnmf_jax.decomposition.dn2mfgl.objective import chain, global_factors
from deepnmf_jax.decomposition.updates.graph import Graph, times_similarity
from deepnmf_jax.decomposition.updates.linear_algebra import product

GUARD = 1e-10
ROW_GUARD = 1e-5
PRETRAINING_SWEEPS = 100
PRETRAINING_TOL = 1e-6


class Factors(NamedTuple):
    """h: H_1 ... H_l. v: V_1 ... V_l."""

    h: tuple[Array, ...]
    v: tuple[Array, ...]


def pretrain_layer(z: Array, h: Array, v: Array) -> tuple[Array, Array, Array]:
    """Z ~ H V by Lee and Seung's rules (`stanNMF.m`): H, V and the number of sweeps.

    Stops when ||Z - H V||^2 / n falls by less than 1e-6 of max(1, itself), or after 100 sweeps. For data of unit
    length the test is absolute: data a hundred times smaller stops after two sweeps.
    """

    def error(h: Array, v: Array) -> Array:
        return jnp.sum((z - product(h, v)) ** 2) / z.shape[1]

    def running(carry: tuple) -> Array:
        return (carry[4] < PRETRAINING_SWEEPS) & (carry[3] >= PRETRAINING_TOL)

    def step(carry: tuple) -> tuple:
        h, v, old, _, done = carry
        h = h * product(z, v.T) / jnp.maximum(product(product(h, v), v.T), GUARD)
        v = v * product(h.T, z) / jnp.maximum(product(product(h.T, h), v), GUARD)
        new = error(h, v)
        return h, v, new, (old - new) / jnp.maximum(1, old), done + 1

    start = (h, v, error(h, v), jnp.full((), jnp.inf, z.dtype), jnp.zeros((), jnp.int32))
    h, v, _, _, done = lax.while_loop(running, step, start)
    return h, v, done


def pretrain(x: Array, start: Factors) -> tuple[Factors, Array]:
    """Layer after layer from the given starts (`Pretain.m`): V_{i-1} ~ H_i V_i. Also the sweeps of each layer (l,)."""
    hs, vs, sweeps, z = [], [], [], x
    for h, v in zip(*start, strict=True):
        h, z, done = pretrain_layer(z, h, v)
        hs.append(h)
        vs.append(z)
        sweeps.append(done)
    return Factors(tuple(hs), tuple(vs)), jnp.stack(sweeps)


def random_start(key: Array, m: int, n: int, layer_sizes: tuple[int, ...], dtype: jnp.dtype) -> Factors:
    """Absolute standard normal numbers for every H_i and V_i, where the pretraining begins."""
    hs, vs = [], []
    sizes = (m, *layer_sizes)
    for i, layer_key in enumerate(jax.random.split(key, len(layer_sizes))):
        key_h, key_v = jax.random.split(layer_key)
        hs.append(jnp.abs(jax.random.normal(key_h, (sizes[i], sizes[i + 1]), dtype)))
        vs.append(jnp.abs(jax.random.normal(key_v, (sizes[i + 1], n), dtype)))
    return Factors(tuple(hs), tuple(vs))


def row_weights(x: Array, factors: Factors) -> Array:
    """P (m, 1): 1 / (2 max(||row of X - H_1 ... H_l V_l||, 1e-5)), one weight per feature."""
    residual = x - product(chain(factors.h), factors.v[-1])
    return 1 / (2 * jnp.maximum(jnp.linalg.norm(residual, axis=1, keepdims=True), ROW_GUARD))


def sweep(
    factors: Factors, weights: Array, x: Array, graph: Graph, alpha: Array, beta: Array, nu: Array
) -> tuple[Factors, Array]:
    """One sweep: H_i, then V_i, for i = 1 ... l; then the weights of the next one. weights: of `row_weights`."""
    hs, vs = list(factors.h), list(factors.v)
    gamma, kappa = global_factors(x.shape[1], beta, nu)
    last = vs[-1]
    for i in range(len(hs)):
        # V_l is still the old one: only the last turn changes it, after H_l.
        a = last
        for h in reversed(hs[i + 1 :]):
            a = product(h, a)
        left = chain(tuple(hs[:i])) if i else None

        def from_left(y: Array, left: Array | None = left) -> Array:
            return y if left is None else product(left.T, y)

        above = from_left(weights * product(x, a.T))
        h_a = product(product(hs[i], a), a.T)
        below = from_left(weights * (h_a if left is None else product(left, h_a)))
        hs[i] = hs[i] * jnp.sqrt(above / jnp.maximum(below, GUARD))
        left = chain(tuple(hs[: i + 1]))
        v = vs[i]
        above = product(left.T, weights * x) + alpha * times_similarity(v, graph) + kappa * v
        sums = jnp.sum(v, axis=1, keepdims=True)
        below = product(product(left.T, weights * left), v) + alpha * v * graph.degrees + gamma * sums
        vs[i] = v * jnp.sqrt(above / jnp.maximum(below, GUARD))
    factors = Factors(tuple(hs), tuple(vs))
    return factors, row_weights(x, factors)


def objective(factors: Factors, x: Array, graph: Graph, alpha: Array, beta: Array, nu: Array) -> Array:
    """J = sum of the row norms of the residual + alpha tr(V L V^T) - beta tr(V C V^T) + nu tr(V (11^T - I) V^T)."""
    v = factors.v[-1]
    sums = jnp.sum(v, axis=1)
    local = jnp.sum(v * (v * graph.degrees - times_similarity(v, graph)))
    gamma, kappa = global_factors(x.shape[1], beta, nu)
    both = gamma * jnp.sum(sums**2) - kappa * jnp.sum(v**2)
    rows = jnp.linalg.norm(x - product(chain(factors.h), v), axis=1)
    return jnp.sum(rows) + alpha * local + both
