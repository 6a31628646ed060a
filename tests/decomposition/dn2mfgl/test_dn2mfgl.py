"""The estimator: scikit-learn's protocol, refusals, bad input, saving; blobs are found, bad samples do not matter."""

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepnmf_jax import Dn2MFGL
from deepnmf_jax.decomposition import ConvergenceWarning, UnboundedWarning
from deepnmf_jax.decomposition.dn2mfgl import objective as structure
from deepnmf_jax.decomposition.dn2mfgl import scores
from deepnmf_jax.decomposition.dn2mfgl.fit import advance, begin, make_starts
from deepnmf_jax.decomposition.dn2mfgl.graph import (
    EDGE_WEIGHTS,
    Graph,
    components,
    find_neighbors,
    from_dense,
    knn_graph,
)
from deepnmf_jax.decomposition.dn2mfgl.released import Factors
from deepnmf_jax.decomposition.dn2mfgl.spectral import spectral_codes
from deepnmf_jax.decomposition.dn2mfgl.strengths import BALANCE, balance_for, balanced_alpha, kept_neighbors, trust

SIZES = (6, 3)
ROOT = Path(__file__).resolve().parents[3]


def blobs(seed: int = 0, n: int = 36) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    return np.repeat(np.eye(3), 4, axis=1)[y] + 0.3 * rng.random((n, 12)), y


@pytest.fixture(autouse=True)
def limits_may_be_reached() -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)


@pytest.fixture(scope="module")
def fitted() -> Dn2MFGL:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return Dn2MFGL(SIZES, n_clusters=3, max_iter=60).fit(blobs()[0])


@pytest.mark.slow
def test_fit(fitted: Dn2MFGL) -> None:
    _x, y = blobs()
    assert scores.scores(y, fitted.labels_) == {"acc": 1.0, "nmi": 1.0, "ari": 1.0}
    assert fitted.embedding_.shape == (36, 3) and fitted.components_.shape == (3, 12)
    assert [h.shape for h in fitted.dictionaries_] == [(12, 6), (6, 3)]
    np.testing.assert_allclose((fitted.dictionaries_[0] @ fitted.dictionaries_[1]).T, fitted.components_, rtol=1e-10)
    np.testing.assert_allclose(np.linalg.norm(fitted.components_, axis=1), 1, rtol=1e-10)
    assert np.all(np.diff(fitted.loss_history_) <= 0) and fitted.n_iter_ <= 60
    assert fitted.boundedness_ == "bounded" and fitted.n_features_in_ == 12
    assert fitted.choice_.alpha > 0 and fitted.choice_.trust > 0.9 and "kappa" in fitted.choice_.reason
    np.testing.assert_array_equal(fitted.predict(blobs(1)[0]), fitted.labels_)


@pytest.mark.slow
def test_save_and_load(fitted: Dn2MFGL, tmp_path: Path) -> None:
    fitted.save(tmp_path / "m.npz")
    again = Dn2MFGL.load(tmp_path / "m.npz")
    x = blobs(2)[0]
    np.testing.assert_array_equal(again.transform(x), fitted.transform(x))
    np.testing.assert_array_equal(again.labels_, fitted.labels_)
    assert again.get_params() == fitted.get_params() and again.choice_ == fitted.choice_


@pytest.mark.slow
@pytest.mark.parametrize("robust", ["sample", "feature", "none"])
def test_without_structure_transform_gives_the_codes_of_the_fit(robust: str) -> None:
    x, _ = blobs()
    model = Dn2MFGL((3,), alpha=0, beta=0, nu=0, robust=robust, lam=1e-6, max_iter=3000, tol=1e-9)
    codes = model.fit_transform(x)
    difference = np.linalg.norm(model.transform(x) - codes) / np.linalg.norm(codes)
    print(f"{robust}: {difference:.2g} after {model.n_iter_} sweeps")
    assert difference < 1e-2


@pytest.mark.slow
def test_sklearn_protocol() -> None:
    sklearn = pytest.importorskip("sklearn.base")
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler

    model = Dn2MFGL((3,), n_clusters=3, max_iter=5)
    copy = sklearn.clone(model)
    assert copy is not model and copy.get_params() == model.get_params()
    assert repr(copy) == repr(model) and "max_iter=5" in repr(model)
    with pytest.raises(ValueError, match="'gamma' is no argument"):
        model.set_params(gamma=1)
    x, _ = blobs()
    pipeline = make_pipeline(MinMaxScaler(), model)
    np.testing.assert_array_equal(pipeline.fit_predict(x), model.labels_)
    assert pipeline.transform(x).shape == (36, 3) and sklearn.is_clusterer(pipeline)
    # Without n_clusters nothing of the last fit's clusters is left.
    assert model.set_params(n_clusters=None) is model
    assert not hasattr(model.fit(x), "labels_")


@pytest.mark.slow
def test_seeds_at_once_keep_the_best(capsys: pytest.CaptureFixture) -> None:
    x, _ = blobs()
    settings = {"alpha": 1.0, "init": "pretrained", "n_init": 3, "max_iter": 20}
    model = Dn2MFGL((3,), **settings).fit(x)
    assert model.losses_.shape == (3,) and len(set(model.losses_)) == 3
    assert model.loss_history_[-1] == model.losses_.min()
    # In stretches, with a bar, the same numbers.
    again = Dn2MFGL((3,), verbose=True, **settings).fit(x)
    np.testing.assert_array_equal(again.embedding_, model.embedding_)
    assert "objective" in capsys.readouterr().err


@pytest.mark.slow
def test_released_mode() -> None:
    x, _ = blobs()
    model = Dn2MFGL((3,), mode="released", max_iter=20).fit(x)
    assert model.choice_[:4] == (1.0, 1.0, 1.0, 5) and model.n_iter_ == 20 and len(model.loss_history_) == 3
    assert model.loss_history_[-1] < model.loss_history_[0]
    with pytest.warns(UnboundedWarning, match="component"):
        Dn2MFGL((3,), alpha=1, beta=0.1, nu=0, mode="released", max_iter=20).fit(x)


@pytest.mark.parametrize(
    ("setting", "match"),
    [((1, 10, 1), "has degree"), ((1, 0.1, 0), "connected component"), ((0, 0.1, 0), "sample")],
)
def test_unbounded_settings_are_refused(setting: tuple, match: str) -> None:
    alpha, beta, nu = setting
    with pytest.raises(ValueError, match=match):
        Dn2MFGL(SIZES, alpha=alpha, beta=beta, nu=nu).fit(blobs()[0])


def test_bad_arguments() -> None:
    x, _ = blobs()
    for arguments, match in [
        ({"layer_sizes": ()}, "empty"),
        ({"layer_sizes": (3, 0)}, "whole number"),
        ({"mode": "paper"}, "'well_posed', 'released'"),
        ({"robust": "pixel"}, "'sample', 'feature', 'none'"),
        ({"lam": 0}, "above 0"),
        ({"alpha": -1}, "alpha = -1"),
        ({"alpha": np.nan}, "alpha = nan"),
        ({"layer_weights": (1.0,)}, "each of the 2 layers"),
        ({"layer_weights": (1.0, 0.0)}, "the last one above 0"),
        ({"n_neighbors": 36}, "lower n_neighbors"),
        ({"n_clusters": 37}, "n_clusters = 37"),
        ({"dtype": "float16"}, "dtype"),
        ({"layer_sizes": (40,)}, "must have fewer"),
    ]:
        with pytest.raises(ValueError, match=match):
            Dn2MFGL(**({"layer_sizes": SIZES} | arguments)).fit(x)
    with pytest.raises(TypeError):
        Dn2MFGL(SIZES, gamma=1)
    with pytest.raises(ValueError, match="needs n_clusters"):
        Dn2MFGL(SIZES).fit_predict(x)
    for init, match in [
        (((np.ones((12, 3)),), (np.ones((3, 35)),)), r"V_1 \(3, 36\)"),
        (((np.ones((12, 3)),), (-np.ones((3, 36)),)), "V_1 that are negative"),
        ((np.ones((12, 3)),), "H_1"),
    ]:
        with pytest.raises(ValueError, match=match):
            Dn2MFGL((3,), alpha=1).fit(x, init=init)
    for method in (Dn2MFGL(SIZES).transform, Dn2MFGL(SIZES).save):
        with pytest.raises(ValueError, match="call fit first"):
            method(x)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda x: -x, "negative entries"),
        (lambda x: np.where(x > x.mean(), np.nan, x), "NaN"),
        (lambda x: x[0], "must be a matrix"),
        (lambda x: x[:0], "empty"),
        (lambda x: x[:4], "n_neighbors = 5 with 4 samples"),
    ],
)
def test_bad_data(change: object, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Dn2MFGL(SIZES).fit(change(blobs()[0]))  # type: ignore[operator]


@pytest.mark.slow
@pytest.mark.parametrize("join", ["union", "mutual"])
def test_duplicates_zeros_isolated_samples_and_constant_features(join: str) -> None:
    x, _ = blobs()
    x = np.concatenate([x, x[:1].repeat(8, axis=0), np.zeros((1, 12))])
    x[:, 0], x[:, 1] = 0, 1
    model = Dn2MFGL((3,), n_clusters=3, join=join, max_iter=20).fit(x)
    assert np.isfinite(model.embedding_).all() and np.isfinite(model.components_).all()
    if join == "mutual":
        # Among eight copies the others have no mutual neighbour: alone in the graph, not in the fit.
        graph = knn_graph(find_neighbors(np.asarray(model._read(x, np.dtype("float64"))), 3), "mutual")
        assert np.asarray(graph.degrees).min() == 0
    with pytest.raises(ValueError, match="A has 4 features"):
        model.transform(x[:, :4])
    zeros = Dn2MFGL((3,), max_iter=20).fit(np.zeros((20, 12)))
    assert np.isfinite(zeros.embedding_).all() and np.isfinite(zeros.loss_history_).all()


@pytest.mark.slow
@pytest.mark.parametrize("form", [structure.Form(), structure.Form("feature", inner=True)])
def test_nothing_is_built_for_every_pair_of_samples_or_features(form: structure.Form) -> None:
    """Every array of the compiled sweeps, by its shape: m = 43 features and n = 47 samples meet in X alone."""
    n, m, sizes = 47, 43, (5, 3)
    x = np.random.default_rng(0).random((m, n))
    graph = knn_graph(find_neighbors(x.T, 3))
    starts = make_starts(jax.random.split(jax.random.key(0), 1), x, np.ones((3, n)), sizes)
    strengths = structure.Strengths(*(jnp.asarray(value) for value in (1.0, 0.1, 0.1, 0.01, 1e-3, [0.1, 1.0])))

    def fit(x: jax.Array, starts: Factors, graph: Graph) -> tuple:
        state = begin(tuple(h[0] for h in starts.h), starts.v[-1][0], x, graph, strengths, form)
        return advance(state, 20, x, graph, strengths, form, 1e-5)

    shapes = set(shapes_in(jax.make_jaxpr(fit)(x, starts, graph).jaxpr))
    assert (m, n) in shapes
    assert not [shape for shape in shapes if sum(size in (n, m) for size in shape) > 1 and sorted(shape) != [m, n]]


def shapes_in(jaxpr: object) -> Iterator[tuple[int, ...]]:
    """Of every value in a program and in those inside it."""
    for equation in jaxpr.eqns:  # type: ignore[attr-defined]
        yield from (tuple(value.aval.shape) for value in (*equation.invars, *equation.outvars))
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from shapes_in(inner)


@pytest.mark.slow
def test_many_samples_fit_into_little_memory() -> None:
    """20,000 samples: far below the 1,600 MB that one float32 number for each pair would take."""
    program = """
import resource, warnings
import numpy as np
from deepnmf_jax import Dn2MFGL
warnings.simplefilter("ignore")
x = np.random.default_rng(0).random((20_000, 20), np.float32)
Dn2MFGL((10, 5), max_iter=10).fit(x[:500])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = Dn2MFGL((10, 5), max_iter=10).fit(x)
assert model.embedding_.shape == (20_000, 5)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    # Kilobytes on Linux, bytes on a Mac.
    grown = int(ended.stdout) * (1 if sys.platform == "darwin" else 1024)
    print(f"{grown / 1e6:.0f} MB")
    assert grown < 400e6


def test_neighbors() -> None:
    x = np.random.default_rng(0).random((30, 4))
    found = find_neighbors(x, 4)
    distances = np.linalg.norm(x[:, None] - x[None], axis=-1) + 1e9 * np.eye(30)
    np.testing.assert_array_equal(found.indices, np.argsort(distances, axis=1)[:, :4])
    np.testing.assert_allclose(found.distances, np.sort(distances, axis=1)[:, :4], rtol=1e-6)
    for join in ("union", "mutual"):
        for weights in EDGE_WEIGHTS:
            graph = knn_graph(found, join, weights, normalize=join == "union")
            s = np.zeros((30, 30))
            s[np.asarray(graph.rows), np.asarray(graph.columns)] = graph.weights
            np.testing.assert_array_equal(s, s.T)
            np.testing.assert_allclose(s.sum(1), graph.degrees)
            assert (np.diag(s) == 0).all() and (s >= 0).all()
            near = np.zeros((30, 30), bool)
            np.put_along_axis(near, found.indices, True, axis=1)
            np.testing.assert_array_equal(s > 0, near | near.T if join == "union" else near & near.T)


def test_shared_neighbors_weigh_an_edge() -> None:
    """On a line of five points: 0 and 1 share both and themselves, 1 and 2 have three of four in common, ..."""
    x = np.array([[0.0], [1.0], [2.1], [3.3], [4.6]])
    found = find_neighbors(x, 2)
    np.testing.assert_array_equal(np.sort(found.indices, axis=1), [[1, 2], [0, 2], [1, 3], [2, 4], [2, 3]])
    graph = knn_graph(found, edge_weights="shared")
    weights = {(int(i), int(j)): float(w) for i, j, w in zip(*graph[:3], strict=True)}
    assert weights == pytest.approx(
        {
            pair[::step]: value
            for pair, value in {
                (0, 1): 1.0, (0, 2): 0.25, (1, 2): 0.25, (2, 3): 0.25, (2, 4): 0.25, (3, 4): 1.0
            }.items()
            for step in (1, -1)
        },
        rel=1e-6,
    )  # fmt: skip


def test_blocks_of_neighbors_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).random((23, 4))
    whole = find_neighbors(x, 3)
    monkeypatch.setattr("deepnmf_jax.decomposition.dn2mfgl.graph.BLOCK_ENTRIES", 23 * 5)
    np.testing.assert_array_equal(find_neighbors(x, 3).indices, whole.indices)


def test_components() -> None:
    s = np.zeros((6, 6))
    for i, j in ((0, 3), (3, 5), (1, 2)):
        s[i, j] = s[j, i] = 1
    np.testing.assert_array_equal(components(from_dense(s)), [0, 1, 1, 0, 2, 0])


def test_scores() -> None:
    truth = np.array([0, 0, 1, 1, 2, 2])
    assert scores.accuracy(truth, [5, 5, 3, 3, 4, 4]) == 1
    assert scores.accuracy(truth, [0, 0, 0, 0, 0, 0]) == pytest.approx(1 / 3)
    # More clusters than classes: one of them stands for nothing.
    assert scores.accuracy(truth, [0, 1, 2, 2, 3, 3]) == pytest.approx(5 / 6)
    with pytest.raises(ValueError, match="truth has shape"):
        scores.scores(truth, [1, 2])


def test_the_rule_trusts_a_graph_that_foretells_its_neighbours() -> None:
    """Two blobs: the groups of the graph hold every neighbour left out. Mixed groups: no more than by chance."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    neighbors = find_neighbors(rng.random((60, 5)) + 10 * y[:, None], 5)
    assert trust(neighbors, 4, y) == 1
    assert trust(neighbors, 4, rng.permutation(y)) < 0.3
    assert trust(neighbors, 4, np.zeros(60, int)) == 0
    assert balance_for(1.0) == BALANCE > balance_for(0.6) > balance_for(0.4) > balance_for(0.0) == 0
    assert [kept_neighbors(k) for k in (2, 5)] == [1, 4]
    with pytest.raises(ValueError, match="use at least 2"):
        kept_neighbors(1)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(3,), (6, 3)])
def test_the_alpha_of_the_rule_balances_the_terms(sizes: tuple[int, ...]) -> None:
    """With it the best scale of the start has the wanted ratio of penalties and data, whatever lam and the layers."""
    x = np.random.default_rng(0).random((12, 40))
    graph = knn_graph(find_neighbors(x.T, 4), "union", "local_scaling", True)
    starts = make_starts(jax.random.split(jax.random.key(0), 1), x, spectral_codes(graph, 3), sizes)
    h, v = tuple(matrix[0] for matrix in starts.h), starts.v[-1][0]
    for lam in (0.01, 1.0):
        alpha = balanced_alpha(h, v, x, graph, lam, 1e-3, "sample", 0.4)
        last = jnp.zeros(len(sizes)).at[-1].set(1)
        strengths = structure.Strengths(alpha, 0.0, 0.0, lam, 1e-3, last)
        data = np.sqrt(np.sum((x - structure.chain(h) @ v) ** 2, axis=0) + 1e-6).sum()
        scaled, form = (h, v), structure.Form()
        rescale = jax.jit(lambda h, v, s=strengths, f=form: structure.rescale(h, v, graph, s, f))
        for _ in range(60):
            scaled = rescale(*scaled)
        value, _ = structure.evaluate(*scaled, x, graph, strengths, form)
        assert float(value) / data - 1 == pytest.approx(0.4, rel=1e-3)


@pytest.mark.slow
def test_the_rule_on_digits() -> None:
    """docs/dn2mfgl.md has 85.8 % at unit length, 75.6 % for k-means on the pixels."""
    x, y = scores.digits()
    model = Dn2MFGL((10,), n_clusters=10, dtype="float32", random_state=0)
    labels = model.fit_predict(x)
    assert model.converged_ and model.boundedness_ == "bounded"
    assert model.choice_.balance == model.choice_.trust > 0.9
    assert scores.accuracy(y, labels) > 0.84
