"""Pictures of the committed measurements: error against seconds of the factorizations, growth of a training step."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from benchmarks.harness import best
from deepnmf_jax.plotting import BLACK, GREEN, GREY, NETWORKS, NUMBER, PURPLE, WIDTH, decades, label_ends, styled

# The factorizations by what they do: a row of panels each. By method: the name in the picture, colour, line.
FACTORIZATIONS: dict[str, dict[str, tuple[str, str, str]]] = {
    "coordinate descent": {
        "ours: hals": ("ours", GREEN, "-"),
        "ours: hals, inner_iter=1": ("ours, inner_iter=1", GREEN, "--"),
        "ours: NMF.fit": ("ours, NMF.fit", GREEN, ":"),
        "scikit-learn: cd": ("scikit-learn", PURPLE, "-"),
        "torch: hals": ("torch port", BLACK, "-"),
    },
    "multiplicative updates": {
        "ours: mu": ("ours", GREEN, "-"),
        "ours: mu, inner_iter=1": ("ours, inner_iter=1", GREEN, "--"),
        "scikit-learn: mu": ("scikit-learn", PURPLE, "-"),
        "torch: mu": ("torch port", BLACK, "-"),
    },
    "mini-batches": {
        "ours: mini-batch": ("ours", GREEN, "-"),
        "scikit-learn: mini-batch": ("scikit-learn", PURPLE, "-"),
    },
}
# What is varied in benchmarks/speed/growth.py, as it stands under an axis, and the ticks that have room there.
GROWTH = {
    "iterations": ("iterations of\nthe inference", (5, 10, 20, 50, 100)),
    "batch": ("batch, images", (1, 8, 50, 1024)),
    "width": ("width, times\nthe paper's", (1, 2, 4, 8)),
    "groups": ("groups in\nblocks 2 and 3", (1, 2, 4, 8, 16)),
    "image side": ("side of the\nimages, pixels", (20, 56, 224)),
}


def least_so_far(curve: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Seconds, ascending, and the least error that a method was seen at by then: both (points,).

    Each number of sweeps is timed for itself, so that the clock can say of more sweeps that they were sooner.
    """
    seconds = np.array([best(samples) for samples in curve["seconds"]])
    order = np.argsort(seconds, kind="stable")
    return seconds[order], np.minimum.accumulate(np.asarray(curve["error"])[order])


@styled
def draw_factorization(result: Mapping[str, Any]) -> Figure:
    """Error against seconds: a column for each problem, a row for each kind of method, the libraries in colours."""
    problems = result["problems"]
    figure = Figure(figsize=(WIDTH, 6.6), layout="constrained")
    panels = figure.subplots(len(FACTORIZATIONS), len(problems), sharex="col", sharey="col", squeeze=False)
    for column, (problem, found) in zip(panels.T, problems.items(), strict=True):
        for axes, methods in zip(column, FACTORIZATIONS.values(), strict=True):
            for method, (name, colour, line) in methods.items():
                seconds, error = least_so_far(found["curves"][method])
                # A method that was stopped after one run has a point and no line.
                marker = "o" if len(seconds) == 1 else ""
                axes.plot(seconds, error, line, color=colour, label=name, drawstyle="steps-post", marker=marker, ms=3)
            axes.set(xscale="log", yscale="log")
            # Between two powers of ten matplotlib would write one number or none.
            axes.yaxis.set_major_locator(FixedLocator((0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(NUMBER)
            decades(axes.xaxis)
            axes.tick_params(axis="x", labelsize=8)
        name, _, start = problem.partition(", ")
        height, width = found["shape"]
        column[0].set_title(f"{name.split()[0]}, {start}\n{height:,} x {width:,}\nk = {found['k']}")
    for axes, kind in zip(panels[:, 0], FACTORIZATIONS, strict=True):
        axes.set_ylabel(f"{kind}\nrelative error")
    for axes in panels[:, -1]:
        label_ends(axes, gap=0.12)
    figure.supxlabel(
        "seconds, without compilation; the least error so far, "
        "from the first run of a method to the longest it was run for",
        fontsize=9,
    )
    return figure


@styled
def draw_growth(result: Mapping[str, Any]) -> Figure:
    """Time of a training step against each setting, and that of its matrix products alone."""
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    panels = figure.subplots(1, len(GROWTH), sharey=True)
    for axes, (name, (label, ticks)) in zip(panels, GROWTH.items(), strict=True):
        keys = [key for key in result["samples"] if key.startswith(f"{name} ")]
        values = [float(key.removeprefix(f"{name} ")) for key in keys]
        step = [best(result["samples"][key]["step"]) for key in keys]
        # The large product multiplies two matrices of side 2048.
        rate = [2 * 2048**3 / best(result["samples"][key]["product"]) for key in keys]
        products = [result["predicted"][key]["operations"] / r for key, r in zip(keys, rate, strict=True)]
        axes.plot(values, step, "o-", color=NETWORKS["CNMF+1x1"], ms=4, label="training step of CNMF+1x1, measured")
        axes.plot(
            values, products, "s--", color=GREY, ms=3.5, label="its matrix products alone, at the rate of a large one"
        )
        axes.set(xscale="log", yscale="log", xlabel=label)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        decades(axes.yaxis)
    panels[0].set_ylabel("seconds")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure
