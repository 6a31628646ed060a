"""Accuracy against epochs and against the pairs of products of the inference, from the committed records."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from deepnmf_jax.experiments.accuracy_rows import ROWS, Row
from deepnmf_jax.experiments.tables import ROOT
from deepnmf_jax.plotting import BLACK, GREEN, GREY, PURPLE, WIDTH, decades, label_ends, network_colour, styled
from deepnmf_jax.training.pictures import draw_learning_curves

QUICKSTART = ROOT / "docs" / "results" / "quickstart"
# Of the methods of acceleration.py: the name in the picture, colour, line and marker.
ACCELERATIONS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "plain": ("plain", BLACK, {"marker": "o"}),
    "plain, bfloat16": (
        "plain, bfloat16 products",
        BLACK,
        {"ls": "none", "marker": "o", "ms": 8, "mfc": "none"},
    ),
    "adaptive 8": ("adaptive, exponent up to 8", PURPLE, {"marker": "s"}),
    "multistep 6": ("multistep, 6 plain steps each", GREEN, {"marker": "^"}),
}


@styled
def draw_twenty_epochs() -> Figure:
    """Validation accuracy of the four networks: the mean of the seeds, and a band from the least to the largest."""
    rows = _rows("twenty")
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        epochs, accuracy = _curves(row, "validation")
        colour = network_colour(row.label)
        mean = accuracy.mean(axis=0)
        axes.plot(epochs, mean, color=colour, label=f"{row.label}: {mean[-1]:.1f} %")
        axes.fill_between(epochs, accuracy.min(axis=0), accuracy.max(axis=0), color=colour, alpha=0.2, lw=0)
    _limit(axes, epochs[-1])
    axes.set_ylabel("CIFAR-10, validation accuracy, %")
    seeds = len(rows[0].seeds)
    figure.suptitle(f"mean of {seeds} seeds, bands from the least to the largest; number: mean after the last epoch")
    label_ends(axes)
    return figure


@styled
def draw_fifty_epochs() -> Figure:
    """Accuracy of the long runs on validation images (left) and on the augmented images they are trained with."""
    figure, panels = _both_parts(_rows("long"))
    late = panels[0].inset_axes((0.53, 0.12, 0.46, 0.46), xlim=(35, 60), ylim=(77, 83))
    for line in panels[0].lines:
        late.plot(*line.get_xydata().T, color=line.get_color(), ls=line.get_linestyle(), lw=1.2)
    late.set_title("the same, from epoch 35", fontsize=8, fontweight="normal")
    late.tick_params(labelsize=8)
    panels[0].indicate_inset_zoom(late, edgecolor="black", alpha=0.4)
    label_ends(panels[1], gap=0.13)
    return figure


@styled
def draw_plateau() -> Figure:
    """Accuracy of the runs by the paper's recipe, ended or not, on both parts too."""
    figure, panels = _both_parts([row for row in ROWS if row.table == "plateau" and row.curves()])
    label_ends(panels[1])
    return figure


def _both_parts(rows: Sequence[Row]) -> tuple[Figure, Any]:
    """A panel for the validation images and one for the training images, and the runs in both."""
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, part, title in zip(
        panels, ("validation", "train"), ("validation images", "augmented training images"), strict=True
    ):
        for row in rows:
            epochs, (accuracy,) = _curves(row, part)
            network, _, regularised = row.label.partition(", ")
            axes.plot(
                epochs,
                accuracy,
                ls="--" if regularised else "-",
                color=network_colour(network),
                label="\n".join(filter(None, (network, regularised))),
            )
        _limit(axes, max(line.get_xdata()[-1] for line in axes.lines))
        axes.set_title(title)
    panels[0].set_ylabel("CIFAR-10, accuracy, %")
    return figure, panels


@styled
def draw_acceleration(record: Mapping[str, Any]) -> Figure:
    """Accuracy of a trained network, and distance to the converged activities, against the pairs of products."""
    pairs = record["pairs"]
    figure = Figure(figsize=(WIDTH, 3.5), layout="constrained")
    accuracy, distance = figure.subplots(1, 2)
    for method, (name, colour, line) in ACCELERATIONS.items():
        found = record["methods"][method]
        style: dict[str, Any] = {"color": colour, "label": name, "ms": 4, **line}
        accuracy.plot(pairs, [100 * a for a in found["accuracy"]], **style)
        distance.plot(pairs, [np.mean(values) for values in found["l1"]], **style)
    accuracy.set(ylabel="CIFAR-10, validation accuracy, %", ylim=(0, 90))
    distance.set(ylabel="L1 distance to the converged h,\nmean of the four layers", yscale="log")
    decades(distance.yaxis)
    for axes in (accuracy, distance):
        axes.set(xscale="log", xlabel="pairs of products in each layer")
        axes.axvline(20, color=GREY, lw=0.8, ls=":")
        axes.text(19, 0.02, "as trained:\n20 plain", transform=axes.get_xaxis_transform(), ha="right", color=GREY)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(pairs, [str(p) for p in pairs])
    figure.legend(*accuracy.get_legend_handles_labels(), loc="outside lower center", ncols=4, columnspacing=1.2)
    return figure


def draw_quickstart() -> Figure:
    """Learning curves of the quick start, whose seeds were trained one by one."""
    folders = [QUICKSTART, *sorted(QUICKSTART.glob("seed*"))]
    return draw_learning_curves(_joined([_metrics(folder) for folder in folders]))


def _rows(table: str) -> list[Row]:
    """The rows of a table that have been trained."""
    return [row for row in ROWS if row.table == table and row.results()]


def _metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _curves(row: Row, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs (n,), and the accuracy of each seed (seeds, n) in percent."""
    runs = [_metrics(row.folder(seed)) for seed in row.seeds]
    accuracy = [[100 * record[f"{part}_accuracy"] for record in run] for run in runs]
    return np.array([record["epoch"] for record in runs[0]]), np.array(accuracy)


def _joined(runs: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Records of several seeds as a run that trains them together writes them: means, and the values by seed."""
    joined = []
    for lines in zip(*runs, strict=True):
        record: dict[str, Any] = {"epoch": lines[0]["epoch"]}
        for key in (key for key in lines[0] if key.endswith(("_loss", "_accuracy"))):
            values = [line[key] for line in lines]
            record |= {key: float(np.mean(values)), f"{key}_by_seed": values}
        joined.append(record)
    return joined


def _limit(axes: Axes, last: float) -> None:
    axes.set(xlim=(0, last), ylim=(0, 90), xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
