"""The forward of inference: plain and accelerated iterations, and when they stop.

All methods are made of pairs of products, R = h w and q = (x / R) w^T; `num_iters` counts the pairs. They see x and w
through a `Problem` alone, so that the kernel (`deepnmf_jax.core.kernels`) runs these same lines on a tile of x.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from deepnmf_jax.core.dtypes import plain
from deepnmf_jax.core.normalization import divisible, row_sums, sums_by_product
from deepnmf_jax.core.updates import em_factor, em_update, explained, product, ratio, right_operand

ACCELERATIONS = ("none", "adaptive", "multistep")
PRODUCTS = ("full", "tf32", "bfloat16")
IMPLEMENTATIONS = ("xla", "pallas", "interpret")

# "adaptive" goes half the predicted way to the lowest point, and no more than four times as far as the step before.
CAUTION, GROWTH = 0.5, 4.0
# Of log h in a step of "multistep", either way: small enough that the square of a sum of such h is no 0 in float32.
MOST_GROWTH = 30.0
# Below so many entries of x, two loops cost more than they keep a second core busy.
SMALLEST_SPLIT = 1 << 20


class Settings(NamedTuple):
    """How a code is inferred: the arguments of `deepnmf_jax.infer`, which explains them, and their defaults.

    `infer` itself and the modules' `InferenceFields` write them out once more, for readers; a test holds all equal.
    """

    num_iters: int = 20
    epsilon: float = 1.0
    gradient: str = "approximate"
    cg_steps: int = 4
    acceleration: str = "none"
    exponent: float = 8.0
    tolerance: float = 0.0
    products: str = "full"
    implementation: str = "xla"


_Settings = TypeVar("_Settings", bound=tuple)


def python_numbers(settings: _Settings) -> _Settings:
    """The settings with Python's numbers in place of scalars of numpy and JAX, whose dtype would reach the result."""
    return type(settings)(*map(plain, settings))


def plain_steps(settings: Settings) -> float:
    """How many plain steps of size 1 the iterations go about as far as; of "adaptive" and of a tolerance, which the
    inputs decide on, the number of iterations."""
    if settings.acceleration == "multistep":
        return 1 + settings.exponent * (settings.num_iters - 1)
    return settings.epsilon * settings.num_iters


class Problem(NamedTuple):
    """What the iterations see of x (..., n) and w (k, n)."""

    units: int  # k
    start: Array  # h(0) = 1/k, or 0 for a row of zeros, which no activity explains (..., k)
    total: Array  # sums of x over the inputs that w has (..., 1)
    first: Callable[[], Array]  # q at h(0), half a pair (..., k)
    factor: Callable[[Array], Array]  # q at h, a pair (..., k)
    sums: Callable[[Array], Array] = partial(jnp.sum, axis=-1, keepdims=True)  # of rows (..., k) -> (..., 1)


def iterate(x: Array, w: Array, settings: Settings) -> Array:
    """The code h of x after the iterations that the settings ask for. x (..., n), w (k, n), one dtype -> h (..., k)."""

    def run(x: Array) -> Array:
        h = solve(_problem(x.reshape(-1, x.shape[-1]), w, settings.products), settings)
        return h.reshape(*x.shape[:-1], w.shape[0])

    # XLA's CPU backend runs independent loops side by side, and so one's products beside the other's divisions. The
    # first axis is left whole: a batch may be spread over devices.
    sides = [size for size in x.shape if isinstance(size, int)]  # all but those that jax.export leaves open
    if jax.default_backend() == "cpu" and len(sides) == x.ndim > 2 and x.shape[1] > 1 and x.size >= SMALLEST_SPLIT:
        halves = jnp.array_split(x, 2, axis=1)
        return jnp.concatenate([run(half) for half in halves], axis=1)
    return run(x)


def solve(problem: Problem, settings: Settings) -> Array:
    """h after the iterations that the settings ask for, by the problem's own products."""
    if settings.acceleration != "none" or settings.tolerance:
        return _guarded(problem, settings)
    return _plain(problem, settings) if settings.epsilon == 1.0 else _damped(problem, settings)


def _problem(x: Array, w: Array, products: str) -> Problem:
    forth, back = right_operand(w, products), right_operand(w.T, products)
    return Problem(
        w.shape[0],
        uniform_start(x, w.shape[0]),
        explained(x, w),
        lambda: product(x, first_weights(w).T, products),
        lambda h: em_factor(x, forth, h, products, transposed=back),
        sums_by_product,
    )


def uniform_start(x: Array, k: int) -> Array:
    """h(0) = 1/k for each row of x (..., n), and 0 for a row of zeros: -> (..., k)."""
    has_input = jnp.any(x > 0, axis=-1, keepdims=True)
    return jnp.broadcast_to(jnp.where(has_input, 1.0 / k, 0.0), (*x.shape[:-1], k)).astype(x.dtype)


def first_weights(w: Array) -> Array:
    """w / R at h = 1/k, where R is the mean row of w, so that q = x (w / R)^T is half a pair. w (k, n) -> (k, n)."""
    return ratio(w, jnp.mean(w, axis=0, keepdims=True))


def _plain(p: Problem, settings: Settings) -> Array:
    """EM steps. h * q does not depend on the scale of h, so that one normalisation at the end does for all."""
    h = p.first() / p.units
    h = jax.lax.fori_loop(0, settings.num_iters - 1, lambda _, h: h * p.factor(h), h)
    return h / row_sums(h)


def _damped(p: Problem, settings: Settings) -> Array:
    """EM steps of a size below 1, which need the sum of h to be 1 before each."""

    def step(_: Array, h: Array) -> Array:
        return em_update(h, p.factor(h), settings.epsilon)

    return jax.lax.fori_loop(0, settings.num_iters, step, p.start)


class _State(NamedTuple):
    """A point h whose factor q is known, and the exponent of the next step; rows are independent."""

    pairs: Array
    h: Array
    q: Array
    exponent: Array
    resting: Array
    trail: tuple[Array, Array] | None  # of "multistep": log q a step before, and how many plain steps that was


def _guarded(p: Problem, settings: Settings) -> Array:
    """Steps as long as several plain ones; each row keeps the best point it was sure of, and an EM step ends them.

    The guard needs no logarithm. KL is convex in h with gradient 1 - q, so a candidate c is no worse than the plain
    step e if the KL does not fall from c towards e: sum_i q_i(c) (e_i - c_i) <= 0, where sum_i q_i(c) c_i = 1. A row
    whose candidate fails takes e next, which never raises the KL. So each pair more can only improve.

    That holds where what w explains of x sums to 1. The q of any row divided by that sum are those of such a row.
    """
    weight, dtype = 1 / divisible(p.total), p.total.dtype
    slack = 4 * jnp.finfo(dtype).eps
    limit = jnp.exp(jnp.asarray(settings.tolerance, dtype) * weight)

    def rests(q: Array) -> Array:
        return (jnp.max(q, axis=-1, keepdims=True) <= limit) & (settings.tolerance > 0)

    def step(s: _State) -> _State:
        e = s.h * s.q  # sums to 1 as it is
        c = _candidate(p, s, settings)
        q = p.factor(c) * weight
        # A plain step is kept unasked, because it cannot raise the KL.
        kept = (s.exponent <= 1) | (p.sums(q * e) <= 1 + slack)
        # How fast the KL falls along c - h, at h and at c.
        falls_at_h = p.sums(s.q * c) - 1
        falls_at_c = 1 - p.sums(q * s.h)
        exponent = jnp.where(kept, _next_exponent(s.exponent, falls_at_h, falls_at_c, settings), 1)
        moves = kept & ~s.resting
        h, q = jnp.where(moves, c, s.h), jnp.where(moves, q, s.q)
        trail = s.trail and (jnp.where(moves, _log(s.q), s.trail[0]), jnp.where(moves, s.exponent, s.trail[1]))
        # The row rests if the point that was kept is good enough; that need not be the candidate.
        return _State(s.pairs + 1, h, q, exponent, rests(q), trail)

    def goes_on(s: _State) -> Array:
        # A largest value in place of `any`, which Pallas does not lower; of no rows it is 0.
        return (s.pairs < settings.num_iters) & (jnp.max(jnp.where(s.resting, 0, 1), initial=0) > 0)

    q = p.first() * weight
    exponent = jnp.full_like(weight, _kept_exponent(settings))
    # Nothing is known of the time before the start: a change over endlessly many steps.
    trail = (jnp.zeros_like(q), jnp.full_like(weight, jnp.inf)) if settings.acceleration == "multistep" else None
    start = _State(jnp.int32(1), p.start, q, exponent, rests(q), trail)
    if settings.tolerance:
        end = jax.lax.while_loop(goes_on, step, start)
    else:
        end = jax.lax.fori_loop(0, settings.num_iters - 1, lambda _, s: step(s), start)
    return em_update(end.h, end.q)


def _next_exponent(exponent: Array, falls_at_h: Array, falls_at_c: Array, settings: Settings) -> Array:
    """Of a row whose step was kept. "adaptive": where a straight line through the two slopes reaches 0 (secant)."""
    if settings.acceleration != "adaptive":
        return jnp.full_like(exponent, _kept_exponent(settings))
    bend = falls_at_h - falls_at_c
    straight = bend <= jnp.finfo(bend.dtype).eps
    farther = jnp.where(straight, GROWTH, CAUTION * falls_at_h / jnp.where(straight, 1, bend))
    # The power of two below, so that q^exponent is a few squares.
    wanted = exponent * jnp.clip(farther, 1 / settings.exponent, GROWTH)
    powers = [2.0**i for i in range(1, _doublings(settings) + 1)]
    return sum([jnp.where(wanted >= p, p / 2, 0) for p in powers], start=jnp.ones_like(wanted))


def _kept_exponent(settings: Settings) -> float:
    """Of the first step, and of each after one that was kept unless "adaptive" chooses it."""
    return settings.exponent if settings.acceleration == "multistep" else 1.0


def _candidate(p: Problem, s: _State, settings: Settings) -> Array:
    """Where the next pair is taken, rows summing to 1; the EM step where the exponent is 1."""
    if settings.acceleration == "none":
        return em_update(s.h, s.q)
    if s.trail is None:
        h = s.h * _power(s.q, s.exponent, settings)
    else:
        h = s.h * _foreseen(s.q, s.exponent, *s.trail)
    return h / divisible(p.sums(h))


def _foreseen(q: Array, exponent: Array, before: Array, stride: Array) -> Array:
    """The product of the factors of about the next `exponent` plain steps, up to a number a row: log q is taken to
    change from step to step as it did before. Growth that no float holds is cut: any candidate will do."""
    a, now = exponent, _log(q)
    growth = a * now + (a * (a - 1) / 2 / stride) * (now - before)
    return jnp.exp(jnp.clip(growth, -MOST_GROWTH, MOST_GROWTH))


def _log(q: Array) -> Array:
    # The floor bounds the derivative, by which the unrolled gradient multiplies.
    return jnp.log(jnp.maximum(q, float(jnp.finfo(q.dtype).tiny) ** 0.5))


def _doublings(settings: Settings) -> int:
    return int(math.log2(settings.exponent))


def _power(q: Array, exponent: Array, settings: Settings) -> Array:
    """q^exponent, a power of two. Larger factors than that can hold are cut: any candidate will do."""
    power = jnp.minimum(q, float(jnp.finfo(q.dtype).max) ** (0.8 / settings.exponent))
    for i in range(1, _doublings(settings) + 1):
        power = jnp.where(exponent >= 2.0**i, power * power, power)
    return power
