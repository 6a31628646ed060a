"""Arguments as numpy, JAX and Python write them: the same numbers, kept as Python's; all else is refused."""

import inspect
import warnings
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from deepnmf_jax import NMF, ArchetypalAnalysis, ConvexNMF, Dn2MFGL, SemiNMF, SymmetricNMF
from deepnmf_jax.decomposition import ConvergenceWarning, choose_k
from deepnmf_jax.decomposition.dn2mfgl.arguments import check_arguments

FAMILY = (NMF, SemiNMF, ConvexNMF, ArchetypalAnalysis, SymmetricNMF)
FORMS = [np.int64, np.uint8, np.array, jnp.asarray]
FRACTIONS = [np.float32, np.float64, np.float16, np.longdouble, np.array, jnp.asarray]
# A value for each argument of each class, of which the numbers are written in all forms.
VALUES: dict[str, Any] = {
    "nb_concepts": 3, "n_components": 3, "device": "cpu", "solver": "mu", "tol": 0.125, "verbose": True,
    "init": "random", "max_iter": 4, "random_state": 5, "beta_loss": 1, "alpha_W": 0.25, "alpha_H": 0.5,
    "l1_ratio": 1, "dtype": "float64", "n_restarts": 2, "warm_start": True, "inner_iter": 2, "l1_penalty": 0.75,
    "strict_convex": True, "layer_sizes": 3, "n_clusters": 2, "alpha": 0.5, "beta": 0, "nu": 0.25, "lam": 0.5,
    "n_neighbors": 2, "robust": "none", "mode": "well_posed", "join": "mutual", "edge_weights": "heat",
    "normalize_graph": True, "delta": 0.5, "n_init": 2, "normalize": False, "shuffle": True,
    "alpha_graph": 0.5, "ortho_W": 0.25, "ortho_H": 0.5,
}  # fmt: skip


@pytest.fixture(autouse=True)
def limits_may_be_reached() -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)


def forms_of(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [value, np.bool_(value), np.array(value), jnp.asarray(value)]
    if isinstance(value, str):
        return [value, np.str_(value), np.array(value)]
    return [value, *(form(value) for form in (FORMS if isinstance(value, int) else FRACTIONS))]


@pytest.mark.parametrize("kind", FAMILY)
def test_scalars_of_all_kinds(kind: Any, tmp_path: Path) -> None:
    for name in inspect.signature(kind).parameters.keys() - {"n_components", "known_D"}:
        value = "pgd" if (kind, name) == (ArchetypalAnalysis, "solver") else VALUES[name]
        more = {} if name == "nb_concepts" else {"nb_concepts": 3}
        if name == "beta_loss":
            more["solver"] = "mu"
        if name.startswith("ortho"):
            more["alpha_W"] = 0.125
        for form in forms_of(value):
            model = kind(**{name: form}, **more)
            held = getattr(model, name)
            assert held == value and type(held) in (type(value), np.str_), (name, form)
            model.save(tmp_path / "m.npz")
            assert kind.load(tmp_path / "m.npz").arguments() == model.arguments()
    assert kind(n_components=np.int64(3)).nb_concepts == 3
    assert all(NMF(2, n_restarts=form(2)).n_restarts == 2 for form in FORMS)


@pytest.mark.slow
def test_scalars_of_dn2mfgl(tmp_path: Path) -> None:
    plain = check_arguments(Dn2MFGL(3).get_params())
    for name in plain.keys() - {"layer_weights", "init", "layer_sizes"}:
        for form in forms_of(VALUES[name]):
            found = check_arguments(Dn2MFGL(3).get_params() | {name: form})
            assert found == plain | {name: VALUES[name]} and type(found[name]) in (type(VALUES[name]), np.str_)
    numbers = {
        "n_clusters": 2,
        "n_neighbors": 3,
        "n_init": 1,
        "max_iter": 3,
        "random_state": 1,
        "alpha": 0.5,
        "lam": 0.25,
    }
    model = Dn2MFGL((4, 2), layer_weights=np.array([0.0, 1.0]), **{name: np.array(n) for name, n in numbers.items()})
    a = np.random.default_rng(0).random((16, 6)).astype("f4")
    same = Dn2MFGL((4, 2), layer_weights=(0, 1), **numbers).fit(a)  # type: ignore[arg-type]
    np.testing.assert_array_equal(model.fit(a).labels_, same.labels_)
    np.testing.assert_array_equal(model.embedding_, same.embedding_)
    model.save(tmp_path / "m.npz")
    again = Dn2MFGL.load(tmp_path / "m.npz")
    assert check_arguments(again.get_params()) == check_arguments(same.get_params())


@pytest.mark.parametrize("kind", FAMILY)
def test_scalars_of_methods(kind: Any) -> None:
    model = kind(2)
    assert model._limit(np.int32(3), 7) == model._limit(jnp.asarray(3), 7) == 3 and model._limit(None, 7) == 7
    assert model._tolerance(np.float32(0.5)) == 0.5 and model._tolerance(None) == model.tol
    for limit in (0, 2.0, np.float64(2), True, "3", np.array([3])):
        with pytest.raises(ValueError, match="max_iter"):
            model._limit(limit, 7)
    with pytest.raises(ValueError, match="tol = 'small'"):
        model._tolerance("small")


@pytest.mark.parametrize("kind", FAMILY)
def test_what_no_argument_can_be(kind: Any) -> None:
    for name, wrong in (
        ("nb_concepts", [0, 2.0, np.float32(2), True, np.bool_(True), "2", [2], np.array([2]), 1j]),
        ("max_iter", [0, 1.5, np.True_, "all"]),
        ("tol", [-1, np.nan, np.inf, np.float32(-1), "small", True, 1j, None]),
        ("random_state", [-1, np.int64(-1), 1.0, None, 2**32, 2**40, 2**64, np.uint64(2**32)]),
        ("verbose", ["pgd", 1, 0, None, np.int64(1), 1e-4]),
        ("solver", ["adam", 1e-4, True, None, ["mu"], np.array(["mu", "pgd"])]),
        ("dtype", ["float16", np.float64, "f8"]),
        ("device", [0, 1e-4, True, ["cpu"]]),
        ("strict_convex", ["mu", 1]),
        ("warm_start", [1, "yes"]),
        ("l1_penalty", [-1, "some", True]),
    ):
        if name not in inspect.signature(kind).parameters:
            continue
        for value in wrong:
            with pytest.raises(ValueError, match=name):
                kind(**({"nb_concepts": 2} | {name: value}))


@pytest.mark.parametrize(
    ("kind", "given", "wrong"),
    [
        (NMF, {"solver": "mu", "beta_loss": np.float32(1)}, {"beta_loss": "poisson"}),
        (NMF, {"inner_iter": 1}, {"inner_iter": 0}),
        (ConvexNMF, {"solver": "mu", "strict_convex": True}, {"strict_convex": "mu"}),
        pytest.param(NMF, {"solver": "anls"}, {"beta_loss": 1}, marks=pytest.mark.slow),
        pytest.param(SemiNMF, {"solver": "mu"}, {"solver": "anls"}, marks=pytest.mark.slow),
        pytest.param(ArchetypalAnalysis, {"solver": "pgd"}, {"solver": "mu"}, marks=pytest.mark.slow),
    ],
)
def test_an_argument_set_later_is_that_of_the_constructor(
    kind: Any, given: dict[str, Any], wrong: dict[str, Any], tmp_path: Path
) -> None:
    a = np.random.default_rng(0).random((16, 6)).astype("f4")
    model, expected = kind(3, max_iter=4), kind(3, max_iter=4, **given)
    for name, value in given.items():
        setattr(model, name, value)
    z, d = model.fit(a)
    np.testing.assert_array_equal(z, expected.fit(a)[0])
    np.testing.assert_array_equal(d, expected.D)
    model.save(tmp_path / "m.npz")
    np.testing.assert_array_equal(kind.load(tmp_path / "m.npz").encode(a), model.encode(a))
    for name, value in wrong.items():
        setattr(model, name, value)
    for method in (model.fit, model.encode):
        with pytest.raises(ValueError, match="= .*(is unknown|must be|needs solver)"):
            method(a)
    np.testing.assert_array_equal(model.D, d)


def test_no_two_seeds_are_one() -> None:
    """Without float64 JAX cuts seeds to 32 bits; larger ones are refused before any work, here and by k-means."""
    a = np.random.default_rng(0).random((16, 6)).astype("f4")
    for seed in (2**32, 2**32 + 7, np.int64(2**40), -1):
        with pytest.raises(ValueError, match="random_state = .*from 0 to 4294967295"):
            Dn2MFGL((2,), 2, random_state=seed).fit(object())
        with pytest.raises(ValueError, match="random_state = .*from 0 to 4294967295"):
            choose_k(object(), [1], random_state=seed)
    starts = [NMF(2, random_state=seed).init_random_d(a) for seed in (0, 7, 2**31, 2**31 + 7, 2**32 - 1)]
    for i, one in enumerate(starts):
        assert all(np.abs(one - other).max() > 1e-3 for other in starts[:i])
    largest = Dn2MFGL((2,), 2, alpha=0.1, n_neighbors=3, max_iter=2, random_state=2**32 - 1)
    assert len(largest.fit(a).labels_) == 16


def test_archetypal_analysis_has_overcompletes_order() -> None:
    names = ["nb_concepts", "device", "tol", "solver", "verbose"]
    assert list(inspect.signature(ArchetypalAnalysis).parameters)[:5] == names
    model = ArchetypalAnalysis(3, "cpu", 1e-3, "pgd", True)
    assert [getattr(model, name) for name in names] == [3, "cpu", 1e-3, "pgd", True]
    with pytest.raises(ValueError, match="solver = True"):
        ArchetypalAnalysis(3, "cpu", 1e-3, True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="solver = 'mu'"):
        ArchetypalAnalysis(3, solver="mu")


@pytest.mark.slow
def test_choose_k_takes_scalars_of_numpy() -> None:
    a = np.random.default_rng(0).random((10, 4)).astype("f4")
    plain = choose_k(a, [1, 2], 0.25, 1, 3, max_iter=2)
    found = choose_k(a.astype(">f4"), np.arange(1, 3), np.float32(0.25), np.int64(1), np.uint8(3), max_iter=np.int64(2))
    assert found.best == plain.best and found.ks.tolist() == [1, 2]
    np.testing.assert_array_equal(found.errors, plain.errors)
