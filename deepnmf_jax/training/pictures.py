"""Pictures of a run: learning curves, the parts that the first layer learned, the confusion matrix.

Each picture has a function `draw_...` that builds the matplotlib `Figure`, and one that saves it as a PNG.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from deepnmf_jax.plotting import SETS, WIDTH, save, styled

# So many classes have room for a number in each square, so many for a name each, and so many for a square each.
_WRITTEN, _NAMED, _SQUARES = 20, 100, 1000
_LONGEST_NAME = 24


def learning_curves(records: Sequence[Mapping[str, Any]], path: str | os.PathLike[str]) -> Path:
    """Saves loss and accuracy over epochs; see `draw_learning_curves`. Returns the path."""
    return save(draw_learning_curves(records), path)


def first_layer_parts(w: Any, patch_shape: tuple[int, int, int], path: str | os.PathLike[str]) -> Path:
    """Saves the rows of w as images; see `draw_first_layer_parts`. Returns the path."""
    return save(draw_first_layer_parts(w, patch_shape), path)


def confusion_matrix(labels: Any, predictions: Any, class_names: Sequence[str], path: str | os.PathLike[str]) -> Path:
    """Saves how often each class was taken for each; see `draw_confusion_matrix`. Returns the path."""
    return save(draw_confusion_matrix(labels, predictions, class_names), path)


@styled
def draw_learning_curves(records: Sequence[Mapping[str, Any]]) -> Figure:
    """Loss (left) and accuracy in percent (right) over epochs, one line a set of images.

    Args:
      records: lines of metrics.jsonl with "epoch" (else "step") and any of train_loss, train_accuracy (0 to
        1), validation_..., test_...; a value that is absent or None leaves no point. Where they have the values of
        several seeds too (train_loss_by_seed, ...), a band reaches from the least to the largest.

    Raises:
      ValueError: no record at all.
    """
    if not records:
        raise ValueError("learning curves need at least one metrics record, got none")
    unit = "epoch" if all("epoch" in record for record in records) else "step"
    seeds = max((len(v) for record in records for k, v in record.items() if k.endswith("_by_seed")), default=1)
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    lines: dict[str, Any] = {}
    for axes, quantity, scale in zip(figure.subplots(1, 2), ("loss", "accuracy"), (1.0, 100.0), strict=True):
        for name, (colour, style) in SETS.items():
            key = f"{name}_{quantity}"
            points = [(r[unit], scale * r[key]) for r in records if r.get(key) is not None]
            if not points:
                continue
            # A line hides a run of one epoch; a dot an epoch crowds a long one.
            marker = "o" if len(points) <= 30 else ""
            (lines[name],) = axes.plot(*zip(*points, strict=True), color=colour, ls=style, marker=marker, ms=3.5)
            lines[name].set_label(name)
            spread = [(r[unit], scale * np.asarray(r[f"{key}_by_seed"])) for r in records if f"{key}_by_seed" in r]
            if spread:
                places, values = zip(*spread, strict=True)
                low, high = np.min(values, axis=1), np.max(values, axis=1)
                axes.fill_between(places, low, high, color=colour, alpha=0.2, lw=0)
        axes.set(xlabel=unit, ylabel="loss, nats" if quantity == "loss" else "accuracy, %")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if seeds > 1:
        figure.suptitle(f"mean of {seeds} seeds; bands from the least to the largest", fontsize=9)
    figure.legend(handles=[*lines.values()], loc="outside lower center", ncols=len(SETS))
    return figure


@styled
def draw_first_layer_parts(w: Any, patch_shape: tuple[int, int, int]) -> Figure:
    """The k weight rows as images in a grid, each scaled to its own maximum; in colour, or black to white.

    Args:
      w: (k, n) weights or raw weights; absolute values are shown.
      patch_shape: (height, width, channels) with product n, the order in which the layer reads a patch. Three
        channels are red, green and blue; of any other number but one, the mean is shown.

    Raises:
      ValueError: w is not (k, height * width * channels).
    """
    w = np.abs(np.asarray(w, dtype=np.float32))
    if w.ndim != 2 or not w.size or len(patch_shape) != 3 or w.shape[1] != math.prod(patch_shape):
        raise ValueError(
            f"w must be (k, height * width * channels), k >= 1, got w {w.shape} and patch_shape {patch_shape}"
        )
    parts = w.reshape(-1, *patch_shape)
    if patch_shape[2] != 3:
        parts = parts.mean(axis=-1)
    largest = parts.max(axis=tuple(range(1, parts.ndim)), keepdims=True)
    parts = parts / np.where(largest > 0, largest, 1)

    columns = math.ceil(math.sqrt(1.6 * len(parts)))
    rows = math.ceil(len(parts) / columns)
    size = min(0.7, 11 / columns)
    tight = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02)
    figure = Figure(figsize=(max(size * columns, 3.6), size * rows + 0.6), layout=tight)
    white = "white" if parts.ndim == 3 else "full colour"
    scale = f"black: 0; {white}: the part's largest weight"
    figure.suptitle(f"{len(parts)} parts of {patch_shape[0]} x {patch_shape[1]} pixels\n{scale}")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, part in zip(grid, parts, strict=False):
        axes.imshow(part, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    return figure


@styled
def draw_confusion_matrix(labels: Any, predictions: Any, class_names: Sequence[str]) -> Figure:
    """Percent of each class (row) that was taken for each class (column), and the accuracy.

    Args:
      labels: (N,) true classes, integers in [0, len(class_names)).
      predictions: (N,) predicted classes.
      class_names: one name a class. Of more than 1,000, neighbours share a square: the picture is of groups of classes.

    Raises:
      ValueError: labels and predictions differ in shape, are empty, or are not classes.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    _check_classes(labels, predictions, len(class_names))
    accuracy = np.mean(labels == predictions)
    grouped = -(-len(class_names) // _SQUARES)
    if grouped > 1:
        # The counts of 100,000 classes would take 80 GB.
        labels, predictions, class_names = labels // grouped, predictions // grouped, class_names[::grouped]
    num_classes = len(class_names)
    counts = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(counts, (labels, predictions), 1)
    percent = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    written = num_classes <= _WRITTEN
    side = 2.2 + 0.42 * num_classes if written else 4.0 + 0.07 * min(num_classes, _NAMED)
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    axes = figure.subplots()
    axes.grid(False)
    axes.spines[:].set_visible(False)
    # The square root lets errors of a few percent be seen beside a diagonal of 90.
    image = axes.imshow(np.sqrt(percent / 100), cmap="Blues", vmin=0, vmax=1)
    bar = figure.colorbar(image, ax=axes, fraction=0.045, ticks=np.sqrt([0, 0.01, 0.05, 0.2, 0.5, 1]))
    bar.ax.set_yticklabels(["0", "1", "5", "20", "50", "100"])
    bar.set_label("share of the true class, %")
    bar.outline.set_visible(False)  # type: ignore[operator]
    _label_classes(axes, class_names)
    if written:
        for row, column in np.argwhere(counts > 0):
            value = percent[row, column]
            colour = "white" if value > 30 else "black"
            text = f"{value:.0f}" if value >= 10 else f"{value:.1f}"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    axes.set_title(f"accuracy {100 * accuracy:.2f} % of {counts.sum():,} images")
    if grouped > 1:
        axes.set(xlabel=f"predicted class, {grouped} in a row", ylabel=f"true class, {grouped} in a row")
    return figure


def _check_classes(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> None:
    """ValueError unless both are arrays (N,) of classes."""
    if labels.ndim != 1 or labels.shape != predictions.shape or not labels.size:
        raise ValueError(
            f"labels and predictions must be two (N,) arrays, N >= 1, got {labels.shape} and {predictions.shape}"
        )
    for what, classes in (("labels", labels), ("predictions", predictions)):
        if classes.dtype.kind not in "iu" or classes.min() < 0 or classes.max() >= num_classes:
            raise ValueError(
                f"{what} must be integers in [0, {num_classes}), "
                f"got {classes.dtype.name} from {classes.min()} to {classes.max()}"
            )


def _label_classes(axes: Axes, class_names: Sequence[str]) -> None:
    # Of more classes than have room for their names, every n-th is enough to find one's way.
    places = range(0, len(class_names), math.ceil(len(class_names) / _NAMED))
    names = [str(class_names[place]) for place in places]
    names = [name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…" for name in names]
    size = 9 if len(class_names) <= _WRITTEN else 6
    upright = len(class_names) > _WRITTEN or max(map(len, names)) > 2
    # A "$" in a name is a dollar sign, not the beginning of a formula.
    axes.set_xticks(places, names, rotation=90 if upright else 0, fontsize=size, parse_math=False)
    axes.set_yticks(places, names, fontsize=size, parse_math=False)
    axes.tick_params(length=0)
    axes.set(xlabel="predicted class", ylabel="true class")
