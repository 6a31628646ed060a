"""The NMF estimator: its interface, its numbers, what it refuses."""

import json
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.sparse import BCOO

import deepnmf_jax
from deepnmf_jax.decomposition import NMF, ConvergenceWarning
from deepnmf_jax.decomposition.updates.solvers import SOLVERS

N, P, K = 30, 12, 3


def data(seed: int = 0, dtype: type = np.float64, noise: float = 0.1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.random((N, K)) @ rng.random((K, P)) + noise * rng.random((N, P))).astype(dtype)


def relative_error(a: np.ndarray, z: np.ndarray, d: np.ndarray) -> float:
    return float(np.linalg.norm(a - np.asarray(z) @ np.asarray(d)) / np.linalg.norm(a))


@pytest.fixture(autouse=True)
def limits_may_be_reached() -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)


def test_the_name_is_public() -> None:
    assert deepnmf_jax.NMF is NMF
    assert "NMF" in deepnmf_jax.__all__


@pytest.mark.parametrize("solver", SOLVERS)
def test_fit_and_encode_agree(solver: str) -> None:
    """D6, D22: the released encode starts at random, and fit's codes are a step behind its dictionary."""
    a = data(dtype=np.float32)
    model = NMF(K, solver=solver)
    z, d = model.fit(a)
    assert z.shape == (N, K) and d.shape == (K, P) and z.dtype == d.dtype == np.float32
    assert (z >= 0).all() and (d >= 0).all()
    codes = model.encode(a)
    np.testing.assert_array_equal(codes, model.encode(a))
    assert np.linalg.norm(codes - z) <= 1e-4 * np.linalg.norm(z)
    assert relative_error(a, z, d) < 0.04
    np.testing.assert_allclose(model.decode(z), z @ d, rtol=1e-5)
    np.testing.assert_array_equal(model.get_dictionary(), d)
    assert model.reconstruction_err_ == pytest.approx(np.linalg.norm(a - z @ d), rel=1e-3)
    assert model.n_iter_ == model.report_.iterations > 0 and model.n_dead_ == 0
    assert len(model.loss_history_) == -(-model.n_iter_ // 10) + 1
    assert np.all(np.diff(model.loss_history_) <= 1e-5 * model.loss_history_[0])


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS)
def test_codes_of_part_of_the_data_are_the_same(solver: str) -> None:
    a = data(dtype=np.float32)
    model = NMF(K, solver=solver, tol=1e-5)
    z, _ = model.fit(a)
    part = model.encode(a[5:9])
    assert np.linalg.norm(part - z[5:9]) <= 1e-4 * np.linalg.norm(z[5:9])


@pytest.mark.slow
@pytest.mark.parametrize("scale", [2.0**-60, 1e-6, 1e3, 1e6])
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_unit_of_the_data_does_not_matter(solver: str, scale: float) -> None:
    """D2-D5, D10 of the released code: results that depend on the unit."""
    a = data(dtype=np.float32)
    z, d = NMF(K, solver=solver, max_iter=60).fit(a)
    zs, ds = NMF(K, solver=solver, max_iter=60).fit((a * scale).astype(np.float32))
    assert relative_error(a * scale, zs, ds) == pytest.approx(relative_error(a, z, d), rel=2e-2)


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_the_kind_that_comes_in_goes_out() -> None:
    """D14: the released fit takes nothing but tensors."""
    a = data()
    expected, dictionary = NMF(K, max_iter=30).fit(a)
    assert isinstance(expected, np.ndarray) and expected.dtype == np.float64
    z, d = NMF(K, max_iter=30).fit(jnp.asarray(a))
    assert isinstance(z, jax.Array) and isinstance(d, jax.Array)
    np.testing.assert_array_equal(z, expected)
    z, _ = NMF(K, max_iter=30, dtype="float64").fit(a.tolist())
    assert isinstance(z, np.ndarray)
    np.testing.assert_array_equal(z, expected)
    z, d = NMF(K, max_iter=30).fit(BCOO.fromdense(jnp.asarray(a)))
    assert isinstance(z, jax.Array)
    np.testing.assert_allclose(z, expected, atol=1e-8)
    np.testing.assert_allclose(d, dictionary, atol=1e-8)


@pytest.mark.slow
def test_torch_tensors() -> None:
    """D14, D19: the released codes carry the graph of all sweeps where the data requires a gradient."""
    torch = pytest.importorskip("torch")
    a = data()
    expected, dictionary = NMF(K, max_iter=30).fit(a)
    model = NMF(nb_concepts=K, max_iter=30)
    tensor = torch.tensor(a, requires_grad=True)
    z, d = model.fit(tensor)
    assert isinstance(z, torch.Tensor) and z.dtype == torch.float64 and not z.requires_grad
    np.testing.assert_array_equal(z.numpy(), expected)
    np.testing.assert_array_equal(d.numpy(), dictionary)
    z += 1  # the tensors are the caller's own
    np.testing.assert_array_equal(model.encode(tensor).numpy(), model.encode(a))
    assert isinstance(model.decode(model.encode(tensor)), torch.Tensor)
    assert isinstance(model.D, torch.Tensor) and isinstance(model.encode(a), np.ndarray)
    assert model.init_random_z(tensor).dtype == torch.float64
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(tensor.detach()), batch_size=10)
    assert model.sanitize_np_input(loader).shape == (N, P)
    z, _ = model.fit(loader)
    assert isinstance(z, np.ndarray) and z.shape == (N, K)


def test_float64_is_kept_without_the_global_switch() -> None:
    """D7: the released encode mixes float32 into float64."""
    jax.config.update("jax_enable_x64", False)
    try:
        a = data()
        model = NMF(K, max_iter=20)
        z, d = model.fit(a)
        assert z.dtype == d.dtype == model.encode(a).dtype == model.decode(z).dtype == np.float64
    finally:
        jax.config.update("jax_enable_x64", True)


def test_callers_arrays_are_not_written_to() -> None:
    a, (z, d) = data(), NMF(K, max_iter=5).fit(data())
    before = [x.copy() for x in (a, z, d)]
    NMF(K, max_iter=5).fit(a, init=(z, d))
    for one, other in zip(before, (a, z, d), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_penalised_objective_is_that_of_scikit_learn() -> None:
    sk = pytest.importorskip("sklearn.decomposition")
    a = data()
    z0, d0 = NMF(K).init_random_z(a), NMF(K).init_random_d(a)
    penalties = {"alpha_W": 0.003, "alpha_H": 0.002, "l1_ratio": 0.4}
    reference = sk.NMF(K, init="custom", max_iter=2000, tol=1e-10, **penalties)
    w = reference.fit_transform(a, W=z0.copy(), H=d0.copy())
    h = reference.components_
    z, d = NMF(K, tol=1e-9, max_iter=2000, **penalties).fit(a, init=(z0, d0))

    def objective(z: np.ndarray, d: np.ndarray) -> float:
        aw, ah, l1 = penalties.values()
        value = 0.5 * np.sum((a - z @ d) ** 2) + aw * l1 * P * z.sum() + ah * l1 * N * d.sum()
        return value + 0.5 * aw * (1 - l1) * P * np.sum(z**2) + 0.5 * ah * (1 - l1) * N * np.sum(d**2)

    assert objective(z, d) == pytest.approx(objective(w, h), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("beta", ["kullback-leibler", "itakura-saito", 0.5, 1.5])
def test_beta_losses_reach_scikit_learns_divergence(beta: float | str) -> None:
    sk = pytest.importorskip("sklearn.decomposition")
    a = data() + 0.05
    reference = sk.NMF(K, beta_loss=beta, solver="mu", init="nndsvda", max_iter=400, tol=0)
    reference.fit(a)
    model = NMF(K, beta_loss=beta, solver="mu", max_iter=400, tol=0)
    z, _ = model.fit(a)
    assert model.reconstruction_err_ <= reference.reconstruction_err_ * 1.05
    codes = model.encode(a)
    assert np.linalg.norm(codes - z) <= 1e-4 * np.linalg.norm(z)


@pytest.mark.slow
def test_weights_and_masks() -> None:
    a = data(noise=0.0)
    rng = np.random.default_rng(1)
    mask = rng.random(a.shape) > 0.2
    mask[4] = False
    holes = np.where(mask, a, np.nan)
    for solver in ("hals", "mu"):
        model = NMF(K, solver=solver, max_iter=800, tol=1e-7)
        z, d = model.fit(holes, mask=mask)
        assert np.isfinite(z).all() and np.isfinite(d).all()
        known = mask.any(1)[:, None] & np.ones_like(mask)
        assert np.linalg.norm((z @ d - a)[known]) < 0.05 * np.linalg.norm(a)
        if solver == "hals":
            assert (z[4] == 0).all()
        assert np.linalg.norm(model.encode(holes, mask=mask) - z) <= 1e-4 * np.linalg.norm(z)
    # A weight of 2 for a sample is that sample twice.
    z0, d0 = NMF(K).init_random_z(a), NMF(K).init_random_d(a)
    noisy = data(2)
    twice = np.ones(N)
    twice[:5] = 2
    weighted = NMF(K, max_iter=100, tol=0, inner_iter=1).fit(noisy, weights=twice, init=(z0, d0))
    repeated = NMF(K, max_iter=100, tol=0, inner_iter=1).fit(
        np.concatenate([noisy, noisy[:5]]), init=(np.concatenate([z0, z0[:5]]), d0)
    )
    np.testing.assert_allclose(weighted[1], repeated[1], rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_scipy_sparse_equals_dense() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    a = data() * (np.random.default_rng(0).random((N, P)) > 0.6)
    dense = NMF(K, max_iter=50)
    z, d = dense.fit(a)
    for kind in (sparse.csr_matrix, sparse.coo_array):
        model = NMF(K, max_iter=50)
        zs, ds = model.fit(kind(a))
        np.testing.assert_allclose(zs, z, atol=1e-7)
        np.testing.assert_allclose(ds, d, atol=1e-7)
        assert model.reconstruction_err_ == pytest.approx(dense.reconstruction_err_, rel=1e-6)


@pytest.mark.slow
def test_restarts_return_the_best() -> None:
    a = data(3)
    model = NMF(K, n_restarts=5, max_iter=40, tol=0)
    z, d = model.fit(a)
    assert model.restart_errors_.shape == (5,) and np.ptp(model.restart_errors_) > 0
    assert np.linalg.norm(a - z @ d) <= model.restart_errors_.min() * (1 + 1e-6)


def test_warm_start_goes_on() -> None:
    a = data()
    model = NMF(K, max_iter=10, tol=0, warm_start=True)
    model.fit(a)
    first = model.reconstruction_err_
    model.fit(a)
    assert model.loss_history_[0] == pytest.approx(0.5 * first**2, rel=1e-6)
    assert model.reconstruction_err_ < first


def test_seeds() -> None:
    """D13: the released start depends on numpy's global generator."""
    a = data()
    first = NMF(K, init="random", max_iter=5, random_state=1).fit(a)
    again = NMF(K, init="random", max_iter=5, random_state=1).fit(a)
    other = NMF(K, init="random", max_iter=5, random_state=2).fit(a)
    np.testing.assert_array_equal(first[1], again[1])
    assert np.abs(first[1] - other[1]).max() > 1e-3


@pytest.mark.parametrize("solver", SOLVERS)
def test_zeros_finish_at_once(solver: str) -> None:
    """D16: the released test for an end is 0 / 0 there."""
    model = NMF(K, solver=solver)
    z, d = model.fit(np.zeros((N, P)))
    assert not z.any() and not d.any() and model.converged_ and model.n_iter_ == 0
    assert not model.encode(np.zeros((4, P))).any()


@pytest.mark.slow
def test_more_concepts_than_features() -> None:
    a = data(dtype=np.float64)
    model = NMF(P + 8, max_iter=200)
    z, d = model.fit(a)
    assert relative_error(a, z, d) < 0.02
    assert np.linalg.norm(model.encode(a) - z) <= 1e-4 * np.linalg.norm(z)


def test_save_and_load(tmp_path: Path) -> None:
    """D17: the state of a fitted model cannot be loaded into a new one."""
    a = data()
    model = NMF(K, solver="pgd", max_iter=20, alpha_W=0.01)
    _, d = model.fit(a)
    model.save(tmp_path / "model.npz")
    loaded = NMF.load(tmp_path / "model.npz")
    assert loaded.arguments() == model.arguments()
    np.testing.assert_array_equal(loaded.D, d)
    np.testing.assert_array_equal(loaded.encode(a), model.encode(a))
    assert loaded.n_iter_ == model.n_iter_ and loaded.reconstruction_err_ == model.reconstruction_err_
    with np.load(tmp_path / "model.npz", allow_pickle=False) as file:
        header = json.loads(file["header"].tobytes())
    assert header["version"] == 1 and header["class"] == "NMF"
    (tmp_path / "no.npz").write_bytes(b"no such thing")
    with pytest.raises(ValueError, match="not a file that"):
        NMF.load(tmp_path / "no.npz")


def test_progress_shows_the_objective(capsys: pytest.CaptureFixture) -> None:
    """D11: the released fit prints nothing."""
    a = data()
    model = NMF(K, max_iter=20, tol=0, verbose=True)
    quiet = NMF(K, max_iter=20, tol=0).fit(a)
    shown = model.fit(a)
    text = capsys.readouterr().err
    assert "fit" in text and "objective" in text and "20/20" in text
    np.testing.assert_array_equal(quiet[0], shown[0])
    np.testing.assert_allclose(model.encode(a), shown[0], rtol=1e-9, atol=1e-12)
    text = capsys.readouterr().err
    assert "encode" in text and "gradient" in text


def test_the_limit_warns() -> None:
    with pytest.warns(ConvergenceWarning, match="max_iter = 2 sweeps"):
        NMF(K).fit(data(), max_iter=2)


@pytest.mark.slow
def test_torch_is_not_imported() -> None:
    """D21: overcomplete imports torch, torchvision, timm and OpenCV."""
    import subprocess

    script = "import sys, numpy as np, deepnmf_jax as d; d.NMF(2, max_iter=1, tol=0).fit(np.ones((3, 4)));"
    script += "assert not {'torch', 'sklearn', 'tqdm'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(deepnmf_jax.__file__).parents[1])
