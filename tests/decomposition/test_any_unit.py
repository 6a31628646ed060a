"""Data of any unit: the same factorization in that unit, reports too, or a ValueError that says what to rescale."""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepnmf_jax import NMF, ArchetypalAnalysis, ConvexNMF, Dn2MFGL, SemiNMF
from deepnmf_jax.decomposition import ConvergenceWarning, choose_k
from deepnmf_jax.decomposition.dn2mfgl.units import at_unit_length
from deepnmf_jax.decomposition.io.checked import read_data
from deepnmf_jax.decomposition.selection import held_out
from deepnmf_jax.decomposition.updates.objective import Penalties, rescaled

A = np.random.default_rng(5).random((20, 8)) + 0.01
# Exponents of 2: almost all of it subnormal, all squares 0, all squares infinite, the largest there are.
FLOAT32, FLOAT64 = (-134, -90, 70, 126), (-480, 480)


@pytest.fixture(autouse=True)
def limits_may_be_reached() -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)


def times(x: np.ndarray, exponent: int, dtype: str) -> np.ndarray:
    return np.ldexp(x.astype(dtype), exponent)


def fitted(make: Callable[[], Any], exponent: int, dtype: str) -> tuple[Any, np.ndarray]:
    model = make()
    return model, model.fit(times(A, exponent, dtype))[0]


MAKERS = {
    "hals": lambda: NMF(3, max_iter=12, tol=0, n_restarts=2),
    "mu": lambda: NMF(3, max_iter=12, tol=0, solver="mu", init="random", beta_loss=1.5),
    "semi": lambda: SemiNMF(3, max_iter=12, tol=0),
    "convex": lambda: ConvexNMF(3, max_iter=12, tol=0),
    "archetypal": lambda: ArchetypalAnalysis(3, max_iter=12, tol=0),
}


CASES = [(name, dtype) for dtype in ("float32", "float64") for name in MAKERS]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [case if case == ("hals", "float32") else pytest.param(*case, marks=pytest.mark.slow) for case in CASES],
)
def test_fits_and_their_reports(name: str, dtype: str) -> None:
    make, exponents = MAKERS[name], FLOAT32 if dtype == "float32" else FLOAT64
    beta = 1.5 if name == "mu" else 2.0
    atoms_grow = 1.0 if name in ("convex", "archetypal") else 0.5
    one, _ = fitted(make, 0, dtype)
    for exponent in exponents:
        model, z = fitted(make, exponent, dtype)
        # The last bits of subnormal data are gone; all other is exactly what it is at 1.
        rough = dict(rtol=0.05) if exponent < -126 else dict(rtol=0 if beta == 2 else 1e-6)
        history = model.loss_history_
        assert history.dtype == np.float64
        np.testing.assert_allclose(history / 2.0 ** (beta * exponent), one.loss_history_, **rough)
        error = model.reconstruction_err_ / 2.0 ** (0.5 * beta * exponent)
        np.testing.assert_allclose(error, one.reconstruction_err_, **rough)
        atoms = model.D.astype(np.float64) / 2.0 ** (atoms_grow * exponent)
        np.testing.assert_allclose(atoms, one.D, atol=1e-2, **rough)
        same = {"rtol": 1e-5 if dtype == "float32" else 1e-12}
        np.testing.assert_allclose(model.encode(times(A, exponent, dtype)), z, **same)
        again = model.decode(z).astype(np.float64) / 2.0**exponent
        assert np.linalg.norm(again - A) < 0.5 * np.linalg.norm(A)
        if name == "hals":
            errors = model.restart_errors_ / 2.0**exponent
            np.testing.assert_allclose(errors, one.restart_errors_, **rough)


def test_what_float64_cannot_report_is_refused() -> None:
    for make in MAKERS.values():
        for exponent in (-1000, 1000):
            with pytest.raises(ValueError, match="divide it by"):
                make().fit(times(A, exponent, "float64"))
    with pytest.raises(ValueError, match="float64"):
        NMF(2, dtype="float32").fit(A * 1e-60)
    with pytest.raises(ValueError, match="float32"), np.errstate(over="ignore"):
        NMF(2, dtype="float32").fit(A * 1e60)


@pytest.mark.slow
def test_codes_of_data_in_another_unit_than_that_of_the_fit() -> None:
    for make in (MAKERS["hals"], MAKERS["semi"], MAKERS["convex"]):
        model, _ = fitted(make, -80, "float32")
        expected = model.encode(times(A, -80, "float32"))
        np.testing.assert_array_equal(times(model.encode(times(A, -10, "float32")), -70, "float32"), expected)
        np.testing.assert_array_equal(times(model.encode(times(A, -120, "float32")), 40, "float32"), expected)
        with pytest.raises(ValueError, match="does not hold the codes"):
            model.encode(times(A, 120, "float32"))
    model, _ = fitted(MAKERS["archetypal"], -80, "float32")
    with pytest.raises(ValueError, match="nowhere near"):
        model.encode(times(A, 0, "float32"))


def test_mixtures_sum_to_one_however_far_the_data_is() -> None:
    model, _ = fitted(MAKERS["archetypal"], 0, "float32")
    np.testing.assert_allclose(model.encode(times(A, 34, "float32")).sum(axis=1), 1, atol=1e-6)


def test_compiled_codes_of_data_that_xla_takes_for_zero_are_refused() -> None:
    model, _ = fitted(MAKERS["hals"], -134, "float32")
    x = times(A, -134, "float32")
    assert model.encode(x).max() > 0
    with pytest.raises(ValueError, match="outside of jax"):
        jax.jit(model.encode)(x)


def test_penalties_keep_their_meaning() -> None:
    given = Penalties(0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    for scale, of_dictionary in ((4.0**5, None), (4.0**3, 4.0**-2)):
        root = (scale if of_dictionary is None else of_dictionary) ** 0.5
        found, codes = rescaled(given, scale, 2.0, of_dictionary), scale / root
        expected = [0.1 * codes, 0.2 * codes**2, 0.3 * root, 0.4 * root**2, 0.5 * codes**2, 0.6 * root**2]
        np.testing.assert_allclose(found, np.array(expected) / scale**2, rtol=1e-12)
    assert rescaled(Penalties(), 4.0**-500) == (0, 0, 0, 0, None, None)
    for make in (NMF(2, alpha_W=1.0, l1_ratio=1.0), NMF(2, alpha_H=1e-3), SemiNMF(2, l1_penalty=0.1)):
        with pytest.raises(ValueError, match="on data of the size of 8e-28"):
            make.fit(times(A, -90, "float32"))


@pytest.mark.slow
def test_the_number_of_concepts_does_not_depend_on_the_unit() -> None:
    rng = np.random.default_rng(1)
    a = (rng.random((24, 2)) @ rng.random((2, 10))).astype(np.float32)
    one = choose_k(a, [1, 2], repeats=2, max_iter=30)
    for exponent in (-110, 100):
        other = choose_k(times(a, exponent, "float32"), [1, 2], repeats=2, max_iter=30)
        assert other.best == one.best == 2
        np.testing.assert_allclose(other.errors / 2.0**exponent, one.errors, rtol=1e-6)


def test_something_is_held_out_and_something_is_left() -> None:
    for fraction in (0.05, 0.95):
        shares = held_out(0, (2, 3), fraction, 20).mean(axis=(1, 2))
        assert np.all((shares > 0) & (shares < 1))
    with pytest.raises(ValueError, match="none or all"):
        choose_k(np.ones((1, 1)), [1])


def test_units_are_found_where_xla_sees_nothing() -> None:
    for dtype, least in (("float32", -149), ("float64", -1074)):
        for exponent in (least, least + 20, 0):
            data = read_data(np.full((3, 2), np.ldexp(1.0, exponent), dtype), np.dtype(dtype))
            assert not data.zero and 0.25 <= float(data.a[0, 0]) <= 4
        assert read_data(np.zeros((3, 2), dtype), np.dtype(dtype)).zero
        with pytest.raises(ValueError, match="negative"):
            read_data(np.full((3, 2), -np.ldexp(1.0, least), dtype), np.dtype(dtype))
    # A few large entries decide nothing about the rest.
    assert read_data(np.diag([1.0, 1e-300]), np.dtype("float64")).unit == 0.25


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_each_sample_has_length_one_whatever_its_own_size(dtype: str) -> None:
    limits = np.finfo(dtype)
    least, middle = limits.minexp - limits.nmant, limits.minexp // 2
    exponents = np.array([least + 8, limits.minexp, middle - 1, middle + 1, 0, limits.maxexp - 1])
    x = np.ldexp(A[: len(exponents)], exponents[:, None]).astype(dtype)
    x[0, 0] = 0
    expected = np.ldexp(x.astype(np.longdouble), -exponents[:, None])
    expected = expected / np.sqrt(np.sum(expected**2, axis=1, keepdims=True))
    x = jnp.asarray(x)
    for way in (at_unit_length, jax.jit(at_unit_length), jax.vmap(lambda row: at_unit_length(row[None])[0])):
        np.testing.assert_allclose(way(x), expected.astype(dtype), rtol=8 * float(limits.eps))
    slope = jax.jit(jax.grad(lambda x: at_unit_length(x)[:, 1].sum()))(x[3:5])
    assert np.isfinite(slope).all() and np.all(np.asarray(slope)[:, 1] > 0)
    assert not at_unit_length(jnp.zeros((2, 3), dtype)).any()


GROUPS = np.repeat(np.arange(3), 12)
SAMPLES = np.random.default_rng(2).random((36, 5)) + 6 * np.eye(3, 5)[GROUPS]


def same_groups(labels: np.ndarray) -> bool:
    return len(set(zip(labels, GROUPS, strict=True))) == 3


@pytest.mark.parametrize("normalize", [pytest.param(True, marks=pytest.mark.slow), False])
def test_clusters_at_any_unit(normalize: bool) -> None:
    pytest.importorskip("sklearn")
    for robust in ("sample",) if normalize else ("sample", "none"):
        for exponent in (-134, -100, -40, 0, 50, 90):
            x = times(SAMPLES, exponent, "float32")
            model = Dn2MFGL((4, 3), 3, normalize=normalize, robust=robust, max_iter=40)
            if not normalize and robust == "sample" and exponent < 0:
                with pytest.raises(ValueError, match=r"delta = 0\.001 with samples of X"):
                    model.fit(x)
                continue
            if not normalize and exponent == -134:
                with pytest.raises(ValueError, match="float32 does not hold the factors of 2 layers; divide X by"):
                    model.fit(x)
                continue
            model.fit(x)
            assert same_groups(model.labels_) and same_groups(model.predict(x))
            if exponent == -134:
                expected = model.transform(x)
                assert expected.max() > 0.1
                np.testing.assert_allclose(jax.jit(model.transform)(x), expected, atol=1e-5)
                of_one = jax.vmap(lambda row, model=model: model.transform(row[None])[0])
                np.testing.assert_allclose(of_one(x), expected, atol=1e-5)
            codes = model.embedding_.astype(np.float64)
            assert np.isfinite(codes).all() and model.loss_history_[-1] > 0
            if not normalize:
                again = codes @ model.components_ / 2.0**exponent
                assert np.linalg.norm(again - SAMPLES) < 0.2 * np.linalg.norm(SAMPLES)


def test_strengths_that_leave_no_data_are_refused_with_its_size() -> None:
    with pytest.raises(ValueError, match=r"alpha = 1 with X of the size of"):
        Dn2MFGL((4, 3), normalize=False, robust="none", alpha=1.0).fit(times(SAMPLES, -60, "float32"))
