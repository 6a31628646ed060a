"""What overcomplete 0.3.0's own tests ask of its four factorizations, asked of ours: tensors in, tensors out.

Left out: the class of an exception, and moving a model to torch's "meta" device, which JAX does not have.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepnmf_jax import NMF, ArchetypalAnalysis, ConvexNMF, SemiNMF
from deepnmf_jax.decomposition import ConvergenceWarning

N, P, K = 50, 10, 5
CASES = [
    *((NMF, solver) for solver in ("hals", "mu", "pgd", "anls")),
    *((SemiNMF, solver) for solver in ("mu", "pgd")),
    *((ConvexNMF, solver) for solver in ("mu", "pgd")),
]


@pytest.fixture(autouse=True)
def limits_may_be_reached() -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)


@pytest.fixture(scope="module")
def tensor() -> Callable[[np.ndarray], Any]:
    try:
        import torch
    except ImportError:  # then JAX arrays do
        import jax.numpy as jnp

        return jnp.asarray
    return torch.from_numpy


@pytest.fixture(scope="module")
def a(tensor: Callable[[np.ndarray], Any]) -> Any:
    return tensor(np.random.default_rng(0).random((N, P), np.float32))


def error(a: Any, z: Any, d: Any) -> float:
    return float(((a - z @ d) ** 2).sum())


def beginning(model: Any, a: Any) -> float:
    """Error of the random start that overcomplete's tests compare with."""
    z = model.init_random_z(a)
    if isinstance(model, ConvexNMF):
        return error(a, z, model.init_random_w(a) @ a)
    return error(a, z, model.init_random_d(a, z) if isinstance(model, SemiNMF) else model.init_random_d(a))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "solver"), CASES)
def test_fit_encode_decode(kind: type[Any], solver: str, a: Any, tmp_path: Path) -> None:
    model = kind(nb_concepts=K, solver=solver, max_iter=100)
    assert (model.nb_concepts, model.n_components, model.solver) == (K, K, solver)
    z, d = model.fit(a, max_iter=2)
    assert z.shape == (N, K) and d.shape == (K, P) and type(z) is type(d) is type(a)
    assert (z >= 0).all() and not (z != z).any()
    if kind is ConvexNMF:
        assert model.W.shape == (K, N) and (model.W >= 0).all()
    codes = model.encode(a)
    assert codes.shape == (N, K) and (codes >= 0).all()
    decoded = model.decode(codes)
    assert decoded.shape == (N, P) and (kind is not NMF or (decoded >= 0).all())
    model.fit(a)
    assert error(a, model.encode(a), model.get_dictionary()) < beginning(model, a)
    model.save(tmp_path / "model.npz")
    assert (kind.load(tmp_path / "model.npz").D == model.D).all()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "solver"), CASES)
def test_errors_beside_scikit_learns_and_with_many_concepts(kind: type[Any], solver: str, a: Any) -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    reference = decomposition.NMF(K, init="random", solver="mu", max_iter=1000, random_state=0).fit(np.asarray(a))
    z, d = kind(nb_concepts=K, solver=solver, max_iter=500).fit(a)

    def relative(reconstruction: Any) -> float:
        rest = np.linalg.norm(np.asarray(a) - np.asarray(reconstruction), axis=1)
        return float(np.mean(rest / np.linalg.norm(np.asarray(a), axis=1)))

    # The mean over samples of |a - a'| / |a|, its metric, against twice that of scikit-learn.
    assert relative(z @ d) < 2 * relative(reference.inverse_transform(reference.transform(np.asarray(a))))
    many = kind(nb_concepts=100, solver=solver, max_iter=100).fit(a)
    assert error(a, *many) <= error(a, z, d)


@pytest.mark.slow
def test_archetypes(a: Any) -> None:
    model = ArchetypalAnalysis(nb_concepts=K)
    z, d = model.fit(a)
    assert type(z) is type(d) is type(model.W) is type(a)
    assert error(a, z, d) < error(a, model.init_random_z(a), model.init_random_w(a) @ a)
