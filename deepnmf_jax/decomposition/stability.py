"""How well the components of many fits agree: local density, k-means, silhouettes, cophenetic correlation.

Distances are taken by blocks of rows: nothing of the square of the number of components is held.
"""

import math
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from deepnmf_jax.decomposition.metrics import directions

# Rows of which the distances to all others are held at once, as numbers.
HELD = 2**24
# k-means: sweeps between two looks at whether the labels still change, and looks at most.
SWEEPS, LIMIT = 5, 50
# Of components of length 1 those at most so far apart, a cosine of 0.875, may be one component.
REACH = 0.5
# Samples that the cophenetic correlation compares at most; their pairs are held.
SAMPLES = 1000


def _distances(rows: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Euclidean distances of a block of rows to all of them, block after block; of a row to itself exactly 0."""
    squares = np.sum(rows**2, axis=1)
    step = max(1, HELD // len(rows))
    for first in range(0, len(rows), step):
        block = slice(first, first + step)
        squared = squares[block, None] + squares - 2 * rows[block] @ rows.T
        found = np.sqrt(np.maximum(squared, 0))
        own = np.arange(len(found))
        found[own, first + own] = 0
        yield block, found


def local_density(rows: np.ndarray, neighbours: int) -> np.ndarray:
    """Mean distance (m,) of each row (m, p) to its nearest `neighbours` others: small where many are alike."""
    density = np.empty(len(rows))
    for block, distances in _distances(rows):
        # The nearest is the row itself, at 0.
        nearest = np.partition(distances, neighbours, axis=1)[:, : neighbours + 1]
        density[block] = nearest.sum(axis=1) / neighbours
    return density


def modes(rows: np.ndarray, fits: np.ndarray, k: int, radius: float) -> np.ndarray:
    """Where components of many fits lie dense: k times the row with the most others within `radius`, and their mean.

    A fit has each component once: before the next one is sought, the nearest row of every fit is taken out, if it is
    within `REACH`. So what is left over of a wide cluster is no cluster of its own, and two components that are alike
    stay two.

    Args:
        rows: components (m, p), m >= k.
        fits: which fit each row is of (m,), one of 0, 1, ...
        k: how many modes.
        radius: Euclidean distance.

    Returns:
        The modes (k, p).
    """
    near = np.concatenate([distances <= radius for _, distances in _distances(rows)])
    left, found = np.ones(len(rows), bool), np.empty((k, rows.shape[1]), rows.dtype)
    for j in range(k):
        # Where few are left, a row of its own is better than none.
        free = left if left.any() else ~left
        counts = near @ free.astype(np.float32)
        center = int(np.argmax(np.where(free, counts, -1)))
        found[j] = rows[near[center] & free].mean(axis=0)
        distance = np.where(free, np.linalg.norm(rows - rows[center], axis=1), np.inf)
        nearest = np.full(fits.max() + 1, REACH)
        np.minimum.at(nearest, fits, distance)
        left[free & (distance == nearest[fits])] = False
    return found


def kmeans(rows: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Labels (m,) of rows (m, p), m >= k, by k-means from centers (k, p), until they stay.

    A center that loses all its rows goes to the row that is farthest from its own.
    """
    # A tenth of a second of imports that only this needs.
    from scipy.cluster.vq import kmeans2

    k, labels = len(centers), np.full(len(rows), -1)
    for _ in range(LIMIT):
        before = labels
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "One of the clusters is empty")
            centers, labels = kmeans2(rows, centers, iter=SWEEPS, minit="matrix")
        if (lost := np.bincount(labels, minlength=k) == 0).any():
            distances = np.linalg.norm(rows - centers[labels], axis=1)
            centers[lost] = rows[np.argsort(-distances, kind="stable")[: lost.sum()]]
        elif (before == labels).all():
            break
    return labels


def silhouettes(rows: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Silhouette (m,) of each row (m, p), of length 1, in its cluster of 0 ... k - 1, by 1 - cosine; in [-1, 1].

    (b - a) / max(a, b) with a the mean distance to the others of its cluster and b the least mean distance to another
    cluster (Rousseeuw 1987). 0 in a cluster of one; NaN where there is no other cluster.
    """
    members = np.eye(k)[labels]
    sizes = members.sum(axis=0)
    if (sizes > 0).sum() < 2:
        return np.full(len(rows), np.nan)
    # A mean of cosines is the cosine with the mean.
    sums = np.maximum(sizes - rows @ (members.T @ rows).T, 0)
    own = sizes[labels]
    inside = np.take_along_axis(sums, labels[:, None], axis=1)[:, 0] / np.maximum(own - 1, 1)
    outside = np.where((members > 0) | (sizes == 0), np.inf, sums / np.maximum(sizes, 1)).min(axis=1)
    larger = np.maximum(inside, outside)
    return np.where(own > 1, (outside - inside) / np.where(larger > 0, larger, 1), 0)


def cophenetic_correlation(assigned: np.ndarray, rng: np.random.Generator) -> float:
    """How well a tree of clusters tells how often two samples are put together: 1 where all fits agree.

    The correlation of 1 - C with the distances in its tree by average linkage, C the share of fits that give two
    samples the same component (Brunet et al. 2004). Of more than `SAMPLES` samples so many are drawn.

    Args:
        assigned: the strongest component of each sample in each fit (r, n).
        rng: draws the samples.

    Returns:
        The correlation; NaN where all pairs are together equally often, so that there is none.
    """
    from scipy.cluster.hierarchy import cophenet, linkage

    if assigned.shape[1] > SAMPLES:
        assigned = assigned[:, np.sort(rng.choice(assigned.shape[1], SAMPLES, replace=False))]
    first, second = np.triu_indices(assigned.shape[1], 1)
    together = np.zeros(len(first))
    for labels in assigned:
        together += labels[first] == labels[second]
    apart = 1 - together / len(assigned)
    if len(apart) < 2 or np.ptp(apart) == 0:
        return math.nan
    return float(cophenet(linkage(apart, "average"), apart)[0])


class Agreement(NamedTuple):
    """Medians of the clusters (k, p) at length 1, and what `Consensus` has of the same names."""

    medians: np.ndarray
    silhouettes: np.ndarray
    stability: float
    labels: np.ndarray
    kept: np.ndarray
    density: np.ndarray


def agreement(zts: np.ndarray, ds: np.ndarray, threshold: float, share: float) -> Agreement:
    """Components on which r fits agree: those that lie dense among all, clustered.

    Args:
        zts: codes Z^T of the fits (r, k, n).
        ds: dictionaries (r, k, p).
        threshold: largest mean distance to the nearest ones of a component that is clustered.
        share: how many are the nearest ones, as a share of r.

    Raises:
        ValueError: fewer than k components have an effect, or differ from one another.
    """
    r, k, p = ds.shape
    rows = ds.reshape(r * k, p)
    usage = (zts.sum(axis=2) * np.linalg.norm(ds, axis=2)).reshape(-1)
    alive = usage > 0
    if alive.sum() < k:
        raise ValueError(f"of {r * k} components {alive.sum()} have an effect, less than {k}; take fewer concepts")
    rows, usage = directions(rows[alive]), usage[alive]
    density, labels = np.full(r * k, np.inf), np.full(r * k, -1)
    if len(rows) > 1:
        density[alive] = local_density(rows, min(max(1, round(share * r)), len(rows) - 1))
    kept = density <= threshold
    if kept.sum() < k:
        kept = alive
    dense = kept[alive]
    fits = np.repeat(np.arange(r), k)
    clusters = kmeans(rows[dense], modes(rows[dense], fits[kept], k, threshold))
    distinct = len(np.unique(clusters))
    if distinct < k:
        raise ValueError(f"the fits have {distinct} distinct components, less than {k}; take fewer concepts")
    amounts = np.bincount(clusters, usage[dense], k)
    clusters = np.argsort(np.argsort(-amounts, kind="stable"))[clusters]
    medians = np.stack([_median(rows[dense][clusters == j]) for j in range(k)])
    nearest = np.argmax(rows @ medians.T, axis=1)
    nearest[dense] = clusters
    labels[alive] = nearest
    found_silhouettes = silhouettes(rows, nearest, k)
    of_clusters = np.array([found_silhouettes[nearest == j].mean() for j in range(k)])
    shaped = (x.reshape(r, k) for x in (labels, kept, density))
    return Agreement(medians, of_clusters, float(found_silhouettes.mean()), *shaped)


def _median(rows: np.ndarray) -> np.ndarray:
    """Median (p,) of rows (m, p) at length 1; their mean where no feature is in half of them."""
    median = np.median(rows, axis=0)
    return directions((median if median.any() else rows.mean(axis=0))[None])[0]
