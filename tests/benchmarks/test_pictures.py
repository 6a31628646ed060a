"""Pictures of the committed measurements: what is drawn is what was measured."""

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from benchmarks.harness import RESULTS, best
from benchmarks.speed import pictures
from deepnmf_jax.plotting import NETWORKS


def record(question: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{question}.json").read_text())


def test_the_least_error_so_far_knows_the_order_of_the_clock() -> None:
    # Three sweeps were timed to be over before two, and a fourth made it worse.
    curve = {"seconds": [[1.0], [3.0, 2.5], [2.0], [4.0]], "error": [0.9, 0.6, 0.5, 0.7]}
    seconds, error = pictures.least_so_far(curve)
    np.testing.assert_array_equal(seconds, [1.0, 2.0, 2.5, 4.0])
    np.testing.assert_array_equal(error, [0.9, 0.5, 0.5, 0.5])


def test_factorizations_go_forward_in_time_and_down() -> None:
    result = record("factorization")
    kinds, problems = pictures.FACTORIZATIONS, result["problems"]
    # Each method that was measured has its place, and one only.
    names = [name for methods in kinds.values() for name in methods]
    assert sorted(names) == sorted(next(iter(problems.values()))["curves"])
    panels = np.reshape(pictures.draw_factorization(result).axes, (len(kinds), len(problems)))
    colours: dict[str, set[str]] = {}
    for row, methods in zip(panels, kinds.values(), strict=True):
        assert row[0].get_ylabel().endswith("relative error")
        for axes, found in zip(row, problems.values(), strict=True):
            for line, (method, (label, colour, _)) in zip(axes.lines, methods.items(), strict=False):
                x, y = np.asarray(line.get_xydata()).T
                assert len(x) == len(found["curves"][method]["sweeps"]) and np.isfinite(y).all()
                (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
                assert left < x.min() and x.max() < right and low < y.min() and y.max() < high
                assert (np.diff(x) >= 0).all() and (np.diff(y) <= 0).all()
                assert y[-1] == min(found["curves"][method]["error"])
                assert (line.get_label(), line.get_color()) == (label, colour)
                colours.setdefault(label.partition(",")[0], set()).add(colour)
    assert colours.keys() == {"ours", "scikit-learn", "torch port"}
    assert len(set.union(*colours.values())) == len(colours)  # one a library, in all panels
    for row, methods in zip(panels, kinds.values(), strict=True):
        written = [text.get_text() for text in row[-1].texts]
        assert sorted(written) == sorted(label for label, _, _ in methods.values())


def test_growth_has_every_sample_and_ticks_that_were_measured() -> None:
    result = record("growth")
    panels = pictures.draw_growth(result).axes
    drawn = 0
    for axes, (name, (label, _)) in zip(panels, pictures.GROWTH.items(), strict=True):
        measured, products = (np.asarray(line.get_xydata()) for line in axes.lines)
        for value, seconds in measured:
            assert seconds == best(result["samples"][f"{name} {value:g}"]["step"])
        assert set(axes.get_xticks()) <= set(measured[:, 0])
        assert axes.get_xlabel() == label and axes.lines[0].get_color() == NETWORKS["CNMF+1x1"]
        np.testing.assert_array_equal(products[:, 0], measured[:, 0])
        assert products[:, 1].min() > 0 and (products[:, 1] < measured[:, 1]).all()
        drawn += len(measured)
    assert drawn == len(result["samples"])
    assert panels[0].get_ylabel() == "seconds"


@pytest.mark.parametrize("name", pictures.GROWTH)
def test_the_ticks_of_growth_do_not_touch(name: str) -> None:
    """Measured on the drawn figure: the labels' boxes."""
    figure = pictures.draw_growth(record("growth"))
    figure.draw_without_rendering()
    axes = figure.axes[list(pictures.GROWTH).index(name)]
    boxes = sorted((label.get_window_extent() for label in axes.get_xticklabels()), key=lambda box: box.x0)
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
