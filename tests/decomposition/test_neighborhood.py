"""`NMF` with a graph, with labels and with overlap penalties: what they are for, and what is refused."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from deepnmf_jax import NMF
from deepnmf_jax.decomposition import ConvergenceWarning
from deepnmf_jax.decomposition.io.checked import read_data
from deepnmf_jax.decomposition.neighborhood import graph_of
from deepnmf_jax.decomposition.updates.graph import similarity
from deepnmf_jax.decomposition.updates.solvers import SOLVERS

N, P, K = 40, 12, 3
OTHERS = [*((solver, 2.0) for solver in SOLVERS if solver != "hals"), ("mu", 1.0)]


@pytest.fixture(autouse=True)
def limits_may_be_reached() -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)


def groups(noise: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Samples (N, P) of K groups, each around a part of its own, and their groups."""
    rng = np.random.default_rng(0)
    y = np.arange(N) % K
    return rng.random((K, P))[y] + noise * rng.random((N, P)), y


def edges(graph: object, labels: object, a: np.ndarray) -> np.ndarray:
    return similarity(graph_of(graph, labels, read_data(a, a.dtype))).toarray()


def smoothness(z: np.ndarray, d: np.ndarray, s: np.ndarray) -> float:
    codes = np.asarray(z) * np.linalg.norm(d, axis=1)
    return 0.5 * float(np.sum(s[:, :, None] * (codes[:, None] - codes[None]) ** 2)) / float(np.sum(codes**2))


@pytest.mark.parametrize(
    ("solver", "beta"),
    [("hals", 2.0), *(pytest.param(*kind, marks=pytest.mark.slow) for kind in OTHERS)],
)
def test_neighbours_have_near_codes(solver: str, beta: float) -> None:
    a, _ = groups()
    s = edges(None, None, a)
    settings = {"solver": solver, "beta_loss": beta, "max_iter": 150, "tol": 0}
    plain, bound = NMF(K, **settings), NMF(K, alpha_graph=1.0, **settings)
    before, after = (smoothness(*model.fit(a, **more), s) for model, more in ((plain, {}), (bound, {"graph": s})))
    assert after < 0.5 * before
    assert np.all(np.diff(bound.loss_history_) <= 1e-9 * bound.loss_history_[0])
    np.testing.assert_array_equal(bound.fit(a)[0], bound.fit(a, graph=5)[0])


@pytest.mark.slow
def test_the_codes_of_the_fit_are_the_minimum() -> None:
    """Against a plain loop of projected gradient steps on the codes alone."""
    a, _ = groups()
    model = NMF(K, alpha_graph=0.5, max_iter=300, tol=1e-6)
    z, d = model.fit(a, graph=4)
    s = edges(4, None, a)
    lap, squares = np.diag(s.sum(1)) - s, np.sum(d**2, axis=1)
    codes, length = np.zeros_like(z), 1 / (np.linalg.norm(d @ d.T, 2) + 0.5 * squares.max() * 2 * s.sum(1).max())
    for _ in range(20_000):
        codes = np.maximum(codes - length * ((codes @ d - a) @ d.T + 0.5 * lap @ codes * squares), 0)
    np.testing.assert_allclose(z, codes, atol=1e-4 * codes.max())
    # New samples have no neighbours: theirs are plain codes.
    np.testing.assert_allclose(model.encode(a), NMF(K).with_dictionary(d, a).encode(a), atol=1e-6)


@pytest.mark.parametrize("scale", [4.0**-12, 4.0**12])
@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_the_unit_of_the_data_and_of_the_term(scale: float, beta: float) -> None:
    a, _ = groups()
    settings = {"solver": "mu", "beta_loss": beta, "max_iter": 30, "tol": 0}
    z, _d = NMF(K, alpha_graph=0.7, **settings).fit(a)
    more = NMF(K, alpha_graph=0.7 * scale ** (beta - 2), **settings).fit(a * scale)
    np.testing.assert_allclose(more[0], z * scale**0.5, rtol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 4))
def test_edges_of_labels(seed: int, neighbours: int) -> None:
    rng = np.random.default_rng(seed)
    a = rng.random((15, 4))
    labels = rng.integers(-1, 3, 15)
    labels[:2] = 0
    found, near = edges(neighbours, labels, a), np.zeros((15, 15))
    if neighbours:
        near = edges(neighbours, None, a)
    for i in range(15):
        for j in range(15):
            same = i != j and labels[i] == labels[j] >= 0
            apart = labels[i] >= 0 and labels[j] >= 0 and labels[i] != labels[j]
            expected = 0.0 if apart else near[i, j] + (1 / np.sum(labels == labels[i]) if same else 0)
            assert found[i, j] == pytest.approx(expected, abs=1e-12)


@pytest.mark.slow
def test_labels_gather_their_classes() -> None:
    a, y = groups(noise=2.0)
    labels = np.where(np.arange(N) % 2, y, -1)
    known = labels >= 0

    def spread(z: np.ndarray, d: np.ndarray) -> float:
        codes = z * np.linalg.norm(d, axis=1)
        within = sum(np.sum((codes[labels == c] - codes[labels == c].mean(0)) ** 2) for c in range(K))
        return within / np.sum((codes[known] - codes[known].mean(0)) ** 2)

    plain = NMF(K, max_iter=200).fit(a)
    bound = NMF(K, alpha_graph=10.0, max_iter=200).fit(a, graph=0, labels=labels)
    assert spread(*bound) < 0.5 * spread(*plain)


@pytest.mark.slow
def test_kinds_of_graphs() -> None:
    a, _ = groups()
    s = edges(5, None, a)
    model = NMF(K, alpha_graph=1.0, max_iter=10, tol=0)
    z, _ = model.fit(a, graph=s)
    for other in (sparse.csr_matrix(s), sparse.coo_array(s + np.eye(N)), s.tolist(), 5, np.int64(5), None):
        np.testing.assert_allclose(model.fit(a, graph=other)[0], z, rtol=1e-9)
    weights = np.random.default_rng(0).random(a.shape) > 0.2
    holes = np.where(weights, a, np.nan)
    found = model.fit(holes, mask=weights, graph=s)[0]
    assert np.isfinite(found).all()
    spread = NMF(K, alpha_graph=1.0, max_iter=10, tol=0).fit(sparse.csr_matrix(a), graph=s)[0]
    np.testing.assert_allclose(spread, z, rtol=1e-6)


def test_what_is_refused() -> None:
    a, y = groups()
    s, model = edges(5, None, a), NMF(K, alpha_graph=1.0)
    for more, message in (
        ({"graph": s[:5]}, "shape"),
        ({"graph": -s}, "negative"),
        ({"graph": np.triu(s)}, "not symmetric"),
        ({"graph": 2.5}, "graph"),
        ({"graph": 0}, "no edge"),
        ({"graph": 0, "labels": np.full(N, -1)}, "no edge"),
        ({"labels": y[:5]}, "labels"),
        ({"labels": y - 5}, "-5"),
        ({"labels": y.astype(float)}, "float"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(a, **more)
    with pytest.raises(ValueError, match="alpha_graph = 0"):
        NMF(K).fit(a, labels=y)
    with pytest.raises(ValueError, match="dense A"):
        model.fit(sparse.csr_matrix(a))
    for call in (model.partial_fit, lambda a: model.fit([a])):
        with pytest.raises(ValueError, match="alpha_graph = 1"):
            call(a)
    for more, other in (({"ortho_W": 1.0}, "alpha_H"), ({"ortho_H": 1.0, "alpha_H": 1.0}, "alpha_W")):
        with pytest.raises(ValueError, match=f"pass {other} above 0"):
            NMF(K, **more)
    with pytest.raises(ValueError, match="more than"):
        NMF(K, alpha_graph=1.0).fit(np.ones((5000, 1)), graph=0, labels=np.zeros(5000, int))


def overlap(x: np.ndarray) -> float:
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    return float((np.sum(unit @ unit.T) - len(x)) / (len(x) * (len(x) - 1)))


def test_overlap_penalties_make_factors_near_orthogonal() -> None:
    a, _ = groups()
    settings = {"alpha_W": 1e-3, "alpha_H": 1e-3, "max_iter": 300}
    plain = NMF(K, **settings).fit(a)
    model = NMF(K, ortho_W=0.05, **settings)
    codes = model.fit(a)
    parts = NMF(K, ortho_H=0.05, **settings).fit(a)
    assert overlap(codes[0].T) < 0.5 * overlap(plain[0].T) and overlap(parts[1]) < 0.5 * overlap(plain[1])
    np.testing.assert_array_equal(model.encode(a), codes[0])
    import jax

    with pytest.raises(ValueError, match="ortho_W"):
        jax.jit(model.encode)(a)
