"""Gradients through codes: those of the exact solution, whatever the divergence, and finite where there is none."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from jax.experimental.sparse import BCOO
from jax.flatten_util import ravel_pytree

from deepnmf_jax import NMF, ArchetypalAnalysis, ConvexNMF, Dn2MFGL, SemiNMF
from deepnmf_jax.decomposition.codes import Penalties, Settings, encode

N, P, STEP = 2, 6, 1e-6
BETAS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
# Fewer atoms than features, and more, for the squared error, Kullback-Leibler and one of the others.
CASES = [(2.0, 4), (2.0, 9), (1.0, 4), (1.0, 9), (1.5, 4), (1.5, 9), (0.0, 9), (0.5, 4), (3.0, 9)]
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
    values = jax.vmap(lambda move: value(shaped(flat + move), c, beta, 1000, 1e-13))(moves)
    return shaped((values[: flat.size] - values[flat.size :]) / (2 * STEP))


@partial(jax.jit, static_argnames=("beta",))
def gradients(given: Arguments, c: Array, beta: float, max_iter: int, tol: float) -> tuple[Arguments, Array]:
    """Of `value`: with respect to all that is given, and to c, which is the codes."""
    return jax.grad(value, argnums=(0, 1))(given, c, beta, max_iter, tol)


def slope(given: Arguments, z: np.ndarray, beta: float) -> np.ndarray:
    a, d, l1, l2, q = (np.asarray(x) for x in given)
    w = np.maximum(z @ d, 1e-50)
    return (q * w ** (beta - 2) * (w - a)) @ d.T + l1 + l2 * z


@pytest.mark.slow
@pytest.mark.parametrize(("beta", "k"), CASES)
def test_gradients_are_those_of_the_exact_solution(beta: float, k: int) -> None:
    checked = 0
    for seed in range(2):
        for kind in KINDS:
            given = arguments(kind, k, seed, 0.0 if beta > 0 else 1e-3)
            c = jnp.asarray(np.random.default_rng(seed).random((N, k)))
            found = []
            for settings in ((300, 1e-4), (1000, 1e-12)):
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


@pytest.mark.slow
@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0, 3.0])
def test_second_derivatives_forwards_and_in_reverse(beta: float) -> None:
    a, d, l1, l2, q = arguments("l2", 4, 0, 0.0)

    def of_dictionary(d: Array) -> Array:
        return value((a, d, l1, l2, q), jnp.ones((N, 4)), beta, 1000, 1e-13) ** 2

    first = jax.jit(jax.grad(of_dictionary))
    along = jnp.asarray(np.random.default_rng(0).standard_normal(d.shape))
    expected = (first(d + STEP * along) - first(d - STEP * along)) / (2 * STEP)
    reverse = jax.jit(jax.grad(lambda d: jnp.sum(jax.grad(of_dictionary)(d) * along)))(d)
    forward = jax.jit(lambda d: jax.jvp(jax.grad(of_dictionary), (d,), (along,))[1])(d)
    for found in (reverse, forward):
        np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("beta", [pytest.param(beta, marks=() if beta == 3 else pytest.mark.slow) for beta in BETAS])
def test_gradients_are_finite_in_float32_where_codes_are_no_function_of_the_data(beta: float) -> None:
    rng = np.random.default_rng(3)
    a, d, q = rng.random((5, P)), rng.random((9, P)), np.ones((5, P))
    d[1] = d[0]
    d[2] = 0
    a[1], a[2] = 3 * d[0], 1e-6 * a[2]
    q[3] = 0
    if beta > 0:
        a[0, 1], a[4] = 0, 0
    given = tuple(jnp.asarray(x, jnp.float32) for x in (a, d, 0.0, 0.0, q))
    some, codes = gradients(given, jnp.ones((5, 9), jnp.float32), beta, 300, 1e-4)
    assert codes.dtype == jnp.float32 and all(np.isfinite(x).all() for x in (*some, codes))
    # The reconstruction is a function of the data, though the codes are none: on the ray of an atom it is that atom.
    np.testing.assert_allclose(codes[1] @ d, a[1], rtol=1e-3)
    assert float(jnp.sum(some[0][1] * a[1])) == pytest.approx(float(jnp.sum(codes[1])), rel=1e-2)


def test_gradients_map_over_samples() -> None:
    a, d, *_ = arguments("l2", 4, 1, 0.0)
    whole = jax.jit(jax.grad(lambda a: jnp.sum(encode(a, d) ** 2)))(a)
    rows = jax.jit(jax.vmap(jax.grad(lambda row: jnp.sum(encode(row[None], d) ** 2))))(a)
    np.testing.assert_allclose(rows, whole, rtol=1e-4, atol=1e-6)


def test_what_has_no_gradient_says_so() -> None:
    a, d, *_ = arguments("plain", 4, 0, 0.0)
    with pytest.raises(ValueError, match="sparse A"):
        jax.grad(lambda d: jnp.sum(encode(BCOO.fromdense(a), d)))(d)
    with pytest.raises(ValueError, match=r"weights have shape \(6,\)"):
        encode(a, d, weights=np.ones(P))


ESTIMATORS = {
    "NMF": lambda: NMF(3),
    "KL": lambda: NMF(3, solver="mu", beta_loss="kullback-leibler"),
    "SemiNMF": lambda: SemiNMF(3, l1_penalty=0.02),
    "ConvexNMF": lambda: ConvexNMF(3, l1_penalty=0.02),
    "ArchetypalAnalysis": lambda: ArchetypalAnalysis(3),
    "Dn2MFGL": lambda: Dn2MFGL((3,)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ESTIMATORS)
def test_encoders_can_be_traced(name: str) -> None:
    rng = np.random.default_rng(5)
    a = 7 * rng.random((24, P))
    if name in ("SemiNMF", "ConvexNMF", "ArchetypalAnalysis"):
        a -= 2
    model = ESTIMATORS[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(a)
    method = model.transform if name == "Dn2MFGL" else partial(model.encode, max_iter=2000, tol=1e-9)
    expected = np.asarray(method(a))
    jitted = jax.jit(method)
    np.testing.assert_allclose(jitted(jnp.asarray(a)), expected, atol=1e-5)
    np.testing.assert_allclose(jax.jit(jax.vmap(lambda row: method(row[None])[0]))(a), expected, atol=1e-5)
    c, along = rng.random(expected.shape), rng.standard_normal(a.shape)
    gradient = np.asarray(jax.jit(jax.grad(lambda a: jnp.sum(c * method(a))))(a))
    up, down = (np.sum(c * np.asarray(jitted(a + x * along)), axis=1) for x in (1e-4, -1e-4))
    np.testing.assert_allclose(np.sum(gradient * along, axis=1), (up - down) / 2e-4, atol=1e-2 * np.abs(c).max())
    with pytest.raises(ValueError, match="traced"):
        jax.jit(lambda a: model.fit(a))(a)


@pytest.mark.slow
def test_mask_and_weights_are_the_same_inside_and_outside_of_jit() -> None:
    rng = np.random.default_rng(6)
    a = rng.random((P, P))
    model = NMF(2)
    model.fit(a)
    each, whole = rng.random((P, P)), rng.random(P)
    mask = rng.random((P, P)) > 0.3
    holes = np.where(mask, a, np.nan)
    for matrix, more in (
        (a, {"weights": each}),
        (a, {"weights": each.tolist()}),
        (a, {"weights": whole}),
        (a, {"weights": whole[:, None]}),
        (holes, {"mask": mask}),
        (holes, {"mask": mask.tolist(), "weights": whole}),
    ):
        expected = model.encode(matrix, **more)
        np.testing.assert_allclose(jax.jit(lambda x, m=more: model.encode(x, **m))(matrix), expected, atol=1e-9)
        traced = {name: np.asarray(given) for name, given in more.items()}
        np.testing.assert_allclose(jax.jit(lambda m, x=matrix: model.encode(x, **m))(traced), expected, atol=1e-9)
    for bad, message in (({"weights": -each}, "negative"), ({"mask": mask[:, 0]}, "mask has shape")):
        with pytest.raises(ValueError, match=message):
            jax.jit(lambda x, m=bad: model.encode(x, **m))(a)
    with pytest.raises(ValueError, match="weights and mask"):
        model.encode([a], mask=mask)
