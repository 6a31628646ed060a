"""How pictures look, the same everywhere: the colour of each network, sizes, labels at the ends of lines, saving.

Figures are made directly, without pyplot, so neither the backend nor the settings of a notebook are touched.
"""

import os
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from deepnmf_jax.files import write_atomically

# Inches. A README shows a picture about 830 pixels wide: letters of 9 points are then 12 pixels high.
WIDTH = 8.3

# Okabe and Ito (2008): told apart with every kind of colour blindness. Their yellow is too pale for lines on white.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#767676"
COLOURS = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY)

# A network has its colour in every picture: blue is NMF, red convolution, and dark the one with 1x1 convolutions.
NETWORKS = {"CNMF+1x1": BLUE, "CNN+1x1": VERMILLION, "CNMF": SKY, "CNN": ORANGE}
# Colour and line of the images that a curve was measured on.
SETS = {"train": (GREY, "--"), "validation": (GREEN, "-"), "test": (PURPLE, "-")}

STYLE: Any = {
    "font.size": 9,
    "figure.titlesize": 9,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # letters stay letters, which journals ask for
}

# Ticks as 0.01, 0.1, 1: powers of ten are harder to read in small letters.
NUMBER = FuncFormatter(lambda value, _: f"{value:g}")

_P = ParamSpec("_P")


def styled(draw: Callable[_P, Figure]) -> Callable[_P, Figure]:
    """A function whose figures have this style, and that leaves the settings of matplotlib as they were."""

    @wraps(draw)
    def with_style(*args: _P.args, **kwargs: _P.kwargs) -> Figure:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return with_style


def network_colour(label: str) -> str:
    """Colour of the network that a label names, as in "blocks: CNN+1x1". ValueError: it names none."""
    for name, colour in NETWORKS.items():  # the longer names come first
        if name in label:
            return colour
    raise ValueError(f"{label!r} names no network; known are {', '.join(NETWORKS)}")


def decades(axis: Axis) -> None:
    """Ticks of a logarithmic axis at each power of ten, however small the axes, with their numbers written out."""
    axis.set_major_locator(LogLocator(numticks=20))
    axis.set_major_formatter(NUMBER)
    axis.set_minor_locator(NullLocator())


def label_ends(axes: Axes, gap: float = 0.09) -> None:
    """Writes the label of each line right of the axes, at the height of its last point, with a stroke that leads there.

    Labels are at least `gap` apart, as a share of the height. Call it when the limits of the axes are final.
    """
    lines = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = np.array([to_axes.transform(np.asarray(line.get_xydata())[-1]) for line in lines])
    order = np.argsort(ends[:, 1], kind="stable")
    steps = gap * np.arange(len(lines))
    heights = ends[order, 1] - steps
    # Pushed up and pushed down until nothing overlaps; the mean of both keeps the distances and stays near the ends.
    up, down = np.maximum.accumulate(heights), np.minimum.accumulate(heights[::-1])[::-1]
    for index, height in zip(order, (up + down) / 2 + steps, strict=True):
        line, (x, y) = lines[index], ends[index]
        style = {"color": line.get_color(), "transform": axes.transAxes, "clip_on": False, "label": "_lead"}
        axes.plot([x, 1.02], [y, height], lw=0.5, **style)
        axes.plot([1.02, 1.09], [height, height], lw=line.get_linewidth(), ls=line.get_linestyle(), **style)
        axes.text(1.11, height, str(line.get_label()), transform=axes.transAxes, va="center")


def save(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Writes a figure in the format of the path's ending, whole or not at all; its folder is made. Returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A PDF carries the time at which it was written, unless told not to: the same picture gives the same bytes.
    metadata: Any = {"CreationDate": None} if path.suffix == ".pdf" else {}
    with matplotlib.rc_context(STYLE):
        write_atomically(path, partial(figure.savefig, format=path.suffix[1:], dpi=160, metadata=metadata))
    return path
