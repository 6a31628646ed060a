"""Pictures of a clustering, from the file that its run writes: the codes in the plane, the parts of every layer."""

import math
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from deepnmf_jax.decomposition.metrics import directions
from deepnmf_jax.decomposition.pictures import draw_concepts
from deepnmf_jax.plotting import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION, WIDTH, save, styled

# Of ten classes each has its own colour and each neighbour in the legend another marker; then both begin anew.
COLOURS = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, BLACK, "#999933", "#882255", GREY)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# Most classes that a legend has room for; the numbers in the picture are there anyway.
LEGEND = 20


def keep(codes: np.ndarray, classes: np.ndarray, dictionaries: Sequence[np.ndarray], path: Path) -> None:
    """Writes all that the pictures show to NAME.npz, and NAME_codes.png, NAME_layer1.png, ... beside it.

    Args:
        codes: (n, k).
        classes: (n,) of the samples.
        dictionaries: H_1 (m, r_1), ..., H_l.
        path: of the .npz file; `draw_codes_of` draws its codes again.
    """
    layers: Any = {f"H{i}": h for i, h in enumerate(dictionaries, start=1)}
    np.savez_compressed(path, codes=codes, classes=classes, **layers)
    save(draw_codes(codes, classes), path.with_name(f"{path.stem}_codes.png"))
    shape = image_shape(len(dictionaries[0]))
    for i, q in enumerate(accumulate(dictionaries, np.matmul), start=1):
        save(draw_concepts(q.T, shape), path.with_name(f"{path.stem}_layer{i}.png"))


def draw_codes_of(path: Path) -> Figure:
    """`draw_codes` of a file that `keep` has written."""
    with np.load(path, allow_pickle=False) as file:
        return draw_codes(file["codes"], file["classes"])


@styled
def draw_codes(codes: np.ndarray, classes: np.ndarray) -> Figure:
    """Codes (n, k) at unit length in the plane by t-SNE, with colour, marker and number of their class (n,).

    Principal directions would show the few samples whose part of the graph is not connected to the rest, which have
    components of their own, and all others in one spot.
    """
    # The extra `sklearn` is there where there are clusterings.
    from sklearn.manifold import TSNE

    start, perplexity = "pca" if codes.shape[1] > 1 else "random", min(30, len(codes) // 3)
    plane = TSNE(init=start, perplexity=perplexity, random_state=0).fit_transform(directions(codes))
    names, numbers = np.unique(classes, return_inverse=True)
    figure = Figure(figsize=(WIDTH * 0.75, WIDTH * 0.6), layout="constrained")
    axes = figure.subplots()
    for i, name in enumerate(names):
        own = plane[numbers == i]
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
        axes.scatter(own[:, 0], own[:, 1], s=11, linewidths=0, color=colour, marker=marker, label=str(name))
        # On the sample in the middle: the middle itself may lie between two groups.
        x, y = own[np.argmin(np.sum((own - np.median(own, axis=0)) ** 2, axis=1))]
        halo = [withStroke(linewidth=2.5, foreground="white")]
        axes.text(x, y, str(name), weight="bold", ha="center", va="center", path_effects=halo, parse_math=False)
    axes.set(xlabel="t-SNE of the codes, arbitrary units", ylabel="t-SNE, arbitrary units", xticks=[], yticks=[])
    if len(names) <= LEGEND:
        for text in figure.legend(title="class", loc="outside right center", markerscale=1.8).get_texts():
            # A "$" in a name is a dollar sign, not the beginning of a formula.
            text.set_parse_math(False)
    return figure


def image_shape(features: int) -> tuple[int, int]:
    """Height and width of images with so many pixels: the factors closest to one another, the larger one first."""
    width = next(w for w in range(math.isqrt(features), 0, -1) if features % w == 0)
    return features // width, width
