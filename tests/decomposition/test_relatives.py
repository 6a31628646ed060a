"""SemiNMF, ConvexNMF and ArchetypalAnalysis: right updates, constraints kept, codes for the fixed dictionary."""

import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepnmf_jax import NMF, ArchetypalAnalysis, ConvexNMF, SemiNMF
from deepnmf_jax.decomposition import ConvergenceWarning, convex_nmf, semi_nmf
from deepnmf_jax.decomposition.updates.projected_gradient import project_simplex

N, P, K = 24, 7, 3


def data(seed: int = 0, signed: bool = True) -> np.ndarray:
    rng = np.random.default_rng(seed)
    d = rng.standard_normal((K, P)) if signed else rng.random((K, P))
    return rng.random((N, K)) @ d + 0.05 * rng.random((N, P))


MODELS = [pytest.param(SemiNMF, {"solver": solver}, id=f"semi-{solver}") for solver in ("hals", "mu", "pgd")] + [
    pytest.param(ConvexNMF, {"solver": "pgd"}, id="convex-pgd"),
    pytest.param(ConvexNMF, {"solver": "mu"}, id="convex-mu"),
    pytest.param(ConvexNMF, {"solver": "mu", "strict_convex": True}, id="convex-strict-mu"),
    pytest.param(ConvexNMF, {"strict_convex": True}, id="convex-strict"),
    pytest.param(ArchetypalAnalysis, {}, id="archetypal"),
]


@pytest.fixture(autouse=True)
def limits_may_be_reached() -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)


def close(one: np.ndarray, other: np.ndarray, tolerance: float) -> bool:
    return bool(np.linalg.norm(one - other) <= tolerance * np.linalg.norm(other))


@pytest.mark.slow
@pytest.mark.parametrize(("cls", "arguments"), MODELS)
@pytest.mark.parametrize("signed", [True, False])
def test_fit(cls: type, arguments: dict, signed: bool, tmp_path: Path) -> None:
    a = data(signed=signed)
    model = cls(K, **arguments)
    z, d = model.fit(a)
    assert z.shape == (N, K) and d.shape == (K, P) and (z >= 0).all()
    assert np.all(np.diff(model.loss_history_) <= 1e-9 * model.loss_history_[0])
    assert model.loss_history_[-1] < 0.95 * model.loss_history_[0]
    assert model.reconstruction_err_ == pytest.approx(np.linalg.norm(a - z @ d), rel=1e-9)
    np.testing.assert_array_equal(model.encode(a), z)
    part = model.encode(a[3:8])
    assert close(part, z[3:8], 2e-2) and part.shape == (5, K)
    np.testing.assert_allclose(model.decode(z), z @ d, atol=1e-12)
    if cls is not SemiNMF:
        assert model.W.shape == (K, N) and (model.W >= 0).all()
        np.testing.assert_allclose(model.W @ a, d, atol=1e-10)
        np.testing.assert_array_equal(model.Z, z)
    if "strict_convex" in arguments or cls is ArchetypalAnalysis:
        np.testing.assert_allclose(model.W.sum(1), 1, atol=1e-9)
    if cls is ArchetypalAnalysis:
        np.testing.assert_allclose(z.sum(1), 1, atol=1e-9)
    model.save(tmp_path / "m.npz")
    np.testing.assert_array_equal(cls.load(tmp_path / "m.npz").encode(a), z)
    with pytest.raises(ValueError, match=f"holds a {cls.__name__}"):
        NMF.load(tmp_path / "m.npz")


@pytest.mark.slow
@pytest.mark.parametrize(("cls", "arguments"), MODELS)
def test_the_unit_does_not_matter(cls: type, arguments: dict) -> None:
    """D10: constants of 1e-8 in the released rules."""
    a = data()
    z, d = cls(K, max_iter=30, **arguments).fit(a)
    zs, ds = cls(K, max_iter=30, **arguments).fit(a * 2.0**-40)
    np.testing.assert_allclose(zs @ ds * 2.0**40, z @ d, atol=1e-7)


@pytest.mark.parametrize(("cls", "arguments"), MODELS)
def test_zeros(cls: type, arguments: dict) -> None:
    z, d = cls(K, **arguments).fit(np.zeros((N, P)))
    assert np.linalg.norm(z @ d) == 0 and (z >= 0).all()


codes_step = jax.jit(semi_nmf.codes_step, static_argnames=("solver",))
dictionary = jax.jit(semi_nmf.least_squares_dictionary)
convex_codes = jax.jit(convex_nmf.multiplicative_codes, static_argnames=("signed",))
convex_weights = jax.jit(convex_nmf.multiplicative_weights, static_argnames=("signed",))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_convex_rules_never_raise_the_objective(seed: int, signed: bool) -> None:
    """D8: the released step of W has W Z Z^T where the gradient has Z^T Z W."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((9, 5)) if signed else rng.random((9, 5))
    zt, w = rng.random((2, 9)), rng.random((2, 9))

    def error(zt: np.ndarray, w: np.ndarray) -> float:
        return float(0.5 * np.sum((a - np.asarray(zt).T @ np.asarray(w) @ a) ** 2))

    for _ in range(5):
        before = error(zt, w)
        zt = convex_codes(zt, w, a, 0.0, signed=signed)
        middle = error(zt, w)
        w = convex_weights(zt, w, a, signed=signed)
        assert middle <= before * (1 + 1e-9) and error(zt, w) <= middle * (1 + 1e-9)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["hals", "mu", "pgd"]))
def test_semi_rules_never_raise_the_objective(seed: int, solver: str) -> None:
    rng = np.random.default_rng(seed)
    a, zt, d = rng.standard_normal((9, 5)), rng.random((2, 9)), rng.standard_normal((2, 5))

    def error(zt: np.ndarray, d: np.ndarray) -> float:
        return float(0.5 * np.sum((a - np.asarray(zt).T @ np.asarray(d)) ** 2))

    for _ in range(5):
        before = error(zt, d)
        zt = codes_step(zt, d, a, 0.0, solver=solver)
        middle = error(zt, d)
        d = dictionary(a, zt, d)
        assert middle <= before * (1 + 1e-9) and error(zt, d) <= middle * (1 + 1e-9)


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=6))
def test_the_simplex_projection_is_the_nearest_point(values: list[float]) -> None:
    """D9: softmax is no projection: a vertex would not stay where it is."""
    x = np.array(values)
    point = np.asarray(project_simplex(x))
    assert (point >= 0).all() and point.sum() == pytest.approx(1)
    # Nearest: moving towards any vertex goes away from x.
    for vertex in np.eye(len(x)):
        assert (x - point) @ (vertex - point) <= 1e-9 * (1 + np.abs(x).max())
    np.testing.assert_allclose(project_simplex(np.eye(3)), np.eye(3), atol=1e-15)
    # Far from the simplex too the sum is 1, and a difference that the dtype holds is seen.
    far = project_simplex(jnp.asarray([[3e10, 2e10, 3e10], [2**20 + 0.5, 2**20, 0]], jnp.float32))
    np.testing.assert_array_equal(far, [[0.5, 0, 0.5], [0.75, 0.25, 0]])


@pytest.mark.slow
def test_archetypes_in_the_data_are_found() -> None:
    """D9: with softmax in place of the projection the error is that of the mean alone."""
    rng = np.random.default_rng(0)
    corners = 5 * rng.standard_normal((4, 6))
    a = np.concatenate([corners, rng.dirichlet(np.ones(4), 60) @ corners])
    model = ArchetypalAnalysis(4, max_iter=300)
    z, d = model.fit(a)
    assert np.linalg.norm(a - z @ d) < 0.01 * np.linalg.norm(a)
    found = np.linalg.norm(d[:, None] - corners[None], axis=-1).min(0)
    assert found.max() < 0.1


def test_furthest_sum_takes_the_corners() -> None:
    square = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1], [0.5, 0.5], [0.4, 0.6]])
    chosen = convex_nmf.furthest_sum(jax.random.key(0), jnp.asarray(square), 4)
    assert sorted(int(i) for i in chosen) == [0, 1, 2, 3]


def test_new_data_is_encoded_for_the_fixed_atoms() -> None:
    """D8b: the released encode solves against W A_new, whatever the atoms are."""
    optimize = pytest.importorskip("scipy.optimize")
    a, new = data(0, signed=False), data(1, signed=False)
    model = ConvexNMF(K, tol=1e-8)
    model.fit(a)
    expected = np.stack([optimize.nnls(model.D.T, row)[0] for row in new])
    codes = model.encode(new, 5000, 1e-8)
    assert np.linalg.norm(new - codes @ model.D) <= np.linalg.norm(new - expected @ model.D) * (1 + 1e-6)


def test_penalties_make_codes_sparse() -> None:
    a = data()
    for cls in (SemiNMF, ConvexNMF):
        plain, _ = cls(K, max_iter=100).fit(a)
        sparse, _ = cls(K, max_iter=100, l1_penalty=1.0).fit(a)
        assert (sparse == 0).mean() > (plain == 0).mean()


@pytest.mark.slow
def test_torch_tensors_and_names() -> None:
    torch = pytest.importorskip("torch")
    a = torch.tensor(data(signed=False), dtype=torch.float32)
    for cls in (SemiNMF, ConvexNMF, ArchetypalAnalysis):
        model = cls(nb_concepts=K, max_iter=3)
        z, d = model.fit(a)
        assert isinstance(z, torch.Tensor) and isinstance(d, torch.Tensor) and z.dtype == torch.float32
        assert model.n_components == K and isinstance(model.init_random_z(a), torch.Tensor)
    assert isinstance(SemiNMF(K).init_random_d(a, SemiNMF(K).init_random_z(a)), torch.Tensor)
    assert isinstance(ArchetypalAnalysis(K).init_random_w(a), torch.Tensor)


def test_unknown_arguments_are_errors() -> None:
    for cls in (SemiNMF, ConvexNMF, ArchetypalAnalysis):
        with pytest.raises(TypeError):
            cls(K, tolerance=1)
        with pytest.raises(ValueError, match="call fit first"):
            cls(K).encode(data())
        with pytest.raises(ValueError, match="NaN"):
            cls(K).fit(np.full((3, 3), np.nan))
