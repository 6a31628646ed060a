"""What an NMF layer does, drawn with digits: each is explained as a sum of parts, with activities that add up to 1."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from deepnmf_jax.core.inference import infer
from deepnmf_jax.data.datasets import load_dataset
from deepnmf_jax.decomposition.nmf import NMF
from deepnmf_jax.plotting import BLACK, COLOURS, WIDTH, styled

PARTS = 50
# Of each of these, the first of the test images.
DIGITS = (0, 3, 9)


class Explained(NamedTuple):
    """Digits x (m, pixels), parts w (k, pixels) and activities h (m, k): x ~ h w, and all rows sum to 1."""

    x: np.ndarray
    w: np.ndarray
    h: np.ndarray


def explain() -> Explained:
    """Learns 50 parts of the 4,000 digits of mnist5k by `NMF`; `infer`, as in an NMF layer, explains three others."""
    digits = load_dataset("mnist5k")
    model = NMF(PARTS)
    model.fit(_rows(digits.train_images))
    w = np.asarray(model.get_dictionary())
    w = w / w.sum(axis=1, keepdims=True)
    x = _rows(digits.test_images[[int(np.argmax(digits.test_labels == digit)) for digit in DIGITS]])
    return Explained(x, w, np.asarray(infer(jnp.asarray(x), jnp.asarray(w), num_iters=100)))


@styled
def draw_sum_of_parts(explained: Explained) -> Figure:
    """One row a digit: the input, its most active parts times their activity, all others, and the sum of all.

    A part is drawn as what it adds to the image: a pixel goes from white (0) to full colour (the largest of x).
    """
    tight = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.02, wspace=0.0, hspace=0.0)
    figure = Figure(figsize=(WIDTH, 1.02 * len(explained.x) + 0.4), layout=tight)
    shown = len(COLOURS)
    grid = figure.subplots(len(explained.x), shown + 3)
    for row, x, h in zip(grid, explained.x, explained.h, strict=True):
        order = np.argsort(-h, kind="stable")
        added = h[order, None] * explained.w[order] / x.max()
        coloured = np.stack([_ink(part, COLOURS[i % shown]) for i, part in enumerate(added)])
        images = [_ink(x / x.max(), BLACK), *coloured[:shown], coloured[shown:].sum(axis=0), coloured.sum(axis=0)]
        shares = [1.0, *h[order[:shown]], h[order[shown:]].sum(), h.sum()]
        for axes, image, share, sign in zip(row, images, shares, ["≈", *"+" * shown, "=", ""], strict=True):
            _show(axes, image)
            axes.set_xlabel(f"{100 * share:.0f} %", labelpad=2)
            axes.annotate(sign, (1.09, 0.5), xycoords="axes fraction", ha="center", va="center", fontsize=11)
    names = [f"$h_{i + 1} w_{i + 1}$" for i in range(shown)]
    for axes, name in zip(grid[0], ["input $x$", *names, "all others", r"$\Sigma\, h_i w_i$"], strict=True):
        axes.set_title(name, fontweight="normal", pad=4)
    figure.supxlabel(
        "percent: share of the input's ink that a part explains; white: 0, full colour: the largest pixel of the input",
        fontsize=8.5,
    )
    return figure


def _rows(images: np.ndarray) -> np.ndarray:
    """Images (m, height, width, 1) as rows that sum to 1."""
    rows = images.reshape(len(images), -1).astype(np.float32)
    return rows / rows.sum(axis=1, keepdims=True)


def _ink(amount: np.ndarray, colour: str) -> np.ndarray:
    """What (pixels,) amounts of a coloured ink take from white paper: (pixels, 3)."""
    return amount[:, None] * (1 - np.asarray(to_rgb(colour)))


def _show(axes: Axes, ink: np.ndarray) -> None:
    side = round(len(ink) ** 0.5)
    axes.imshow(np.clip(1 - ink, 0, 1).reshape(side, side, 3), interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color="#d0d0d0")
