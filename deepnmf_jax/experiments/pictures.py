"""Pictures of a clustering: the codes in two dimensions, the parts of every layer."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

SHOWN = 30


def save_codes(codes: np.ndarray, classes: np.ndarray, path: str | os.PathLike[str]) -> Path:
    """Saves `draw_codes` as a PNG. Returns the path."""
    return _save(draw_codes(codes, classes), path)


def save_parts(dictionaries: Sequence[np.ndarray], path: str | os.PathLike[str]) -> Path:
    """Saves `draw_parts` as a PNG. Returns the path."""
    return _save(draw_parts(dictionaries), path)


def draw_codes(codes: np.ndarray, classes: np.ndarray) -> Figure:
    """Codes (n, k) along their two directions of largest variance, coloured by class (n,)."""
    centred = codes - codes.mean(axis=0)
    plane = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
    if plane.shape[1] < 2:
        plane = np.pad(plane, ((0, 0), (0, 1)))
    figure = Figure(figsize=(5, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.scatter(
        plane[:, 0], plane[:, 1], c=np.unique(classes, return_inverse=True)[1], cmap="tab20", s=8, linewidths=0
    )
    axes.set(xlabel="first principal direction of the codes", ylabel="second", title="codes, coloured by class")
    return figure


def draw_parts(dictionaries: Sequence[np.ndarray]) -> Figure:
    """The first 30 columns of H_1, H_1 H_2, ... as images, a block of rows a layer. H_1 is (m, r_1)."""
    columns, blocks, product = 10, [], None
    for h in dictionaries:
        product = h if product is None else product @ h
        blocks.append(product[:, :SHOWN].T)
    rows = [math.ceil(len(block) / columns) for block in blocks]
    figure = Figure(figsize=(columns * 0.7, sum(rows) * 0.75 + 0.4 * len(rows)), layout="constrained")
    shape = image_shape(dictionaries[0].shape[0])
    parts = np.ravel(np.asarray(figure.subfigures(len(blocks), 1, height_ratios=rows)))
    for i, (part, block) in enumerate(zip(parts, blocks, strict=True)):
        part.suptitle(f"layer {i + 1}: {len(block)} parts", fontsize=9)
        grid = part.subplots(rows[i], columns, squeeze=False).ravel()
        for axes in grid:
            axes.set_axis_off()
        for axes, image in zip(grid, block, strict=False):
            axes.imshow(image.reshape(shape), cmap="gray_r")
    return figure


def image_shape(features: int) -> tuple[int, int]:
    """Height and width of images with so many pixels: the factors closest to one another, the larger one first."""
    width = next(w for w in range(math.isqrt(features), 0, -1) if features % w == 0)
    return features // width, width


def _save(figure: Figure, path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    figure.savefig(path, dpi=120)
    return path
