"""Gradients through codes: those of the exact solution, whatever the divergence, and finite where there is none."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.experimental.sparse import BCOO

from deepnmf_jax import NMF, ArchetypalAnalysis, ConvexNMF, Dn2MFGL, SemiNMF
from deepnmf_jax.decomposition.codes import Penalties, Settings, encode

N, P, STEP = 2, 6, 1e-6
BETAS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
QUICK = {(2.0, 9), (1.0, 9), (0.5, 4)}
CASES = [
    pytest.param(beta, k, marks=() if (beta, k) in QUICK else pytest.mark.slow) for beta in BETAS for k in (4, 9)
]
KINDS = ("plain", "zeros", "weights", "l1", "l2", "all")

Arguments = tuple[Array, Array, Array, Array, Array]


def arguments(kind: str, k: int, seed: int, smallest: float) -> Arguments:
    """A (N, P), D (k, P), both penalties and weights (N, P) of a problem of that kind."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    a, d = rng.random((N, P)) + 0.05, rng.random((k, P)) + 0.02
    q = np.ones((N, P))
    if kind in ("zeros", "all"):
        a[:, 2] = a[1, 4] = smallest
    if kind in ("weights", "all"):
        q = (0.2 + rng.random((N, P))) * (rng.random((N, P)) > 0.2)
    l1, l2 = 0.3 * (kind in ("l1", "all")), 0.2 * (kind in ("l2", "all"))
    return tuple(jnp.asarray(x, float) for x in (a, d, l1, l2, q))  # type: ignore[return-value]


def value(given: Arguments, c: Array, beta: float, max_iter: int = 300, tol: float = 1e-4) -> Array:
    a, d, l1, l2, q = given
    return jnp.sum(c * encode(a, d, Penalties(l1, l2), q, Settings("mu" if beta != 2 else "hals", beta), max_iter, tol))


@partial(jax.jit, static_argnames=("beta",))
def exact_differences(given: Arguments, c: Array, beta: float) -> Arguments:
    """Central differences of `value` at tight settings with respect to every number given."""
    flat, shaped = ravel_pytree(given)
    moves = STEP * jnp.concatenate([jnp.eye(flat.size), -jnp.eye(flat.size)])
    values = jax.vmap(lambda move: value(shaped(flat + move), c, beta, 20_000, 1e-13))(moves)
    return shaped((values[: flat.size] - values[flat.size :]) / (2 * STEP))


@partial(jax.jit, static_argnames=("beta",))
def gradients(given: Arguments, c: Array, beta: float, max_iter: int, tol: float) -> tuple[Arguments, Array]:
    """Of `value`: with respect to all that is given, and to c, which is the codes."""
    return jax.grad(value, argnums=(0, 1))(given, c, beta, max_iter, tol)


def slope(given: Arguments, z: np.ndarray, beta: float) -> np.ndarray:
    a, d, l1, l2, q = (np.asarray(x) for x in given)
    w = np.maximum(z @ d, 1e-50)
    return (q * w ** (beta - 2) * (w - a)) @ d.T + l1 + l2 * z


@pytest.mark.parametrize(("beta", "k"), CASES)
def test_gradients_are_those_of_the_exact_solution(beta: float, k: int) -> None:
    checked = 0
    for seed in range(2):
        for kind in KINDS:
            given = arguments(kind, k, seed, 0.0 if beta > 0 else 1e-3)
            c = jnp.asarray(np.random.default_rng(seed).random((N, k)))
            found = []
            for settings in ((300, 1e-4), (20_000, 1e-12)):
                some, codes = gradients(given, c, beta, *settings)
                found.append(some)
            assert all(np.isfinite(x).all() for some in found for x in some)
            z = np.asarray(codes)
            rest = slope(given, z, beta)
            assert (z >= 0).all() and np.abs(np.where(z > 0, rest, np.minimum(rest, 0))).max() < 1e-9
            seen = np.sum(np.asarray(given[4]) > 0, axis=1)
            ties = (z == 0) & (rest < 1e-4)
            if ties.any() or (float(given[3]) == 0 and (np.sum(z > 0, axis=1) >= seen).any()):
                continue  # There the codes are not a differentiable function of the data.
            expected = exact_differences(given, c, beta)
            # Outside of their domain the divergence is another function.
            inside = [np.asarray(given[0]) > STEP, True, float(given[2]) > 0, float(given[3]) > 0, given[4] > STEP]
            for tolerance, some in zip((1e-2, 1e-5), found, strict=True):
                for one, other, where in zip(some, expected, inside, strict=True):
                    error = np.abs(np.where(where, np.asarray(one) - other, 0))
                    assert error.max() <= tolerance * np.abs(np.where(where, other, 0)).max()
            checked += 1
    assert checked >= 4
