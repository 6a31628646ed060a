"""Loaders, lists of batches, and torch's tensors and devices are read as the arrays they hold."""

import pickle
import sys
from collections.abc import Callable, Iterator

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp

from deepnmf_jax import NMF, ArchetypalAnalysis, ConvexNMF, Dn2MFGL, SemiNMF
from deepnmf_jax.decomposition import ConvergenceWarning
from deepnmf_jax.decomposition.io import arrays
from tests.decomposition.test_kinds_of_arrays import P, read, table

pytestmark = pytest.mark.filterwarnings(f"ignore::{ConvergenceWarning.__module__}.{ConvergenceWarning.__name__}")


class Loader:
    """An iterable that can be walked through again, as torch's loaders are."""

    def __init__(self, items: list) -> None:
        self.items = items

    def __iter__(self) -> Iterator:
        return iter(self.items)


@pytest.mark.parametrize("kind", [Loader, list, tuple, iter])
def test_loaders(kind: Callable) -> None:
    a = table().astype("f4")
    halves = [a[:6], a[6:]]
    for items in (
        halves,
        [(half, np.zeros(6)) for half in halves],
        [[half] for half in halves],
        [(half, {"name": "x"}, None) for half in halves],
        [[sp.csr_array(half), 1] for half in halves],
    ):
        assert arrays.is_batches(kind(items))
        found = [arrays.to_numpy(batch) for batch in arrays.batches_of(kind(items))]
        np.testing.assert_array_equal(np.concatenate(found), a)
    with pytest.raises(ValueError, match=r"dict with keys 'image', 'label'"):
        list(arrays.batches_of(kind([{"image": a, "label": 1}])))


@pytest.mark.slow
def test_a_list_of_labelled_batches_is_fitted_and_encoded() -> None:
    a = table().astype("f4")
    pairs = [(a[:6], np.zeros(6)), (a[6:], np.ones(6))]
    model = NMF(2, max_iter=2)
    z, d = model.fit(pairs)
    np.testing.assert_array_equal(d, NMF(2, max_iter=2).fit(Loader(pairs))[1])
    np.testing.assert_array_equal(model.encode(pairs), z)
    for nothing in (lambda: iter([]), lambda: Loader([])):
        for use in (model.fit, model.encode):
            with pytest.raises(ValueError, match="no batches"):
                use(nothing(), max_iter=1)
        for use in (model.partial_fit, SemiNMF(2).fit, ConvexNMF(2).fit, Dn2MFGL(2).fit):
            with pytest.raises(ValueError, match="iterable of batches"):
                use(nothing())
    np.testing.assert_array_equal(model.D, d)


def test_after_partial_fit_nothing_is_said_of_the_fit_before() -> None:
    a = table().astype("f4")
    model = NMF(2, max_iter=2)
    model.fit(a)
    model.partial_fit(a[:6])
    reports = ("converged_", "loss_history_", "reconstruction_err_", "report_", "n_dead_", "restart_errors_")
    assert [getattr(model, name) for name in reports] == [None] * len(reports) and model.n_iter_ == 1
    assert model.partial_fit(a[6:]).n_iter_ == 2


@pytest.mark.filterwarnings("ignore:Sparse (CSR tensor|invariant):UserWarning")  # once a process, of torch
def test_torch() -> None:
    torch = pytest.importorskip("torch")
    a = table()
    tensor = torch.from_numpy(a)
    whole = (tensor * 3_000_001).long()
    for x in (tensor.float(), tensor.bfloat16(), tensor.half(), tensor.to(torch.uint8), tensor.float().to_sparse()):
        assert read(x).dtype == np.float32
        np.testing.assert_array_equal(read(x), a)
    for x in (tensor, tensor.clone().requires_grad_(), tensor.T.contiguous().T, tensor.to_sparse_csr(), list(tensor)):
        assert read(x).dtype == np.float64
        np.testing.assert_array_equal(read(x), a)
    np.testing.assert_array_equal(read(whole), whole.numpy())
    # torch keeps the sign of this one beside its numbers.
    conjugate = torch.complex(tensor, -tensor).conj().imag
    assert conjugate.is_neg()
    np.testing.assert_array_equal(read(conjugate), a)
    doubled = torch.sparse_coo_tensor([[0, 0, 1], [2, 2, 0]], [1.0, 2.0, 5.0], (2, 3))
    np.testing.assert_array_equal(read(doubled), [[0, 0, 3], [5, 0, 0]])
    for wrong in (tensor.to(torch.complex64), tensor.to(torch.complex64).to_sparse(), torch.empty(3, 2, device="meta")):
        with pytest.raises(ValueError, match="complex|cannot read"):
            read(wrong)
    model = NMF(2, torch.device("cpu"), max_iter=2)
    z, d = model.fit(tensor)
    assert isinstance(z, torch.Tensor) and d.dtype == torch.float64 and model.device == "cpu"
    assert model.to(torch.device("cpu")) is model and NMF(2).to(torch.device("cpu")).device == "cpu"
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(again.encode(tensor), model.encode(tensor))
    with pytest.raises(ValueError, match="meta.* is not here"):
        NMF(2).to(torch.device("meta")).fit(tensor)


def test_devices_of_torch_are_known_by_their_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without torch installed: a module of its name that has devices."""

    class Device:
        def __init__(self, name: str) -> None:
            self.name = name

        def __str__(self) -> str:
            return self.name

    if "torch" not in sys.modules:
        stand_in = type(sys)("torch")
        stand_in.device, stand_in.Tensor = Device, type("Tensor", (), {})  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "torch", stand_in)
    device = sys.modules["torch"].device
    for make in (NMF, SemiNMF, ConvexNMF, ArchetypalAnalysis):
        assert make(2, device=device("cpu")).to(device("cpu")).device == "cpu"
        model = make(2).to(device("cuda:7"))
        assert model.device == "cuda:7"
        model._d = jnp.ones((2, P))
        with pytest.raises(ValueError, match="'cuda:9' is not here"):
            model.to(device("cuda:9"))
        with pytest.raises(ValueError, match="'cuda:7' is not here"):
            model.fit(table())
        with pytest.raises(ValueError, match="device = 0; give"):
            make(2, device=0)
