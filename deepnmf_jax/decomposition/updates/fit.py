"""The fit of NMF as pure functions: a start, sweeps until the objective hardly falls, dead atoms replaced.

State comes in, state goes out; nothing is drawn after the start. They can be jitted and mapped over starts.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from deepnmf_jax.decomposition.io.host import namespace, where_it_lies
from deepnmf_jax.decomposition.io.host_matrix import HostMatrix
from deepnmf_jax.decomposition.io.nonzeros import Matrix, Nonzeros, Sparse, nonzeros_of
from deepnmf_jax.decomposition.updates import loop
from deepnmf_jax.decomposition.updates.linear_algebra import product
from deepnmf_jax.decomposition.updates.loop import Descent, over_starts
from deepnmf_jax.decomposition.updates.objective import (
    Target,
    beside_divergence,
    divergence,
    objective,
    penalty,
    projected_gradient_norm,
)
from deepnmf_jax.decomposition.updates.solvers import SOLVERS, SolverSettings, improved, sweep

Pair = tuple[Array, Array]


# An atom without effect at so many looks in a row is replaced, if that lowers the objective.
LOOKS_DEAD = 2


class Factorization(NamedTuple):
    """What the sweeps of NMF change, and what is known of it from the last look.

    zt (k, n) the codes transposed, d (k, p) the dictionary; dead (k,) for how many looks each atom has been without
    effect; stuck () whether one has been so for two, and may be replaced; revived () how many have been replaced.
    """

    zt: Array
    d: Array
    dead: Array
    stuck: Array
    revived: Array


class Report(NamedTuple):
    """How a fit ended, for people: reached, iterations, last change of the objective (relative to it, over
    ten sweeps), projected gradient relative to the start, atoms without effect, atoms replaced."""

    converged: bool
    iterations: int
    change: float
    gradient: float
    n_dead: int
    n_revived: int


def without_effect(zt: Array, d: Array) -> Array:
    """Whether each atom (k,) has no codes or is 0 itself; the smallest normal number, as "mu" leaves it, is 0 too."""
    xp = namespace(zt, d)
    none = xp.finfo(d.dtype).tiny
    return ~(xp.any(zt > none, axis=1) & xp.any(d > none, axis=1))


def fit(
    start: Pair | Descent[Factorization],
    stop_at: Array | int,
    target: Target,
    settings: SolverSettings,
    tol: Array | float,
    length: int,
) -> Descent[Factorization]:
    """Sweeps from every start at once, Z^T (r, k, n) and D (r, k, p), or from where an earlier call ended.

    They end by `loop.relative_fall`, or when `stop_at` of them are made. Every field of the result has the first axis.
    `length` of the history: at least stop_at // 10 + 2 (`history_length`). The codes are those of the last sweep, one
    step of the dictionary behind; `codes.solve_codes` brings them up to date.

    The sweeps are one compiled program, but for a `HostMatrix`; that which replaces dead atoms is compiled when the
    first one is seen.
    """
    now = start if isinstance(start, Descent) else _beginning(*start, length)
    here = isinstance(target.a, HostMatrix)
    while True:
        now = (_sweeps_on_host if here else sweeps)(now, stop_at, target, settings, tol)  # type: ignore[arg-type]
        if not np.any(np.asarray(now.state.stuck)):
            return now
        now = _with_dead_replaced(now, _in_blocks(target, now), settings, tol)


def _beginning(zt: Array, d: Array, length: int) -> Descent[Factorization]:
    starts, k = zt.shape[:2]
    none = np.zeros(starts, np.int32)
    state = Factorization(zt, d, np.zeros((starts, k), np.int32), none > 0, none)  # type: ignore[arg-type]
    nothing = np.full((starts, length), np.nan, zt.dtype)
    return Descent(state, np.full(starts, np.inf, zt.dtype), none, nothing, none, none > 0)  # type: ignore[arg-type]


def _in_blocks(target: Target, now: Descent[Factorization]) -> Target:
    """What is approximated, for compiled functions."""
    if not isinstance(target.a, HostMatrix):
        return target
    return target._replace(a=nonzeros_of(target.a, now.state.d.shape[1], 2.0))


def _as_numpy(x: Array) -> Array:
    """x, in the memory of this process, as numpy's array, whose functions need no compilation."""
    return cast(Array, np.asarray(x))


class _Sweeps(NamedTuple):
    """What the sweeps of a fit are, and when they end."""

    target: Target
    settings: SolverSettings
    tol: Array | float

    def step(self, state: Factorization) -> Factorization:
        """One sweep."""
        zt, d = sweep(state.zt, state.d, self.target, self.settings)
        return state._replace(zt=zt, d=d)

    def on_host(self, state: Factorization) -> Factorization:
        """One sweep; all but the products with A is compiled."""
        zt = _as_numpy(improved(state.zt, self.target.for_codes(state.d).with_products(), self.settings))
        d = improved(state.d, self.target.for_dictionary(zt).with_products(), self.settings)
        return state._replace(zt=zt, d=_as_numpy(d))

    def look(self, state: Factorization) -> Factorization:
        """Which atoms are without effect, where such atoms are replaced."""
        target, beta = self.target, self.settings.beta
        simple = target.smooth is None and target.penalties.ortho_z is None and target.penalties.ortho_d is None
        if not simple or beta != 2 or target.weights is not None or SOLVERS[self.settings.solver].keeps_zeros:
            return state
        none = without_effect(state.zt, state.d)
        xp = namespace(none)
        none = none if target.free is None else none & xp.any(target.free, axis=1)
        dead = xp.where(none, state.dead + 1, 0)
        return state._replace(dead=dead, stuck=xp.any(dead >= LOOKS_DEAD))

    def value(self, state: Factorization) -> Array:
        """The objective."""
        return objective(state.zt, state.d, self.target, self.settings.beta)

    def stop(self, before: Array, now: Array, state: Factorization) -> Array:
        """Whether the sweeps end, or have to wait."""
        return loop.relative_fall(before, now, self.tol) | state.stuck


@partial(jax.jit, static_argnames=("settings",))
def sweeps(
    now: Descent[Factorization],
    stop_at: Array | int,
    target: Target,
    settings: SolverSettings,
    tol: Array | float,
) -> Descent[Factorization]:
    """`fit` as far as no dead atom is to be replaced: where one is `stuck`, its descent waits."""
    whole = _Sweeps(target, settings, tol)

    def one(now: Descent[Factorization]) -> Descent[Factorization]:
        return loop.descend(now, stop_at, whole.step, whole.value, whole.stop, mend=whole.look, mend_first=True)

    return over_starts(one, now)


def _sweeps_on_host(
    now: Descent[Factorization], stop_at: int, target: Target, settings: SolverSettings, tol: float
) -> Descent[Factorization]:
    """`sweeps` of a `HostMatrix`, one start after the other."""
    whole = _Sweeps(target, settings, tol)

    def one(start: int) -> Descent[Factorization]:
        from_here = jax.tree.map(lambda x: np.asarray(x)[start], now)
        return loop.descend_on_host(from_here, stop_at, whole.on_host, whole.value, whole.stop, whole.look)

    return jax.tree.map(lambda *x: np.stack(x), *map(one, range(len(now.sweeps))))


@partial(jax.jit, static_argnames=("settings",))
def _with_dead_replaced(
    now: Descent[Factorization], target: Target, settings: SolverSettings, tol: Array | float
) -> Descent[Factorization]:
    """The descents of which `sweeps` left some waiting: atoms replaced, and the last look made again."""

    def one(now: Descent[Factorization]) -> Descent[Factorization]:
        state = now.state
        zt, d, more = _revive(state.zt, state.d, state.dead >= LOOKS_DEAD, target)
        value = objective(zt, d, target, settings.beta)
        converged = loop.relative_fall(now.history[now.looks - 2], value, tol)
        history = now.history.at[now.looks - 1].set(value, mode="drop")
        dead = jnp.where(without_effect(zt, d), state.dead, 0)
        state = Factorization(zt, d, dead, jnp.zeros_like(state.stuck), state.revived + more)
        waited = Descent(state, value, now.sweeps, history, now.looks, converged)
        return jax.tree.map(lambda new, old: jnp.where(now.state.stuck, new, old), waited, now)

    return over_starts(one, now)


def _revive(zt: Array, d: Array, dead: Array, target: Target) -> tuple[Array, Array, Array]:
    """Give each dead atom the positive part of the worst reconstructed sample, as long as the objective falls."""
    a, penalties = target.a, target.penalties

    def wanted(carry: tuple[Array, Array, Array, Array]) -> Array:
        return jnp.any(carry[2])

    def replace(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        zt, d, dead, count = carry
        j = jnp.argmax(dead)
        # A dead atom adds nothing to Z D: the residual is the same with and without it.
        row, along = _worst_row(a, zt, d)
        atom = jnp.maximum(row, 0)
        atom = atom if target.free is None else jnp.where(target.free[j], atom, d[j])
        curvature = jnp.sum(atom**2) + penalties.l2_z
        codes = jnp.maximum(along(atom) - penalties.l1_z, 0) / jnp.where(curvature > 0, curvature, 1)
        gain = 0.5 * curvature * jnp.sum(codes**2)
        cost = penalty(jnp.zeros_like(codes), atom, penalties) - penalty(zt[j], d[j], penalties)
        better = gain > cost
        zt = jnp.where(better, zt.at[j].set(codes), zt)
        d = jnp.where(better, d.at[j].set(atom), d)
        # The next candidate would be no better than this one.
        return zt, d, jnp.where(better, dead.at[j].set(False), jnp.zeros_like(dead)), count + better

    zt, d, _, count = lax.while_loop(wanted, replace, (zt, d, dead, jnp.zeros((), jnp.int32)))
    return zt, d, count


def _worst_row(a: Matrix, zt: Array, d: Array) -> tuple[Array, Callable[[Array], Array]]:
    """Row (p,) of the residual A - Z D with the largest norm, and the product of the residual with a vector (p,)."""
    if not isinstance(a, Sparse):
        rest = a - product(zt.T, d)
        worst = jax.nn.one_hot(jnp.argmax(jnp.sum(rest**2, axis=1)), a.shape[0], dtype=d.dtype)
        return product(worst, rest), lambda vector: product(rest, vector)
    squares = cast(Nonzeros, a).row_sums(power=2)
    errors = squares + jnp.sum(zt * (product(product(d, d.T), zt) - 2 * product(d, a.T)), axis=0)
    worst = jax.nn.one_hot(jnp.argmax(errors), a.shape[0], dtype=d.dtype)[None]
    row = product(worst, a)[0] - product(product(worst, zt.T), d)[0]
    return row, lambda vector: product(vector[None], a.T)[0] - product(product(vector[None], d.T), zt)[0]


def best_of(
    done: Descent[Factorization], target: Target, root: float
) -> tuple[Descent[Factorization], int, Array, np.ndarray]:
    """Of the fits from all starts the one with the least objective: itself, its number, its dictionary times `root`;
    and the divergences of all (r,), as numpy."""
    values = np.asarray(done.value, np.float64)
    best = int(np.argmin(np.where(np.isnan(values), np.inf, values)))
    chosen, d, others = _chosen(done, best, target._replace(a=None, weights=None), root)  # type: ignore[arg-type]
    return chosen, best, d, values - np.asarray(others)


@where_it_lies
def _chosen(
    done: Descent[Factorization], best: int, target: Target, root: float
) -> tuple[Descent[Factorization], Array, list[Array]]:
    zts, ds = done.state.zt, done.state.d
    others = [beside_divergence(zts[i], ds[i], target) for i in range(len(zts))]
    done = jax.tree.map(lambda x: x[best], done)
    return done, done.state.d * root, others


class Judgement(NamedTuple):
    """Of Z^T and D at the end of a fit: codes Z (n, k) in the unit of the data, divergence from A, how many atoms are
    without effect, norm of the projected gradient."""

    z: Array
    divergence: Array
    dead: Array
    gradient: Array


def judge(zt: Array, d: Array, target: Target, root: float, beta: float) -> Judgement:
    """Of Z^T (k, n) and D (k, p); the codes are multiplied with `root`."""
    here = beta == 2 and target.weights is None and target.smooth is None
    return (_judge if here else _judge.compiled)(zt, d, target, root, beta=beta)


@partial(where_it_lies, static=("beta",))
def _judge(zt: Array, d: Array, target: Target, root: float, beta: float) -> Judgement:
    gradient = projected_gradient_norm(zt, d, target, beta)
    return Judgement((zt * root).T, divergence(zt, d, target, beta), without_effect(zt, d).sum(), gradient)


def report_of(done: Descent[Factorization], history: np.ndarray, n_dead: int, gradients: tuple[float, float]) -> Report:
    """The report of one fit whose objectives were `history`, with so many atoms without effect at the end, and the
    norms of the projected gradient at the start and at the end."""
    change = (history[-2] - history[-1]) / (history[-2] if history[-2] > 0 else 1) if len(history) > 1 else np.inf
    first, last = gradients
    ended = bool(done.converged) or last == 0
    return Report(ended, int(done.sweeps), float(change), last / (first or 1.0), n_dead, int(done.state.revived))
