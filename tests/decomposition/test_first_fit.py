"""The last solve of a fit is compiled while the sweeps are, and no program twice for it."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from deepnmf_jax import NMF, compiled
from deepnmf_jax.decomposition import codes, nmf

A = np.random.default_rng(0).random((9, 6))


def sparse() -> Any:
    return pytest.importorskip("scipy.sparse").csr_matrix(np.where(A > 0.5, A, 0))


FITS: dict[str, Callable[[], Any]] = {
    "float32": lambda: NMF(2).fit(A.astype(np.float32)),
    "float64": lambda: NMF(2).fit(A),
    "JAX": lambda: NMF(2).fit(jax.numpy.asarray(A)),
    "on a chosen device": lambda: NMF(2).fit(jax.device_put(A, jax.devices()[0])),
    "device": lambda: NMF(2, device=jax.devices()[0]).fit(A),
    "sparse": lambda: NMF(2).fit(sparse()),
    "sparse KL": lambda: NMF(2, solver="mu", beta_loss="kullback-leibler").fit(sparse()),
    "weights": lambda: NMF(2).fit(A, weights=A + 1),
    "penalties": lambda: NMF(2, alpha_W=0.1, l1_ratio=0.5).fit(A),
    "shuffled, one atom known": lambda: NMF(2, shuffle=True, known_D=np.stack([A[0], np.full(6, np.nan)])).fit(A),
    "graph": lambda: NMF(2, alpha_graph=0.1).fit(A),
    "restarts": lambda: NMF(2, init="random", n_restarts=2).fit(A),
    "with a bar": lambda: NMF(2, verbose=True, max_iter=20, tol=0).fit(A),
}


def programs_of(fit: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> int:
    """How many are compiled for a fit in a fresh process."""
    jax.clear_caches()
    counter = compiled.Bound(programs=1_000_000)
    monkeypatch.setattr(compiled, "BOUND", counter)
    fit()
    return counter.compiled


@pytest.mark.slow
@pytest.mark.parametrize("name", FITS)
def test_nothing_is_compiled_twice(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    beside = programs_of(FITS[name], monkeypatch)
    monkeypatch.setattr(nmf, "compiled_meanwhile", lambda *_: contextlib.nullcontext())
    assert beside == programs_of(FITS[name], monkeypatch)


def test_the_solve_is_lowered_before_the_sweeps_and_then_found(monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    search, sweeps = codes.search, nmf.NMF._sweeps

    @functools.wraps(search)
    def traced(*arguments: Any, **named: Any) -> Any:
        order.append("search")
        return search(*arguments, **named)

    def swept(*arguments: Any) -> Any:
        order.append("sweeps")
        return sweeps(*arguments)

    monkeypatch.setattr(codes, "_compiled_search", jax.jit(traced, static_argnames=("settings",)))
    monkeypatch.setattr(nmf.NMF, "_sweeps", swept)
    NMF(2).fit(A)
    assert order == ["search", "sweeps"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:NMF stopped after")
@pytest.mark.parametrize("beta", [2.0, 1.5])
def test_the_solve_starts_from_the_sweeps_where_there_is_one_minimum(
    beta: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere as `encode` does: for other divergences, more atoms than features, an overlap penalty."""
    starts = []
    find = codes.find_codes

    def found(*arguments: Any) -> Any:
        starts.append(arguments[-1])
        return find(*arguments)

    monkeypatch.setattr(nmf, "find_codes", found)
    how: dict[str, Any] = {"solver": "mu", "beta_loss": beta, "max_iter": 20} if beta != 2 else {}
    for model in (NMF(2, **how), NMF(7, **how), NMF(2, ortho_W=0.1, alpha_H=0.1, **how)):
        z, _ = model.fit(A)
        assert (starts[-1] is not None) == (beta == 2 and model.nb_concepts == 2 and not model.ortho_W)
        np.testing.assert_allclose(model.encode(A), z, rtol=1e-5, atol=1e-5)
        assert starts[-1] is None
