"""The estimator: scikit-learn's protocol, refusals, bad input, saving; blobs are found."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from deepnmf_jax import Dn2MFGL
from deepnmf_jax.decomposition import ConvergenceWarning, NotFittedError, UnboundedWarning
from deepnmf_jax.decomposition.dn2mfgl import scores
from deepnmf_jax.decomposition.updates.graph import find_neighbors, knn_graph

SIZES = (6, 3)


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


def test_save_and_load(fitted: Dn2MFGL, tmp_path: Path) -> None:
    fitted.save(tmp_path / "m.npz")
    again = Dn2MFGL.load(tmp_path / "m.npz")
    x = blobs(2)[0]
    np.testing.assert_array_equal(again.transform(x), fitted.transform(x))
    np.testing.assert_array_equal(again.labels_, fitted.labels_)
    assert again.get_params() == fitted.get_params() and again.choice_ == fitted.choice_


def test_arguments_set_after_a_fit_do_not_belong_to_it(tmp_path: Path) -> None:
    x, path = blobs()[0], tmp_path / "m.npz"
    model = Dn2MFGL(SIZES, alpha=1.0, max_iter=5).fit(x).set_params(n_clusters=3)
    with pytest.raises(NotFittedError, match="this Dn2MFGL has no clusters yet; call fit first"):
        model.predict(x)
    with pytest.raises(ValueError, match="n_clusters = 3 was set after the fit, which had None; call fit again"):
        model.save(path)
    with pytest.raises(ValueError, match=r"layer_sizes = \(4,\) was .* set_params\(layer_sizes=\(6, 3\)\)"):
        model.set_params(layer_sizes=4, n_clusters=None).save(path)
    assert not path.exists()
    model.set_params(layer_sizes=SIZES, max_iter=7).save(path)
    np.testing.assert_array_equal(Dn2MFGL.load(path).transform(x), model.transform(x))


@pytest.mark.parametrize("robust", ["sample", "feature", "none"])
def test_without_structure_transform_gives_the_codes_of_the_fit(robust: str) -> None:
    x, _ = blobs()
    model = Dn2MFGL((3,), alpha=0, beta=0, nu=0, robust=robust, lam=1e-6, max_iter=3000, tol=1e-9)
    codes = model.fit_transform(x)
    difference = np.linalg.norm(model.transform(x) - codes) / np.linalg.norm(codes)
    print(f"{robust}: {difference:.2g} after {model.n_iter_} sweeps")
    assert difference < 1e-2


def test_sklearn_protocol() -> None:
    sklearn = pytest.importorskip("sklearn.base")
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    model = Dn2MFGL((3,), n_clusters=3, max_iter=5)
    copy = sklearn.clone(model)
    assert copy is not model and copy.get_params() == model.get_params()
    assert repr(copy) == repr(model) and "max_iter=5" in repr(model)
    with pytest.raises(ValueError, match="'gamma' is no argument"):
        model.set_params(gamma=1)
    x, _ = blobs()
    # A step that changes nothing: another graph would be compiled anew.
    pipeline = make_pipeline(FunctionTransformer(), model)
    np.testing.assert_array_equal(pipeline.fit_predict(x), model.labels_)
    assert pipeline.transform(x).shape == (36, 3) and sklearn.is_clusterer(pipeline)
    # Without n_clusters nothing is left of the clusters of the fit before.
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
        ({"lam": 0}, "lam = 0, but it must be a number above 0"),
        ({"alpha": -1}, "alpha = -1"),
        ({"alpha": np.nan}, "alpha = nan"),
        ({"layer_weights": (1.0,)}, "each of the 2 layers"),
        ({"layer_weights": (1.0, 0.0)}, "the last one above 0"),
        ({"layer_weights": (np.nan, 1.0)}, "each of layer_weights = nan"),
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
        (lambda x: x[:1], "single sample"),
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
        graph = knn_graph(find_neighbors(np.asarray(model._read(x, np.dtype("float64"))[0]), 3), "mutual")
        assert np.asarray(graph.degrees).min() == 0
    with pytest.raises(ValueError, match="A has 4 features"):
        model.transform(x[:, :4])
    zeros = Dn2MFGL((3,), max_iter=20).fit(np.zeros((20, 12)))
    assert np.isfinite(zeros.embedding_).all() and np.isfinite(zeros.loss_history_).all()
