"""Figure 6 of the paper: accuracy of CNMF+1x1 in many widths and groups, against parameters and where they are.

python main.py --config=configs/experiments/variants.py --workdir=runs/variants [--config.data_dir=...]
"""

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from deepnmf_jax.core.checks import check_integer, check_number
from deepnmf_jax.data.datasets import image_shape_and_classes
from deepnmf_jax.experiments.budgets import check_budget, check_listed, recipe, train
from deepnmf_jax.experiments.cells import Cell, run_cells
from deepnmf_jax.experiments.claims import HOLDS, IN_PART, NOT_RUN, Finding
from deepnmf_jax.experiments.tables import mean_and_deviation, table
from deepnmf_jax.models.fields import block_groups
from deepnmf_jax.models.network import Network
from deepnmf_jax.models.summary import layer_rows
from deepnmf_jax.plotting import GREY, VERMILLION, WIDTH, decades, styled
from deepnmf_jax.training.setup import create_model, cropped_shape

RECIPE = "fast/cnmf_1x1"
# The paper's grid: four widths, five numbers of groups of the NMF layers, as many of the 1x1 convolutions.
PAPER_WIDTHS = (1.0, 2.0, 4.0, 8.0)
_SELECTING = ("widths", "groups", "mixing_groups", "front_seeds")
# What is left of a sum of squares, in points of accuracy and in powers of two, that says nothing.
_ROUNDING = 1e-9
_MARKERS = ("o", "s", "^", "D")


class Variant(NamedTuple):
    """A network of the grid, and what its training of seed 0 gave."""

    width: float
    groups: int
    mixing_groups: int
    parameters: int
    ratio: float  # parameters of the 1x1 convolutions over those of the NMF layers
    validation: float
    test: float

    @property
    def name(self) -> str:
        """As in the record, without the seed."""
        return name_of(self.width, self.groups, self.mixing_groups)


def name_of(width: float, groups: int, mixing_groups: int) -> str:
    """A variant in the record."""
    return f"width {width:g}/groups {groups}/mixing groups {mixing_groups}"


def run(config: Any, workdir: str) -> None:
    """Trains the grid, then further seeds of the variants on the front; writes results.json, table and picture.

    Raises:
        ValueError: settings outside what they allow, or a workdir of another budget.
        FileNotFoundError: the images are not there.
    """
    _check(config)
    grid = list(itertools.product(config.widths, config.groups, config.mixing_groups))
    cells = [_cell(config, workdir, *variant, seed=0) for variant in grid]
    writing: Any = {"table": variants_table, "draw": draw_variants, "selecting": _SELECTING}
    record = run_cells(config, workdir, cells, **writing)
    asked = {name_of(*variant) for variant in grid}
    on_front = [v for v in front(variants_of(record)) if v.name in asked]
    more = [
        _cell(config, workdir, variant.width, variant.groups, variant.mixing_groups, seed=seed)
        for seed in config.front_seeds
        for variant in on_front
    ]
    if more:
        run_cells(config, workdir, [*cells, *more], **writing)


def _check(config: Any) -> None:
    check_budget(config, choosing=True)
    check_listed(config, "widths", "groups", "mixing_groups")
    for width in config.widths:
        check_number("widths", width, 0, above=True)
    for seed in config.front_seeds:
        check_integer("front_seeds", seed, 1)
    (*_, channels), classes = image_shape_and_classes(config.dataset)
    for width, name in itertools.product(config.widths, ("groups", "mixing_groups")):
        outputs = [*(max(1, round(f * width)) for f in Network.features), classes]
        inputs = [channels, *outputs[:-1]] if name == "groups" else outputs
        for count in config[name]:
            block_groups(count, inputs, outputs, name)


def _cell(config: Any, workdir: str, width: float, groups: int, mixing_groups: int, seed: int) -> Cell:
    name = f"{name_of(width, groups, mixing_groups)}/seed {seed}"
    changes = {"model.width": width, "model.groups": (groups,), "model.mixing_groups": (mixing_groups,), "seed": seed}
    folder = Path(workdir) / "training" / name.replace("/", ", ")
    return Cell(name, partial(_measure, config, workdir, changes, folder), cost=width**1.5)


def _measure(config: Any, workdir: str, changes: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    settings = recipe(RECIPE, config, workdir, changes)
    image_shape, classes = image_shape_and_classes(config.dataset)
    result = train(settings, folder)
    nmf, mixing = _parameters(create_model(settings, classes), cropped_shape(settings.augmentation.crop, image_shape))
    return {
        "test_accuracy": result["test_accuracy"],
        "validation_accuracy": result["validation_accuracy"],
        "parameters": result["parameters"],
        "nmf_parameters": nmf,
        "mixing_parameters": mixing,
    }


@functools.cache  # the seeds of a variant share them
def _parameters(model: Network, image_shape: tuple[int, int, int]) -> tuple[int, int]:
    rows = layer_rows(model, image_shape)
    nmf, mixing = (sum(row.parameters for row in rows if row.layer == kind) for kind in ("NMFConv", "LocalMixing"))
    return nmf, mixing


def variants_of(record: Mapping[str, Any]) -> list[Variant]:
    """The variants of a record, by their seed 0, in the order of the grid."""
    found = []
    for name, cell in record["cells"].items():
        *parts, seed = name.split("/")
        if seed == "seed 0":
            width, groups, mixing_groups = (float(part.split()[-1]) for part in parts)
            ratio = cell["mixing_parameters"] / cell["nmf_parameters"]
            accuracies = cell["validation_accuracy"], cell["test_accuracy"]
            found.append(Variant(width, int(groups), int(mixing_groups), cell["parameters"], ratio, *accuracies))
    return sorted(found)


def front(variants: Sequence[Variant]) -> list[Variant]:
    """Those that no other beats in validation accuracy with as many parameters or fewer (the Pareto front)."""
    found: list[Variant] = []
    for variant in sorted(variants, key=lambda v: (v.parameters, -v.validation)):
        if not found or variant.validation > found[-1].validation:
            found.append(variant)
    return found


class Correlation(NamedTuple):
    """How accuracy goes with the ratio at equal parameters."""

    partial: float  # correlation of what a parabola in log parameters leaves of accuracy and of log ratio
    error: float  # standard error of it, by Fisher's transformation
    points: float  # of accuracy, in %, for each doubling of the ratio
    points_error: float


def correlation(variants: Sequence[Variant]) -> Correlation | None:
    """Partial correlation of test accuracy and log ratio given parameters; None for fewer than eight variants, or where
    the parameters tell all of either.

    Parameters are taken out by least squares on 1, log parameters and its square, of both.
    """
    number, fitted = len(variants), 3
    if number < 8:
        return None
    size, ratio = (np.log2([getattr(v, name) for v in variants]) for name in ("parameters", "ratio"))
    size = size - size.mean()
    basis = np.stack([np.ones(number), size, size**2], axis=1)
    ratio_left, accuracy_left = (
        values - basis @ np.linalg.lstsq(basis, values, rcond=None)[0]
        for values in (ratio, 100 * np.array([v.test for v in variants]))
    )
    scale, spread = float(ratio_left @ ratio_left), float(accuracy_left @ accuracy_left)
    if min(scale, spread) < _ROUNDING:
        return None
    partial_correlation = float(ratio_left @ accuracy_left / math.sqrt(scale * spread))
    points = float(ratio_left @ accuracy_left / scale)
    rest = accuracy_left - points * ratio_left
    return Correlation(
        partial_correlation,
        (1 - partial_correlation**2) / math.sqrt(number - (fitted - 1) - 3),
        points,
        math.sqrt(float(rest @ rest) / (number - fitted - 1) / scale),
    )


def variants_table(record: Mapping[str, Any]) -> str:
    """Accuracy of each variant, width by width; the front with its seeds; the correlation with the ratio."""
    variants = variants_of(record)
    parts = [
        f"Test accuracy of seed 0, in %:\n\n{_grid(variants)}",
        f"On the front by validation accuracy:\n\n{_front_rows(record, front(variants))}",
    ]
    if correlation(variants):
        title = "Accuracy and the ratio of 1x1 to NMF parameters, at equal parameters, with standard errors"
        parts.append(f"{title}:\n\n{_correlations(variants)}")
    return "\n\n".join(parts)


def _grid(variants: Sequence[Variant]) -> str:
    known = {(v.width, v.groups, v.mixing_groups): f"{100 * v.test:.1f}" for v in variants}
    widths, groups, mixing = (
        {v.width for v in variants},
        {v.groups for v in variants},
        {v.mixing_groups for v in variants},
    )
    rows = [
        (f"{width:g}", g, *(known.get((width, g, m), "not run") for m in sorted(mixing)))
        for width in sorted(widths)
        for g in sorted(groups)
    ]
    rows += [(f"{width:g}", "all", *["not run"] * len(mixing)) for width in PAPER_WIDTHS if width not in widths]
    return table(rows, ("width", "groups of NMF", *(f"1x1 in {m}" for m in sorted(mixing))))


def _front_rows(record: Mapping[str, Any], best: Sequence[Variant]) -> str:
    rows = []
    for v in best:
        cells = [cell for name, cell in record["cells"].items() if name.startswith(f"{v.name}/")]
        tests = 100 * np.array([cell["test_accuracy"] for cell in cells])
        accuracy, size = mean_and_deviation(tests), f"{v.parameters:,}"
        rows.append((f"{v.width:g}", v.groups, v.mixing_groups, size, f"{v.ratio:.2f}", accuracy, len(tests)))
    head = ("width", "groups of NMF", "of 1x1", "parameters", "1x1 / NMF", "test accuracy, %", "seeds")
    return table(rows, head)


def _correlations(variants: Sequence[Variant]) -> str:
    chosen = {f"width {w:g}": [v for v in variants if v.width == w] for w in sorted({v.width for v in variants})}
    rows = []
    for label, some in {**chosen, "all": variants}.items():
        if found := correlation(some):
            partial_r = f"{found.partial:.2f} ± {found.error:.2f}"
            rows.append((label, len(some), partial_r, f"{found.points:.2f} ± {found.points_error:.2f}"))
    return table(rows, ("variants", "number", "correlation", "points a doubling of the ratio"))


@styled
def draw_variants(record: Mapping[str, Any]) -> Figure:
    """Accuracy against parameters, coloured by the ratio, and against the ratio, coloured by parameters."""
    variants = variants_of(record)
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    parameters, ratio = "parameters", "ratio of 1x1 to NMF parameters"
    _scatter(left, variants, "parameters", "ratio", ratio)
    _scatter(right, variants, "ratio", "parameters", parameters)
    best = front(variants)
    # Like the paper's, the front is red; it is chosen by validation, so that it is no staircase of test accuracies.
    left.plot([v.parameters for v in best], [100 * v.test for v in best], color=VERMILLION, label="front by validation")
    right.axvline(best[-1].ratio, color=GREY, ls="--", label="ratio of the best")
    left.set(xlabel=parameters, ylabel="test accuracy, %")
    right.set(xlabel=ratio)
    for axes in (left, right):
        axes.legend(loc="lower right", fontsize=7)
    return figure


def _scatter(axes: Axes, variants: Sequence[Variant], x: str, colour: str, label: str) -> None:
    shades = [getattr(v, colour) for v in variants]
    norm = LogNorm(min(shades), max(shades) * 1.001)
    for width, marker in zip(sorted({v.width for v in variants}), itertools.cycle(_MARKERS)):
        own = [v for v in variants if v.width == width]
        points = axes.scatter(
            [getattr(v, x) for v in own],
            [100 * v.test for v in own],
            c=[getattr(v, colour) for v in own],
            norm=norm,
            cmap="viridis",
            marker=marker,
            s=18,
            zorder=3,
            label=f"width {width:g}",
        )
    axes.set_xscale("log")
    decades(axes.xaxis)
    axes.figure.colorbar(points, ax=axes, label=label)  # pyright: ignore


def claim(record: Mapping[str, Any]) -> Finding:
    """For the table of claims: how many variants there are, the ends of the front, the correlation."""
    variants = variants_of(record)
    if len(variants) < 2:
        return "", NOT_RUN
    first, last = (front(variants)[i] for i in (0, -1))
    ours = (
        f"{len(variants)} of 100, {record['config']['train_images']:,} images, {record['config']['epochs']} epochs: "
        f"seed 0 from {100 * first.test:.1f} % with {first.parameters:,} parameters to {100 * last.test:.1f} % with "
        f"{last.parameters:,}"
    )
    if found := correlation(variants):
        ours += f"; correlation with the ratio at equal parameters {found.partial:.2f} ± {found.error:.2f}"
    return ours, HOLDS if len(variants) == 100 else IN_PART if len(variants) >= 50 else NOT_RUN
