"""The derivative of codes, by the implicit function theorem.

Near a solution whose zeros have a positive slope, the positive entries solve a smooth system of equations and the zeros
stay. Codes that a search left near the solution are finished first: which of them are positive decides.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from deepnmf_jax.decomposition.updates import newton
from deepnmf_jax.decomposition.updates.loop import descend
from deepnmf_jax.decomposition.updates.objective import Half
from deepnmf_jax.decomposition.updates.search import gradient_left, is_rounding, lands
from deepnmf_jax.decomposition.updates.solvers import SolverSettings, settings_for_codes, step_of

# Sweeps at most, each with a Newton step, that finish codes for their derivative.
FINISHING_SWEEPS = 50


class Problem(NamedTuple):
    """What codes are a function of: A (n, p), D (k, p), both penalties of the codes, weights (n, p) or None."""

    a: Array
    d: Array
    l1: Array | float = 0.0
    l2: Array | float = 0.0
    weights: Array | None = None

    def half(self) -> Half:
        """The half in which the codes are sought."""
        return Half(self.d, self.a, self.l1, self.l2, self.weights)

    def slope(self, z: Array, beta: float) -> Array:
        """Gradient of the objective with respect to the codes Z, (n, k)."""
        return newton.slope_of(z, self.a, self.d, self.l1, self.l2, self.weights, beta)


def follow(z: Array, problem: Problem, settings: SolverSettings) -> Array:
    """The codes Z (n, k) as they are, with the derivative of the solution near them with respect to the problem.

    Forwards and in reverse, any number of times. Z itself passes no gradient.
    """
    dtype = problem.d.dtype
    problem = jax.tree.map(lambda x: jnp.asarray(x, dtype), problem)
    finish = None if lands(settings, len(problem.d)) else settings
    return _follow(lax.stop_gradient(z), problem, settings.beta, finish)


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _follow(z: Array, problem: Problem, beta: float, finish: SolverSettings | None) -> Array:
    return z


@_follow.defjvp
def _follow_jvp(beta: float, finish: SolverSettings | None, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    z, problem = primals
    fixed, finished = lax.stop_gradient((problem, z))
    if finish is not None:
        finished = _finish(finished, fixed, finish)
    # The finished codes follow the problem too, for derivatives of this one.
    exact = _follow(finished, problem, beta, None)
    change = jax.jvp(lambda problem: problem.slope(exact, beta), (problem,), (tangents[1],))[1]
    active = newton.is_active(finished, fixed.half(), beta)
    # The value stays what was found; its own derivative is that of the finished codes.
    followed = z + (exact - lax.stop_gradient(exact))
    return followed, -newton.solve_on(active, change, problem.half(), exact, beta)


@partial(jax.jit, static_argnames=("settings",))
def _finish(z: Array, problem: Problem, settings: SolverSettings) -> Array:
    """Codes Z (n, k) near a solution made exact, by Newton steps between sweeps."""
    half = problem.half()
    goal = 32 * jnp.finfo(z.dtype).eps
    step = step_of(half, settings_for_codes(settings))
    land = newton.newton_step(half, settings.beta)

    def stop(before: Array, now: Array, _: Array) -> Array:
        return ~(now > goal) | is_rounding(before, now)

    left = gradient_left(half, settings.beta)
    return descend(z.T, FINISHING_SWEEPS, lambda zt: land(step(zt)), left, stop, every=1).state.T


def follow_on_simplex(z: Array, a: Array, d: Array) -> Array:
    """`follow` for codes whose rows sum to 1 beside being non-negative, of the squared error.

    Only which entries are positive matters: the solution is piecewise linear in A. The codes are not finished.
    """
    return _follow_on_simplex(lax.stop_gradient(z), a, d)


@jax.custom_jvp
def _follow_on_simplex(z: Array, a: Array, d: Array) -> Array:
    return z


@_follow_on_simplex.defjvp
def _follow_on_simplex_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    z, a, d = primals
    exact = _follow_on_simplex(lax.stop_gradient(z), a, d)
    change = jax.jvp(lambda a, d: Problem(a, d).slope(exact, 2.0), (a, d), tangents[1:])[1]
    # One feature more, the sum of the codes, changes nothing where the sum stays, and makes the system regular for as
    # many atoms as span a simplex.
    unit = jnp.sqrt(jnp.mean(jnp.sum(d**2, axis=1)))
    unit = jnp.where(unit > 0, unit, 1)
    half = Problem(
        jnp.concatenate([a, jnp.broadcast_to(unit, (len(a), 1))], axis=1),
        jnp.concatenate([d, jnp.broadcast_to(unit, (len(d), 1))], axis=1),
    ).half()
    active = z > 0
    free = newton.solve_on(active, change, half, exact, 2.0)
    ones = newton.solve_on(active, jnp.ones_like(z), half, exact, 2.0)
    multiplier = jnp.sum(free, axis=1, keepdims=True) / jnp.sum(ones, axis=1, keepdims=True)
    return exact, ones * multiplier - free
