"""The loop of every factorization: sweeps in one `lax.while_loop`, ten between two looks at the objective.

Each factorization says what a sweep is, what the objective, and when to stop. `tol` means one thing in each rule; over
ten sweeps the objective fell by less than

    NMF, SymmetricNMF              tol times what it was (`relative_fall`)
    SemiNMF, ConvexNMF, archetypes 0.01 tol ||A||^2 / 2 (`small_fall`)
    Dn2MFGL                        tol times what it is, or it fell below 0 (`dn2mfgl.fit`)

and codes for a fixed dictionary look at the projected gradient instead (`codes.solve_codes`). tol = 0 never stops.
"""

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from deepnmf_jax.decomposition.io.host import namespace

CHECK_EVERY = 10

StateT = TypeVar("StateT")
T = TypeVar("T")
# Of the value at the look before, the value now, and the state: whether to end.
Rule = Callable[[Array, Array, StateT], Array]


class Descent(NamedTuple, Generic[StateT]):
    """Where a descent stands.

    state: what the sweeps change. value () of the objective at the last look. sweeps () made. history (h,): the values
    at the start and at every look, as far as there is room; NaN where not reached. looks (): how many of them there
    were. converged (): whether the rule has ended it.
    """

    state: StateT
    value: Array
    sweeps: Array
    history: Array
    looks: Array
    converged: Array


def history_length(max_iter: int) -> int:
    """Entries of the history for that many sweeps; in steps of 64, so that few limits share one compilation."""
    return 64 * (-(-(max_iter // CHECK_EVERY + 2) // 64))


def descend(
    start: StateT | Descent[StateT],
    stop_at: Array | int,
    sweep: Callable[[StateT], StateT],
    value: Callable[[StateT], Array],
    stop: Rule[StateT],
    *,
    length: int = 1,
    mend: Callable[[StateT], StateT] | None = None,
    mend_first: bool = False,
    every: int = CHECK_EVERY,
) -> Descent[StateT]:
    """Sweeps from a first state, or from where an earlier descent ended, until `stop` says so or `stop_at` are made.

    Args:
        start: a first state, or what `descend` returned.
        stop_at: sweeps in all.
        sweep: one step of all factors.
        value: the objective, looked at before the first sweep and after every `every` sweeps.
        stop: the rule that ends it; before the first sweep it is asked with an infinite value before.
        length: entries of the history.
        mend: what is done to the state before each look but the first; None: nothing.
        mend_first: whether it is done before the first look too.
        every: sweeps between two looks.
    """

    def running(now: Descent[StateT]) -> Array:
        return (now.looks == 0) | (now.sweeps < stop_at) & ~now.converged

    def some_sweeps(now: Descent[StateT]) -> Descent[StateT]:
        # The first look is one of the loop, so that the objective is compiled once.
        first = now.looks == 0
        count = jnp.minimum(every - now.sweeps % every, stop_at - now.sweeps) if every > 1 else 1
        count = jnp.where(first, 0, count)
        state = lax.fori_loop(0, count, lambda _, state: sweep(state), now.state)
        if mend is not None:
            state = mend(state) if mend_first else lax.cond(first, lambda state: state, mend, state)
        new = value(state)
        history = now.history.at[now.looks].set(new, mode="drop")
        return Descent(state, new, now.sweeps + count, history, now.looks + 1, stop(now.value, new, state))

    if not isinstance(start, Descent):
        floats = [x.dtype for x in jax.tree.leaves(start) if jnp.issubdtype(x.dtype, jnp.floating)]
        dtype, none = jnp.result_type(*floats), np.int32(0)
        nothing: Any = np.asarray(np.inf, dtype), none, np.full(length, np.nan, dtype), none, np.False_
        start = jax.tree.map(jnp.asarray, Descent(start, *nothing))
    return lax.while_loop(running, some_sweeps, cast(Descent[StateT], start))


def descend_on_host(
    now: Descent[StateT],
    stop_at: int,
    sweep: Callable[[StateT], StateT],
    value: Callable[[StateT], Any],
    stop: Rule[StateT],
    mend: Callable[[StateT], StateT] | None = None,
) -> Descent[StateT]:
    """`descend`, from where a descent stands, for sweeps that are not compiled as a whole; `mend` is done first too."""
    state, last, history = now.state, np.asarray(now.value), np.array(now.history)
    sweeps, looks, converged = int(now.sweeps), int(now.looks), bool(now.converged)
    while looks == 0 or (sweeps < stop_at and not converged):
        count = min(CHECK_EVERY - sweeps % CHECK_EVERY, stop_at - sweeps) if looks else 0
        for _ in range(count):
            state = sweep(state)
        state = state if mend is None else mend(state)
        # An objective that is infinite or no number is told by those who look at the result.
        with np.errstate(all="ignore"):
            before, last = last, np.asarray(value(state), history.dtype)
            converged = bool(stop(before, last, state))  # type: ignore[arg-type]
        history[looks : looks + 1] = last
        sweeps, looks = sweeps + count, looks + 1
    return Descent(state, last, np.int32(sweeps), history, np.int32(looks), np.bool_(converged))  # type: ignore[arg-type]


def relative_fall(before: Array, now: Array, tol: Array | float) -> Array:
    """Whether the objective fell by less than tol times what it was. tol = 0: never.

    Relative to the objective, not to ||A||^2: where the error is a tenth of A, the same tol would else stop a hundred
    times earlier. The size of the projected gradient says little: it depends on the start, and multiplicative updates
    leave much of it at entries near 0.
    """
    xp = namespace(before, now)
    return ((before - now) / xp.where(before > 0, before, 1) < tol) & (xp.asarray(tol) > 0)


def small_fall(tol: Array | float, unit: Array) -> Rule:
    """The rule that ends when the objective falls by less than 0.01 tol `unit`, and at once if that is 0. tol = 0:
    never.

    For factorizations that have no projected gradient to look at, and so for a fall that is small against the data.
    """
    return lambda before, now, _: ((jnp.asarray(tol) > 0) & (before - now < 1e-2 * tol * unit)) | (unit == 0)


def over_starts(function: Callable[[T], Descent[StateT]], starts: T) -> Descent[StateT]:
    """`function` of factors or a descent, at `starts` with a leading axis of them; so has the result.

    One start is not mapped, so that its branches stay branches.
    """
    if len(jax.tree.leaves(starts)[0]) > 1:
        return jax.vmap(function)(starts)
    return jax.tree.map(lambda x: x[None], function(jax.tree.map(lambda x: x[0], starts)))


def in_view(
    advance: Callable[[T | Descent[StateT], int], Descent[StateT]],
    start: T | Descent[StateT],
    max_iter: int,
    report: Callable[[int, float], None] | None,
) -> Descent[StateT]:
    """`advance`, a compiled `descend`, from `start` to `max_iter` sweeps: at once, or by tens if there is a `report`.

    `report` is called with the sweeps made and the smallest objective of all starts. The result is the same.
    """
    if report is None:
        return advance(start, max_iter)
    for stop_at in (*range(CHECK_EVERY, max_iter, CHECK_EVERY), max_iter):
        now = advance(start, stop_at)
        report(int(np.max(np.asarray(now.sweeps))), float(np.nanmin(np.asarray(now.value))))
        if np.all(np.asarray(now.converged)):
            break
        start = now
    return now
