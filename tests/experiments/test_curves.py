"""Curves of the committed records: what is drawn is what was measured, each network in its colour."""

import json

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.lines import Line2D

from deepnmf_jax.experiments import curves
from deepnmf_jax.experiments.accuracy_rows import ROWS
from deepnmf_jax.plotting import NETWORKS


def named(axes: Axes) -> dict[str, Line2D]:
    return {str(line.get_label()): line for line in axes.lines if not str(line.get_label()).startswith("_")}


def test_twenty_epochs_are_the_mean_and_the_range_of_the_seeds() -> None:
    (axes,) = curves.draw_twenty_epochs().axes
    lines = {label.partition(":")[0]: line for label, line in named(axes).items()}
    assert {name: line.get_color() for name, line in lines.items()} == NETWORKS
    bands = [band for band in axes.collections if isinstance(band, PolyCollection)]
    rows = [row for row in ROWS if row.table == "twenty"]
    assert [row.label for row in rows] == list(lines) and len(bands) == len(rows) == 4
    for row, band in zip(rows, bands, strict=True):
        text = [(row.folder(seed) / "metrics.jsonl").read_text() for seed in row.seeds]
        accuracy = 100 * np.array([[json.loads(r)["validation_accuracy"] for r in t.splitlines()] for t in text])
        np.testing.assert_allclose(lines[row.label].get_xydata()[:, 1], accuracy.mean(axis=0))
        corners = np.asarray(band.get_paths()[0].vertices)[:, 1]
        assert corners.min() == pytest.approx(accuracy.min()) and corners.max() == pytest.approx(accuracy.max())
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "CIFAR-10, validation accuracy, %")


def test_no_curve_of_the_long_runs_is_cut() -> None:
    validation, train = (axes for axes in curves.draw_fifty_epochs().axes if axes.get_title())
    assert (validation.get_title(), train.get_title()) == ("validation images", "augmented training images")
    for axes in (validation, train):
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        lines = named(axes)
        assert len(lines) == 3
        for label, line in lines.items():
            assert line.get_color() == NETWORKS[label.partition("\n")[0]]
            points = np.asarray(line.get_xydata())
            assert np.isfinite(points).all() and len(points) in (50, 60)
            assert left <= points[:, 0].min() and points[:, 0].max() <= right
            assert low <= points[:, 1].min() and points[:, 1].max() <= high
    # The inset is as true to its own limits, and shows the ends of all.
    (inset,) = validation.child_axes
    for line in inset.lines:
        x, y = np.asarray(line.get_xydata()).T
        late = y[x >= inset.get_xlim()[0]]
        assert x[-1] <= inset.get_xlim()[1] and inset.get_ylim()[0] < late.min() and late.max() < inset.get_ylim()[1]


def test_each_acceleration_can_be_seen() -> None:
    pairs = [2, 20]
    methods = {
        name: {"accuracy": [0.1 * i, 0.2], "l1": [[1.0, 3.0], [0.5, 0.5]]}
        for i, name in enumerate([*curves.ACCELERATIONS, "a method that is no more"])
    }
    accuracy, distance = curves.draw_acceleration({"pairs": pairs, "methods": methods}).axes
    for axes in (accuracy, distance):
        lines = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
        assert [line.get_label() for line in lines] == [name for name, _, _ in curves.ACCELERATIONS.values()]
        assert len({(line.get_color(), line.get_marker(), line.get_markersize()) for line in lines}) == len(lines)
        # What lies on the plain line does not hide it.
        assert (lines[1].get_linestyle(), lines[1].get_markerfacecolor()) == ("None", "none")
        assert axes.get_xlabel() == "pairs of products in each layer"
    np.testing.assert_allclose(distance.lines[0].get_xydata(), [[2, 2.0], [20, 0.5]])
    np.testing.assert_allclose(accuracy.lines[3].get_xydata(), [[2, 30.0], [20, 20.0]])


def test_the_quick_start_joins_its_seeds() -> None:
    loss, accuracy = curves.draw_quickstart().axes
    assert [axes.get_ylabel() for axes in (loss, accuracy)] == ["loss, nats", "accuracy, %"]
    for axes in (loss, accuracy):
        assert list(named(axes)) == ["train", "validation"] and len(axes.collections) == 2
        assert all(len(np.asarray(line.get_xydata())) == 10 for line in axes.lines)
