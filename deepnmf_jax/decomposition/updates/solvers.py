"""The solvers of NMF in one table, and one sweep of each: the codes, then with the new codes the dictionary."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
from jax import Array

from deepnmf_jax.core.checks import check_choice, check_integer, plain
from deepnmf_jax.decomposition.updates import hals, multiplicative, projected_gradient
from deepnmf_jax.decomposition.updates.beta_divergence import beta_of
from deepnmf_jax.decomposition.updates.objective import Half, Target


class SolverSettings(NamedTuple):
    """How a sweep is made; static under jit.

    solver: a name of `SOLVERS`. beta: 2 squared error; any other is minimised by "mu". inner: repeats of the column
    loop of "hals" and of the update of "mu" for each product with A.
    """

    solver: str = "hals"
    beta: float = 2.0
    inner: int = 1


class Solver(NamedTuple):
    """An entry of `SOLVERS`.

    step: makes of one half (see `objective.Half`) the function that improves its X (k, m); the objective does not rise.
    any_beta: whether it minimises other divergences than the squared error. keeps_zeros: whether an entry that is 0
    stays 0. batches: whether data may come in batches for the squared
    error. codes_by: the solver that finds codes for a fixed dictionary.
    """

    step: Callable[[Half, SolverSettings], Callable[[Array], Array]]
    any_beta: bool = False
    keeps_zeros: bool = False
    batches: bool = True
    codes_by: str = "hals"


SOLVERS = {
    "hals": Solver(lambda half, how: hals.hals_step(half, how.inner)),
    "mu": Solver(
        lambda half, how: multiplicative.multiplicative_step(half, how.beta, how.inner),
        any_beta=True,
        keeps_zeros=True,
        batches=False,
    ),
    "anls": Solver(lambda half, how: hals.anls_step(half)),
    "pgd": Solver(lambda half, how: projected_gradient.projected_gradient_step(half), codes_by="pgd"),
}


def settings_of(solver: Any, beta_loss: Any, inner_iter: Any = 1) -> SolverSettings:
    """The settings of the arguments of an estimator.

    Raises:
        ValueError: one of them is outside what it allows; the solver does not minimise this divergence.
    """
    name = check_choice("solver", solver, tuple(SOLVERS))
    settings = SolverSettings(name, beta_of(plain(beta_loss)), check_integer("inner_iter", inner_iter, 1))
    if settings.beta != 2 and not SOLVERS[settings.solver].any_beta:
        raise ValueError(
            f"beta = {settings.beta:g} needs solver = {_those(lambda s: s.any_beta)}; {settings.solver!r} minimises "
            "the squared error"
        )
    return settings


def check_batches(settings: SolverSettings) -> None:
    """ValueError where the data cannot come in batches."""
    if settings.beta == 2 and not SOLVERS[settings.solver].batches:
        raise ValueError(
            f"batches for the squared error are for solver {_those(lambda s: s.batches)}; this is solver = "
            f"{settings.solver!r}: take another one, or pass one matrix"
        )


def _those(allowed: Callable[[Solver], bool]) -> str:
    return " or ".join(repr(name) for name, solver in SOLVERS.items() if allowed(solver))


def step_of(half: Half, settings: SolverSettings) -> Callable[[Array], Array]:
    """X (k, m) -> a better X for this half; what does not depend on X is computed once."""
    solver = SOLVERS[settings.solver]
    return (solver if settings.beta == 2 or solver.any_beta else SOLVERS["mu"]).step(half, settings)


@partial(jax.jit, static_argnames=("settings",))
def improved(x: Array, half: Half, settings: SolverSettings) -> Array:
    """`step_of` this half, compiled."""
    return step_of(half, settings)(x)


def settings_for_codes(settings: SolverSettings) -> SolverSettings:
    """How codes for a fixed dictionary are found, where the factorization is made as in `settings`."""
    if settings.beta != 2:
        return settings
    return settings._replace(solver=SOLVERS[settings.solver].codes_by, inner=1)


def sweep(
    zt: Array,
    d: Array,
    target: Target,
    settings: SolverSettings = SolverSettings(),  # noqa: B008 - immutable
) -> tuple[Array, Array]:
    """One step of a solver: Z^T (k, n), D (k, p) -> the next Z^T, D. The objective does not rise."""
    zt = step_of(target.for_codes(d), settings)(zt)
    return zt, step_of(target.for_dictionary(zt), settings)(d)
