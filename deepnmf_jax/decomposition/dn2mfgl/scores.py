"""Clusters of codes (k-means) and what they are worth: accuracy, NMI, ARI. Needs the extra `sklearn`."""

from typing import Any

import numpy as np


def _sklearn(name: str) -> Any:
    """A module of scikit-learn. ImportError that says how to get it."""
    try:
        import sklearn
        import sklearn.cluster
        import sklearn.datasets
        import sklearn.metrics
        import sklearn.utils
    except ImportError as error:
        raise ImportError(f"{name} needs scikit-learn, which is not installed: pip install scikit-learn") from error
    return sklearn


def check_clustering(n_clusters: int | None) -> None:
    """ImportError where labels are wanted and scikit-learn, which makes them, is not installed."""
    if n_clusters is not None:
        _sklearn(f"Dn2MFGL with n_clusters = {n_clusters} (n_clusters = None gives the codes without labels)")


def transformer_tags(clusters: bool, dtype: str | None) -> Any:
    """What scikit-learn's pipelines ask of an estimator that is not derived from theirs: a transformer, with `clusters`
    a clusterer too, of non-negative data, dense or sparse, that keeps float32 and float64 or computes in the given
    dtype. ImportError without scikit-learn."""
    utils = _sklearn("the protocol of scikit-learn").utils
    return utils.Tags(
        estimator_type="clusterer" if clusters else None,
        target_tags=utils.TargetTags(required=False),
        transformer_tags=utils.TransformerTags(preserves_dtype=["float64", "float32"] if dtype is None else [dtype]),
        input_tags=utils.InputTags(positive_only=True, sparse=True),
    )


def kmeans(codes: Any, n_clusters: int, random_state: int = 0, n_init: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n,) and centers (c, k) by scikit-learn's k-means of codes (n, k): the best of `n_init` starts by inertia.

    Raises:
        ImportError: no scikit-learn. ValueError: more clusters than samples.
    """
    fitted = _sklearn("k-means").cluster.KMeans(n_clusters, n_init=n_init, random_state=random_state).fit(codes)
    return fitted.labels_, fitted.cluster_centers_


def nearest(codes: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """The number (n,) of the center (c, k) that is nearest to each of the codes (n, k)."""
    squares = np.sum(centers**2, axis=1) - 2 * codes @ centers.T
    return np.argmin(squares, axis=1)


def accuracy(truth: Any, labels: Any) -> float:
    """Share of samples that are right under the best one-to-one map of clusters to classes (Hungarian method).

    Raises:
        ValueError: different lengths.
    """
    # A third of a second of imports that only this needs.
    from scipy.optimize import linear_sum_assignment

    truth, labels = _pair(truth, labels)
    classes, clusters = (np.unique(a, return_inverse=True)[1] for a in (truth, labels))
    table = np.zeros((clusters.max() + 1, classes.max() + 1))
    np.add.at(table, (clusters, classes), 1)
    return float(table[linear_sum_assignment(-table)].sum() / len(truth))


def _pair(truth: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    truth, labels = np.asarray(truth), np.asarray(labels)
    if truth.ndim != 1 or truth.shape != labels.shape or not len(truth):
        raise ValueError(f"truth has shape {truth.shape} and labels {labels.shape}; both must be (n_samples,)")
    return truth, labels


def scores(truth: Any, labels: Any) -> dict[str, float]:
    """Accuracy, normalised mutual information (arithmetic mean) and adjusted Rand index: "acc", "nmi", "ari".

    Raises:
        ImportError: no scikit-learn. ValueError: different lengths.
    """
    truth, labels = _pair(truth, labels)
    metrics = _sklearn("clustering scores").metrics
    return {
        "acc": accuracy(truth, labels),
        "nmi": float(metrics.normalized_mutual_info_score(truth, labels)),
        "ari": float(metrics.adjusted_rand_score(truth, labels)),
    }


def single_start_scores(
    codes: Any, truth: Any, n_clusters: int, repeats: int = 10, random_state: int = 0
) -> list[dict[str, float]]:
    """Scores of `repeats` k-means runs of one start each, as clustering papers report them."""
    runs = (kmeans(codes, n_clusters, random_state + i, n_init=1) for i in range(repeats))
    return [scores(truth, labels) for labels, _ in runs]


def digits() -> tuple[np.ndarray, np.ndarray]:
    """The 1797 digits of 8 x 8 pixels that scikit-learn ships: x (1797, 64) in [0, 1] float32, y (1797,)."""
    loaded = _sklearn("the set of digits").datasets.load_digits()
    return (loaded.data / 16).astype(np.float32), loaded.target
