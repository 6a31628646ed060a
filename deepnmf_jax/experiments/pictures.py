"""Pictures of a clustering, from the file that its run writes: the codes in the plane, the parts of every layer."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from deepnmf_jax.plotting import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION, WIDTH, save, styled

# Most parts of a layer that are shown, and how many beside one another.
SHOWN, COLUMNS = 30, 10
# Of ten classes each has its own colour and each neighbour in the legend another marker; then both begin anew.
COLOURS = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, BLACK, "#999933", "#882255", GREY)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# Most classes that a legend has room for; the numbers in the picture are there anyway.
LEGEND = 20


def keep(codes: np.ndarray, classes: np.ndarray, dictionaries: Sequence[np.ndarray], path: Path) -> None:
    """Writes an .npz file with all that the pictures show, and the pictures beside it.

    Args:
        codes: (n, k).
        classes: (n,) of the samples.
        dictionaries: H_1 (m, r_1), ..., H_l.
        path: of the file.
    """
    layers = {f"H{i}": h for i, h in enumerate(dictionaries, start=1)}
    np.savez_compressed(path, codes=codes, classes=classes, **layers)
    draw(path, path.parent)


def draw(path: Path, folder: Path) -> None:
    """Writes NAME_codes.png and NAME_parts.png of a file NAME.npz to a folder."""
    with np.load(path, allow_pickle=False) as file:
        stored = dict(file)
    save(draw_codes(stored["codes"], stored["classes"]), folder / f"{path.stem}_codes.png")
    layers = [stored[f"H{i}"] for i in range(1, len(stored) - 1)]
    save(draw_parts(layers), folder / f"{path.stem}_parts.png")


@styled
def draw_codes(codes: np.ndarray, classes: np.ndarray) -> Figure:
    """Codes (n, k) at unit length in the plane by t-SNE, with colour, marker and number of their class (n,).

    Principal directions would show the few samples whose part of the graph is not connected to the rest, which have
    components of their own, and all others in one spot.
    """
    # scikit-learn is there where there are clusterings.
    from sklearn.manifold import TSNE

    lengths = np.linalg.norm(codes, axis=1, keepdims=True)
    unit = codes / np.where(lengths > 0, lengths, 1)
    nearest = min(30, (len(codes) - 1) // 3)
    start = "pca" if codes.shape[1] > 1 else "random"
    plane = TSNE(init=start, perplexity=nearest, random_state=0).fit_transform(unit)
    names, numbers = np.unique(classes, return_inverse=True)
    figure = Figure(figsize=(WIDTH * 0.75, WIDTH * 0.6), layout="constrained")
    axes = figure.subplots()
    for i, name in enumerate(names):
        own = plane[numbers == i]
        style = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
        axes.scatter(*own.T, s=11, linewidths=0, label=str(name), **style)
        # On the sample in the middle: the middle itself may lie between two groups.
        x, y = own[np.argmin(np.sum((own - np.median(own, axis=0)) ** 2, axis=1))]
        halo = [withStroke(linewidth=2.5, foreground="white")]
        axes.text(x, y, str(name), weight="bold", ha="center", va="center", path_effects=halo)
    axes.set(xlabel="t-SNE of the codes, arbitrary units", ylabel="t-SNE, arbitrary units", xticks=[], yticks=[])
    if len(names) <= LEGEND:
        figure.legend(title="class", loc="outside right center", markerscale=1.8)
    return figure


@styled
def draw_parts(dictionaries: Sequence[np.ndarray]) -> Figure:
    """The first 30 columns of H_1, H_1 H_2, ... as images, a block of rows a layer. H_1 is (m, r_1)."""
    blocks, product = [], None
    for h in dictionaries:
        product = h if product is None else product @ h
        blocks.append(product.T)
    rows = [math.ceil(min(len(block), SHOWN) / COLUMNS) for block in blocks]
    figure = Figure(figsize=(COLUMNS * 0.7, sum(rows) * 0.75 + 0.4 * len(rows) + 0.3), layout="constrained")
    figure.suptitle("each part from white (0) to black (its largest pixel)")
    shape = image_shape(dictionaries[0].shape[0])
    panels = np.ravel(np.asarray(figure.subfigures(len(blocks), 1, height_ratios=rows)))
    for i, (panel, block) in enumerate(zip(panels, blocks, strict=True)):
        shown = f"the first {SHOWN} of " if len(block) > SHOWN else ""
        panel.suptitle(f"layer {i + 1}: {shown}{len(block)} parts")
        grid = panel.subplots(rows[i], COLUMNS, squeeze=False).ravel()
        for axes in grid:
            axes.set_axis_off()
        for axes, image in zip(grid, block[:SHOWN], strict=False):
            axes.imshow(image.reshape(shape), cmap="gray_r", vmin=0)
    return figure


def image_shape(features: int) -> tuple[int, int]:
    """Height and width of images with so many pixels: the factors closest to one another, the larger one first."""
    width = next(w for w in range(math.isqrt(features), 0, -1) if features % w == 0)
    return features // width, width
