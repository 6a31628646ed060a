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

from deepnmf_jax.decomposition.updates import quadratic
from deepnmf_jax.decomposition.updates.loop import Descent, begin, descend
from deepnmf_jax.decomposition.updates.multiplicative import beta_terms, floor_of
from deepnmf_jax.decomposition.updates.objective import Penalties, codes_gradient, has_many_atoms
from deepnmf_jax.decomposition.updates.quadratic import product
from deepnmf_jax.decomposition.updates.solvers import Settings, improve

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
    found = search(None, a, d, penalties, weights, settings, tol, max_iter)
    return found.state, CodesReport(found.sweeps, found.converged & ~jnp.isnan(found.value), found.value)


def search(
    start: Descent[Array] | None,
    a: Array | BCOO,
    d: Array,
    penalties: Penalties,
    weights: Array | None,
    settings: Settings,
    tol: Array | float,
    stop_at: Array | int,
) -> Descent[Array]:
    """`solve_codes` from the beginning or from where an earlier search ended, until `stop_at` sweeps in all."""
    multiplicative = settings.beta != 2
    if settings.beta == 2 and settings.solver != "pgd":
        settings = settings._replace(solver="hals", inner=1)
    zt = start_of(a, d, multiplicative)
    step, residual = _stepper(a, d, penalties, weights, settings)
    unit = jnp.max(jnp.abs(codes_gradient(a, zt, d, penalties, settings.beta, weights)), axis=0)
    unit = jnp.where(unit > 0, unit, 1)
    goal = jnp.maximum(SHARPER * jnp.asarray(tol, d.dtype), 32 * jnp.finfo(d.dtype).eps)
    goal = jnp.where(jnp.asarray(tol) > 0, goal, 0)

    def left(zt: Array) -> Array:
        return jnp.max(jnp.max(jnp.abs(residual(zt)), axis=0) / unit, initial=0)

    if start is None:
        rest = left(zt)
        start = begin(zt, rest, converged=~(rest > goal))
    return descend(start, step, left, lambda _, rest, zt: ~(rest > goal), stop_at, every=CHECK_EVERY)


def _stepper(
    a: Array | BCOO, d: Array, penalties: Penalties, weights: Array | None, settings: Settings
) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """One sweep over the codes and their projected gradient, as functions of Z^T; products with A made once."""
    l1, l2 = penalties.l1_z, penalties.l2_z
    many = not isinstance(a, BCOO) and has_many_atoms(a.shape, d.shape[0]) and settings.solver != "pgd"
    if settings.beta != 2 or weights is not None or many:
        return (
            lambda zt: improve(zt, d, a, l1, l2, settings, weights),
            lambda zt: codes_gradient(a, zt, d, penalties, settings.beta, weights),
        )
    c, b = product(d, a.T) - l1, product(d, d.T) + l2 * jnp.eye(d.shape[0], dtype=d.dtype)
    if settings.solver == "pgd":
        return (
            lambda zt: quadratic.accelerated_gradient(zt, c, b, settings.gradient_steps),
            lambda zt: quadratic.projected_gradient(zt, c, b),
        )
    return (
        lambda zt: quadratic.coordinate_sweep(zt, c, b, settings.block),
        lambda zt: quadratic.projected_gradient(zt, c, b),
    )


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
        jnp.ones((z.shape[0], 1), d.dtype) if shared is not None else _curvature(a, product(z, d), beta, weights)
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


def _curvature(a: Array, w: Array, beta: float, weights: Array | None) -> Array:
    """Second derivative of the beta divergence with respect to the reconstruction w, times the weights. (n, p)."""
    if beta == 2:
        second = jnp.ones_like(w)
    else:
        w = jnp.maximum(w, floor_of(w.dtype, beta))
        second = (beta - 1) * w ** (beta - 2) - (beta - 2) * a * w ** (beta - 3)
    return second if weights is None else weights * second


_encode.defvjp(_encode_fwd, _encode_bwd)

compiled_codes = jax.jit(solve_codes, static_argnames=("settings",))
compiled_search = jax.jit(search, static_argnames=("settings",))
