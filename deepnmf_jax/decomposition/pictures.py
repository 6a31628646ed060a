"""What a dictionary means: pictures of its concepts, of the images that use each of them most, and where; how many.

Not imported by `deepnmf_jax`: matplotlib is loaded by those who draw.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from deepnmf_jax.decomposition.consensus import Consensus, Stability
from deepnmf_jax.decomposition.metrics import cosines
from deepnmf_jax.plotting import BLUE, GREEN, GREY, SKY, VERMILLION, styled


def most_active(codes: Any, count: int) -> np.ndarray:
    """For each concept the images that use it most, the first one most of all: (k, count) positions in `codes`.

    Args:
      codes: Z (n, k).
      count: how many images a concept, at most n.

    Raises:
      ValueError: codes of another rank, or fewer images than `count`.
    """
    codes = np.asarray(codes)
    if codes.ndim != 2 or not 1 <= count <= len(codes):
        raise ValueError(f"codes must be (n, k) with n >= count >= 1, got {codes.shape} and count = {count}")
    return np.argsort(-codes, axis=0, kind="stable")[:count].T


def strongest_places(codes: Any) -> tuple[np.ndarray, np.ndarray]:
    """For codes at the positions of maps: how strongly each image uses each concept, and where.

    Args:
      codes: Z (n, height, width, k), one code a position.

    Returns:
      The largest code of each image and concept (n, k), and its row and column (n, k, 2).

    Raises:
      ValueError: codes of another rank.
    """
    codes = np.asarray(codes)
    if codes.ndim != 4:
        raise ValueError(f"codes must be (n, height, width, k), got {codes.shape}")
    n, _, width, k = codes.shape
    flat = codes.reshape(n, -1, k)
    place = flat.argmax(axis=1)
    return flat.max(axis=1), np.stack([place // width, place % width], axis=-1)


def patches_at(images: Any, places: Any, size: int, stride: int) -> np.ndarray:
    """The window of each image that a position of a map sees.

    Args:
      images: (..., height, width, channels).
      places: row and column of the position (..., 2).
      size: side of the window in pixels.
      stride: pixels between the windows of neighbouring positions; that of position (0, 0) starts at pixel (0, 0).

    Returns:
      Windows (..., size, size, channels).
    """
    images, places = np.asarray(images), np.asarray(places)
    windows = np.lib.stride_tricks.sliding_window_view(images, (size, size), axis=(-3, -2))
    start = stride * places
    some = windows.reshape(-1, *windows.shape[-5:])
    chosen = some[np.arange(len(some)), start[..., 0].ravel(), start[..., 1].ravel()]
    return np.moveaxis(chosen, 1, -1).reshape(*places.shape[:-1], size, size, images.shape[-1])


@styled
def draw_concepts(concepts: Any, shape: tuple[int, ...]) -> Figure:
    """The rows of a dictionary as images in a grid, each black (0) to white (its own maximum), or in colour.

    Args:
      concepts: D (k, p), non-negative.
      shape: (height, width) or (height, width, 3) with product p.

    Raises:
      ValueError: the shapes do not fit.
    """
    concepts = np.asarray(concepts)
    if concepts.ndim != 2 or not concepts.size or concepts.shape[1] != math.prod(shape):
        raise ValueError(f"concepts must be (k, {' * '.join(map(str, shape))}), k >= 1, got {concepts.shape}")
    columns = math.ceil(math.sqrt(2 * len(concepts)))
    rows = math.ceil(len(concepts) / columns)
    figure, grid = _grid(rows, columns, 10 / max(columns, 10))
    for j, (axes, concept) in enumerate(zip(grid.ravel(), concepts, strict=False)):
        _show(axes, concept.reshape(shape))
        axes.set_title(str(j), fontsize=8, fontweight="normal", pad=2)
    figure.supxlabel("black: 0; white: the largest value of each concept", fontsize=8)
    return figure


@styled
def draw_users(
    images: Any, concepts: Any = None, shape: tuple[int, ...] = (), names: Iterable[Any] | None = None
) -> Figure:
    """One row a concept: the concept itself if given, then the images (or patches) that use it most.

    Args:
      images: (k, count, height, width) with or without a last axis of 1 or 3 channels, non-negative.
      concepts: D (k, p), or None.
      shape: of a row of `concepts` as an image.
      names: what is written before the rows; None: 0, 1, 2, ...

    Raises:
      ValueError: images of another rank.
    """
    images = np.asarray(images)
    if images.ndim not in (4, 5):
        raise ValueError(f"images must be (k, count, height, width[, channels]), got {images.shape}")
    first = 0 if concepts is None else 1
    figure, grid = _grid(len(images), images.shape[1] + first, 0.75)
    rows = zip(range(len(images)) if names is None else names, grid, images, strict=True)
    for j, (name, row, users) in enumerate(rows):
        if first:
            _show(row[0], np.asarray(concepts)[j].reshape(shape))
        for axes, image in zip(row[first:], users, strict=True):
            _show(axes, image)
        place: Any = {"transform": row[0].transAxes, "ha": "right", "va": "center"}
        row[0].text(-0.15, 0.5, str(name), fontsize=8, parse_math=False, **place)
    figure.supxlabel("black: 0; white: the largest value of each image", fontsize=8)
    return figure


@styled
def draw_heatmaps(
    images: Any,
    maps: Any,
    users: Any,
    concepts: Iterable[int] | None = None,
    size: int | None = None,
    stride: int = 1,
) -> Figure:
    """One row a concept: images that use it, and over each, in red, how strongly at every place.

    Args:
      images: (n, height, width) with or without a last axis of 1 or 3 channels, non-negative.
      maps: codes at the positions of a map (n, h, w, k).
      users: for each concept shown the images of its row (m, count), as `most_active` finds them.
      concepts: which ones are shown (m,), also the names of the rows; None: 0 ... m - 1.
      size: side of the window in pixels that a position sees, and `stride` the pixels between the windows of
        neighbouring positions; the heat of a position is shown in the middle of its window. None: the map covers the
        image.
      stride: see `size`.

    Raises:
      ValueError: the shapes do not fit.
    """
    images, maps, users = np.asarray(images), np.asarray(maps), np.asarray(users)
    chosen = list(range(len(users)) if concepts is None else concepts)
    if images.ndim not in (3, 4) or maps.ndim != 4 or len(images) != len(maps):
        raise ValueError(f"images are {images.shape} and maps {maps.shape}; give (n, height, width[, channels]) and "
                         "(n, h, w, k)")  # fmt: skip
    if users.ndim != 2 or len(chosen) != len(users) or not all(0 <= j < maps.shape[-1] for j in chosen):
        raise ValueError(f"users are {users.shape} for the concepts {chosen} of {maps.shape[-1]}; give (m, count)")
    (height, width), (h, w) = images.shape[1:3], maps.shape[1:3]
    if size is None:
        edges = (0.0, float(width), float(height), 0.0)
    else:
        first = (size - stride) / 2
        edges = (first, first + stride * w, first + stride * h, first)
    figure, grid = _grid(len(users), users.shape[1], 0.75)
    for row, j, some in zip(grid, chosen, users, strict=True):
        heat = maps[some, :, :, j] / (maps[some, :, :, j].max() or 1)
        for axes, image, over in zip(row, images[some], heat, strict=True):
            _show(axes, image, (0, width, height, 0))
            colour = np.broadcast_to(np.array([0.84, 0.13, 0.0]), (h, w, 3))
            layers = np.concatenate([colour, 0.75 * np.clip(over, 0, 1)[..., None]], axis=-1)
            axes.imshow(layers, extent=edges, interpolation="bilinear")
            axes.set(xlim=(0, width), ylim=(height, 0))
        row[0].text(-0.15, 0.5, str(j), fontsize=8, transform=row[0].transAxes, ha="right", va="center")
    figure.supxlabel("red: where the concept is, of each row full where it is strongest", fontsize=8)
    return figure


@styled
def draw_stability(stability: Stability) -> Figure:
    """Stability and error against the number of components, to choose one by; a line marks the chosen one.

    Args:
      stability: what `consensus_of_each` returned.
    """
    found, ks = stability.results, stability.ks
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(ks, [one.stability for one in found], "o-", color=BLUE, label="stability: mean silhouette")
    left.plot(ks, [one.silhouettes.min() for one in found], "o--", color=SKY, label="of the least stable cluster")
    left.plot(ks, [one.cophenetic for one in found], "s:", color=GREEN, label="cophenetic correlation")
    left.legend(fontsize=7, loc="lower left")
    right.plot(ks, [one.error for one in found], "o-", color=VERMILLION, label="consensus")
    right.plot(ks, [one.restart_errors.min() for one in found], "o:", color=GREY, label="best single fit")
    right.legend(fontsize=7)
    right.set_ylabel("reconstruction error")
    for axes in (left, right):
        axes.axvline(stability.best, color=GREY, lw=0.8, zorder=0)
        axes.set(xlabel="components", xticks=ks)
    return figure


@styled
def draw_agreement(found: Consensus, most: int = 1000) -> Figure:
    """Cosines between the components of all fits, by cluster, the dropped ones last; and how dense they lie.

    Args:
      found: what `consensus(keep=True)` returned.
      most: components drawn at most, spread evenly over the clusters.

    Raises:
      ValueError: a consensus that has not kept its fits.
    """
    if found.replicates is None:
        raise ValueError("this consensus has not kept its fits; call consensus(..., keep=True)")
    kept, labels = found.kept.ravel(), found.labels.ravel()
    order = np.lexsort((labels, ~kept))[:: max(1, math.ceil(len(kept) / most))]
    rows = found.replicates.dictionaries.reshape(len(kept), -1)[order]
    figure = Figure(figsize=(7, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    image = left.imshow(cosines(rows, rows), cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
    left.set(title="components by cluster", xticks=[], yticks=[])
    left.grid(False)
    figure.colorbar(image, label="cosine")
    density = found.density.ravel()
    bins = np.linspace(0, max(density[np.isfinite(density)].max(), 1e-3), 40)
    right.hist([density[kept], density[~kept]], bins, stacked=True, color=[BLUE, GREY], label=["kept", "dropped"])
    right.set(xlabel="mean distance to the nearest ones", ylabel="components")
    right.legend(fontsize=7)
    return figure


def _grid(rows: int, columns: int, size: float) -> tuple[Figure, np.ndarray]:
    tight = ConstrainedLayoutEngine(w_pad=0.015, h_pad=0.015)
    figure = Figure(figsize=(size * columns + 0.3, size * 1.1 * rows + 0.2), layout=tight)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    return figure, grid


def _show(axes: Axes, image: np.ndarray, extent: tuple[float, float, float, float] | None = None) -> None:
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[..., 0]
    axes.imshow(image / (image.max() or 1), cmap="gray", vmin=0, vmax=1, interpolation="nearest", extent=extent)
