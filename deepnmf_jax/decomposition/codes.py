"""Codes Z for a fixed dictionary D: deterministic, and differentiable with respect to data, dictionary and penalties.

For squared error and for beta between 1 and 2 the problem is convex: the codes are a function of A and D. They start
at 0 (multiplicative rule: at a positive constant), so that no seed enters.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental.sparse import BCOO

from deepnmf_jax.decomposition.updates.beta_divergence import beta_curvature, beta_terms
from deepnmf_jax.decomposition.updates.linear_algebra import product
from deepnmf_jax.decomposition.updates.loop import Descent, descend, in_view
from deepnmf_jax.decomposition.updates.objective import Penalties, Target, gradient_of
from deepnmf_jax.decomposition.updates.solvers import SolverSettings, settings_for_codes, step_of

__all__ = ["CodesReport", "Penalties", "Settings", "encode", "solve_codes"]

# What `encode` and `solve_codes` are given: `Penalties`, and how codes are found.
Settings = SolverSettings
# Sweeps between two looks at the projected gradient.
CHECK_EVERY = 5
# The codes are solved this much sharper than the tolerance of the estimator.
SHARPER = 1e-2
# Largest number of entries of the small matrices solved at once in the backward.
SOLVED_AT_ONCE = 1 << 22


class CodesReport(NamedTuple):
    """How the search for codes ended: sweeps made, whether the tolerance was reached, projected gradient left.

    The gradient is relative: per sample, to the largest one at Z = 0; the largest over the samples counts.
    """

    iterations: Array
    converged: Array
    residual: Array


def start_of(a: Array | BCOO, d: Array, multiplicative: bool) -> Array:
    """Z^T (k, n) to start from: 0, or for the multiplicative rule a constant per sample that fits its sum."""
    shape = (d.shape[0], a.shape[0])
    if not multiplicative:
        return jnp.zeros(shape, d.dtype)
    sums = product(a, jnp.ones((a.shape[1], 1), d.dtype))[:, 0]
    total = jnp.sum(d)
    return jnp.broadcast_to(sums / jnp.where(total > 0, total, 1), shape)


def solve_codes(
    a: Array | BCOO,
    d: Array,
    penalties: Penalties,
    weights: Array | None = None,
    settings: Settings = Settings(),  # noqa: B008 - immutable
    max_iter: Array | int = 300,
    tol: Array | float = 1e-4,
) -> tuple[Array, CodesReport]:
    """Codes Z^T (k, n) of A (n, p) for D (k, p), and how the search ended.

    Squared error is solved by coordinate descent, whatever solver found D, or with "pgd" by accelerated gradients;
    other divergences by the multiplicative rule. Not differentiable in reverse: see `encode`.
    """
    found = search(None, max_iter, Target(a, penalties, weights), d, settings, tol)
    return found.state, CodesReport(found.sweeps, found.converged & ~jnp.isnan(found.value), found.value)


def search(
    start: Descent[Array] | None,
    stop_at: Array | int,
    target: Target,
    d: Array,
    settings: SolverSettings,
    tol: Array | float,
) -> Descent[Array]:
    """`solve_codes` from the beginning or from where an earlier search ended, until `stop_at` sweeps in all.

    The value of the descent is not the objective but the projected gradient left, as `CodesReport` has it.
    """
    half = target.for_codes(d)
    gradient = gradient_of(half, settings.beta)
    first = start_of(target.a, d, settings.beta != 2)
    unit = jnp.max(jnp.abs(gradient(first)), axis=0)
    unit = jnp.where(unit > 0, unit, 1)
    goal = jnp.maximum(SHARPER * jnp.asarray(tol, d.dtype), 32 * jnp.finfo(d.dtype).eps)
    goal = jnp.where(jnp.asarray(tol) > 0, goal, 0)

    def left(zt: Array) -> Array:
        return jnp.max(jnp.max(jnp.abs(gradient(zt)), axis=0) / unit, initial=0)

    def stop(_: Array, rest: Array, zt: Array) -> Array:
        return ~(rest > goal)

    step = step_of(half, settings_for_codes(settings))
    return descend(first if start is None else start, stop_at, step, left, stop, every=CHECK_EVERY)


def find_codes(
    target: Target,
    d: Array,
    settings: SolverSettings,
    max_iter: int,
    tol: float,
    report: Callable[[int, float], None] | None = None,
) -> Array:
    """`solve_codes` compiled, Z^T alone; `report` is called as in `loop.in_view`, with the projected gradient left."""
    compiled = partial(_compiled_search, target=target, d=d, settings=settings, tol=tol)
    return in_view(compiled, None, max_iter, report).state


def encode(
    a: Array | BCOO,
    d: Array,
    penalties: Penalties = Penalties(),  # noqa: B008 - immutable
    weights: Array | None = None,
    settings: Settings = Settings(),  # noqa: B008 - immutable
    max_iter: Array | int = 300,
    tol: Array | float = 1e-4,
) -> Array:
    """Codes Z (n, k) of A (n, p) for the fixed dictionary D (k, p), as `solve_codes` finds them.

    Differentiable in reverse by the implicit function theorem: near a solution whose zeros have a negative slope, the
    positive entries solve a smooth system of equations and the zeros stay. Gradients go to A, D, the penalties of the
    codes and the weights; where entries are at the edge of both (ties) one side is taken. Sparse A: no gradient.
    """
    if isinstance(a, BCOO):
        return solve_codes(a, d, penalties, weights, settings, max_iter, tol)[0].T
    penalties = Penalties(*(jnp.asarray(value, d.dtype) for value in penalties))
    return _encode(a, d, penalties, weights, settings, jnp.asarray(max_iter), jnp.asarray(tol, d.dtype))


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _encode(
    a: Array, d: Array, penalties: Penalties, weights: Array | None, settings: Settings, max_iter: Array, tol: Array
) -> Array:
    return solve_codes(a, d, penalties, weights, settings, max_iter, tol)[0].T


def _encode_fwd(
    a: Array, d: Array, penalties: Penalties, weights: Array | None, settings: Settings, max_iter: Array, tol: Array
) -> tuple[Array, tuple]:
    z = _encode(a, d, penalties, weights, settings, max_iter, tol)
    return z, (z, a, d, penalties, weights)


def _encode_bwd(settings: Settings, saved: tuple, g: Array) -> tuple[Any, ...]:
    z, a, d, penalties, weights = saved
    active = z > 0
    direction = _solve_active(active, jnp.where(active, g, 0), z, a, d, penalties.l2_z, weights, settings.beta)

    def slope(a: Array, d: Array, penalties: Penalties, weights: Array | None) -> Array:
        above, below = beta_terms(a, z, d, settings.beta, weights)
        return above - below - penalties.l1_z - penalties.l2_z * z

    pull = jax.vjp(slope, a, d, penalties, weights)[1]
    return (*pull(jnp.where(active, direction, 0)), None, None)


def _solve_active(
    active: Array, g: Array, z: Array, a: Array, d: Array, l2: Array, weights: Array | None, beta: float
) -> Array:
    """Per sample, H x = g on the active entries, with H = D diag(curvature) D^T + l2 and 0 elsewhere. (n, k)."""
    k = d.shape[0]
    shared = product(d, d.T) if beta == 2 and weights is None else None
    # One row each keeps `lax.map` uniform where the curvature is the same for all.
    curvature = (
        jnp.ones((z.shape[0], 1), d.dtype) if shared is not None else beta_curvature(a, product(z, d), beta, weights)
    )

    def solve(row: tuple[Array, Array, Array]) -> Array:
        on, right, curved = row
        hessian = shared if shared is not None else product(d * curved, d.T)
        hessian = hessian + l2 * jnp.eye(k, dtype=d.dtype)
        scale = jnp.mean(jnp.diagonal(hessian))
        scale = jnp.where(scale > 0, scale, 1)
        # The ridge keeps rows whose active atoms depend on one another solvable.
        diagonal = jnp.where(on, k * jnp.finfo(d.dtype).eps * scale, scale)
        matrix = jnp.where(on[:, None] & on[None, :], hessian, 0) + jnp.diag(diagonal)
        return jax.scipy.linalg.solve(matrix, right, assume_a="pos")

    return lax.map(solve, (active, g, curvature), batch_size=max(1, SOLVED_AT_ONCE // (k * k)))


_encode.defvjp(_encode_fwd, _encode_bwd)

_compiled_search = jax.jit(search, static_argnames=("settings",))
