"""Codes Z for a fixed dictionary D: deterministic, and differentiable with respect to data, dictionary and penalties.

For squared error and for beta between 1 and 2 the problem is convex: the codes are a function of A and D. They start
at 0 (multiplicative rule: at a positive constant), so that no seed enters.
"""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental.sparse import BCOO

from deepnmf_jax.core.checks import is_concrete
from deepnmf_jax.decomposition.io.host_matrix import HostMatrix
from deepnmf_jax.decomposition.io.nonzeros import Nonzeros, nonzeros_of
from deepnmf_jax.decomposition.updates.conjugate import conjugate_step
from deepnmf_jax.decomposition.updates.derivative import Problem, follow
from deepnmf_jax.decomposition.updates.loop import Descent, descend, in_view
from deepnmf_jax.decomposition.updates.newton import newton_step
from deepnmf_jax.decomposition.updates.objective import Half, Penalties, Target
from deepnmf_jax.decomposition.updates.search import gradient_left, is_rounding, lands, start_of
from deepnmf_jax.decomposition.updates.solvers import SolverSettings, settings_for_codes, step_of

__all__ = ["CodesReport", "Penalties", "Settings", "encode", "solve_codes"]

# What `encode` and `solve_codes` are given: `Penalties`, and how codes are found.
Settings = SolverSettings
# Sweeps between two looks at the projected gradient.
CHECK_EVERY = 5
# The codes are solved this much sharper than the tolerance of the estimator.
SHARPER = 1e-2


class CodesReport(NamedTuple):
    """How the search for codes ended: sweeps made, whether the tolerance was reached, projected gradient left.

    The gradient is relative: per sample, to the largest one at Z = 0, or for the multiplicative rule to the largest of
    its negative part at the start; the largest over the samples counts.
    """

    iterations: Array
    converged: Array
    residual: Array


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

    Squared error is solved by coordinate descent, whatever solver found D, or with "pgd" by accelerated gradients, both
    with conjugate gradients on the positive codes between the sweeps; other divergences by the multiplicative rule,
    with Newton steps between its sweeps for up to 128 atoms. Not differentiable in reverse: see `encode`.
    """
    matrix = in_blocks(a, d, settings) if isinstance(a, BCOO) else a
    half = Target(matrix, penalties, weights).for_codes(d)
    found = search(None, max_iter, half, settings, tol)
    return found.state, CodesReport(found.sweeps, found.converged & ~jnp.isnan(found.value), found.value)


def search(
    start: Array | Descent[Array] | None,
    stop_at: Array | int,
    half: Half,
    settings: SolverSettings,
    tol: Array | float,
) -> Descent[Array]:
    """`solve_codes` from the beginning, Z^T given, or where an earlier search ended, until `stop_at` sweeps in all.

    The value of the descent is not the objective but the projected gradient left, as `CodesReport` has it.
    """
    dtype = half.dtype
    left = gradient_left(half, settings.beta)
    goal = jnp.maximum(SHARPER * jnp.asarray(tol, dtype), 32 * jnp.finfo(dtype).eps)
    goal = jnp.where(jnp.asarray(tol) > 0, goal, 0)
    landing = lands(settings, half.shape[0]) and half.plain

    def stop(before: Array, now: Array, _: Array) -> Array:
        return ~(now > goal) | (landing & (goal > 0) & is_rounding(before, now))

    how = settings_for_codes(settings)
    if half.smooth is not None and settings.beta == 2:
        # Where samples are bound to one another, accelerated gradients are far faster than coordinate descent.
        how = how._replace(solver="pgd")
    step = step_of(half, how)
    squared = half.has_gram(settings.beta) and half.smooth is None
    mend = conjugate_step(half) if squared else newton_step(half, settings.beta) if landing else None
    begin = start_of(half, settings.beta != 2) if start is None else start
    # Conjugate gradients are also a good start from 0.
    return descend(begin, stop_at, step, left, stop, every=CHECK_EVERY, mend=mend, mend_first=squared)


def find_codes(
    target: Target,
    d: Array,
    settings: SolverSettings,
    max_iter: int,
    tol: float,
    report: Callable[[int, float], None] | None = None,
    start: Array | None = None,
) -> Array:
    """`solve_codes` compiled, Z^T alone, from Z^T given or from the beginning.

    `report` is called as in `loop.in_view`, with the projected gradient left.
    """
    half = target.for_codes(d)
    if isinstance(half.a, HostMatrix):
        half = half.with_products()
    compiled = partial(_compiled_search, half=half, settings=settings, tol=tol)
    return in_view(compiled, _given_zeros(start, half, settings, jnp.zeros), max_iter, report).state


def _given_zeros(start: Any, half: Half, settings: SolverSettings, zeros: Callable[..., Any]) -> Any:
    """The start; where there is none and the search begins at 0, zeros in its place: given, as the codes of a fit are,
    they have one program serve both. `zeros` makes them, or stands for them, of a shape and a dtype."""
    if start is not None or settings.beta != 2:
        return start
    return zeros(half.shape, half.dtype)


@contextlib.contextmanager
def compiled_meanwhile(
    target: Target, like: tuple[Array | None, Array], settings: SolverSettings, max_iter: int, tol: float
) -> Iterator[None]:
    """Within this block XLA compiles `find_codes`, on a core of its own; what it has compiled costs nothing more.

    The start (None: from the beginning) and the dictionary to come have shape and dtype of those of `like`. Where data
    lie on chosen devices, their place is not known before, and nothing is done.
    """
    if any(getattr(leaf, "committed", False) for leaf in jax.tree.leaves(target)):
        yield
        return
    start, d = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), like)
    half = _half_to_come(target, d)
    start = _given_zeros(start, half, settings, jax.ShapeDtypeStruct)
    lowered = _compiled_search.lower(start, max_iter, half=half, settings=settings, tol=tol)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lowered.compile)
        yield


def _half_to_come(target: Target, d: jax.ShapeDtypeStruct) -> Half:
    """What `find_codes` makes of a dictionary of this shape and dtype."""
    k, n = d.shape[0], target.a.shape[0]

    def of(*shape: int) -> Any:
        return jax.ShapeDtypeStruct(shape, d.dtype)

    half = target._replace(smooth=None).for_codes(d)  # type: ignore[arg-type]
    if target.smooth is not None:
        half = half._replace(smooth=target.smooth._replace(strength=of(k, 1)))
    if not isinstance(half.a, HostMatrix):
        return half
    return half._replace(f=None, a=None, made=(of(k, n), of(k, k)))  # type: ignore[arg-type]


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

    Differentiable forwards and in reverse, any number of times, by the implicit function theorem: near a solution whose
    zeros have a positive slope, the positive entries solve a smooth system of equations and the zeros stay. The
    derivative is that of the exact solution; for squared error the codes are finished for it where `tol` ends before.
    It is with respect to A, D, the penalties of the codes and the weights; where entries are at the edge of both (ties)
    one side is taken, of several minima the one found, and along flat directions (more active atoms than features) the
    shortest change. Sparse A: none, a ValueError; for another divergence than the squared error it may not be traced
    either.

    Weights are (n, p), or (n,) or (n, 1) for whole samples. ValueError for other shapes, and for an `ortho_z`, of
    which there is no derivative.
    """
    if penalties.ortho_z is not None:
        raise ValueError(
            "codes with an overlap penalty (ortho_W) have no derivative, and cannot be found inside jit, grad or vmap; "
            "call encode outside, or fit without it"
        )
    sparse = isinstance(a, BCOO)
    matrix: Any = a if sparse else jnp.asarray(a)
    d = jnp.asarray(d)
    dtype = jnp.result_type(matrix.dtype, d.dtype, jnp.float32)
    matrix, d, l1, l2 = matrix.astype(dtype), *(jnp.asarray(x, dtype) for x in (d, *penalties[:2]))
    if weights is not None:
        weights = weights_as_matrix(jnp.asarray(weights, dtype), matrix.shape)
    if sparse:
        matrix = in_blocks(matrix, d, settings)
    half = Target(matrix, Penalties(l1, l2), weights).for_codes(d)
    found = _compiled_search(None, *lax.stop_gradient((max_iter, half)), settings, lax.stop_gradient(tol)).state.T
    if sparse:
        return _without_derivative(found, (jax.tree.leaves(matrix), d, l1, l2))
    return follow(found, Problem(matrix, d, l1, l2, weights), settings)


@jax.custom_jvp
def _without_derivative(z: Array, given: tuple) -> Array:
    return z


@_without_derivative.defjvp
def _refuse_derivative(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    raise ValueError("codes of a sparse A have no derivative; write it out with A.todense()")


def in_blocks(a: BCOO, d: Array, settings: Settings) -> BCOO | Nonzeros:
    """A sparse A (n, p) as the search for codes for D (k, p) needs it; where A is traced, as it is for squared error.

    Raises:
        ValueError: A is traced, and beta is not 2; a beta of 0 or less, infinite where A is 0.
    """
    if not is_concrete(a.data, a.indices):
        if settings.beta == 2:
            return a
        raise ValueError(
            f"codes of a sparse A for beta = {settings.beta:g} need its entries, but A is traced by jax.jit, grad or "
            "vmap; call this outside, or write A out with A.todense()"
        )
    if settings.beta <= 0:
        raise ValueError(f"A has zeros, for which the divergence of beta = {settings.beta:g} is infinite")
    return nonzeros_of(a, len(d), settings.beta != 1, both=False)


def weights_as_matrix(weights: Array, shape: tuple[int, ...]) -> Array:
    """Weights (n, p), (n, 1) or (n,) of samples for A of `shape` as (n, p). ValueError for others."""
    if weights.shape == shape[:1]:
        weights = weights[:, None]
    if weights.shape not in (shape, (shape[0], 1)):
        raise ValueError(
            f"weights have shape {weights.shape} and A {shape}; they must be of the same shape, or (n,) or (n, 1) with "
            "one weight a sample"
        )
    return jnp.broadcast_to(weights, shape)


_compiled_search = jax.jit(search, static_argnames=("settings",))
