"""Test accuracy of the paper's four networks (figure 5): bars with deviations and parameters, the paper's beside.

python main.py --config=configs/experiments/accuracy.py --workdir=runs/accuracy [--config.dataset=fashion_mnist]

Runs with a record in docs/results/accuracy are taken from there; the others are trained by the recipe of configs/fast.
"""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from deepnmf_jax.core.checks import check_choice, check_flag, check_seed
from deepnmf_jax.experiments.accuracy_rows import PAPER, RECORDS
from deepnmf_jax.experiments.budgets import KEPT, check_budget, check_listed, recipe, train
from deepnmf_jax.experiments.cells import Cell, Record, run_cells
from deepnmf_jax.experiments.tables import mean_and_deviation, table
from deepnmf_jax.plotting import BLACK, WIDTH, network_colour, styled

# The committed runs on all images: data set and epochs, and how accuracy_rows.py names them.
COMMITTED = {("cifar10", 20): "twenty", ("cifar10", 5): "fast", ("fashion_mnist", 5): "fashion"}
# Deviations of the paper's accuracies over five initialisations, points; the CNN's by eye.
PAPER_DEVIATIONS = {"cnmf_1x1": 0.16, "cnn_1x1": 0.09, "cnmf": 0.17, "cnn": 0.05}
# Whose accuracies the paper gives.
PAPER_DATASET = "cifar10"


def run(config: Any, workdir: str | Path) -> Record:
    """Takes or trains what the config asks for (configs/experiments/accuracy.py); record, table and pictures.

    Raises:
        ValueError: settings outside what they allow, or a workdir of other settings.
        FileNotFoundError: the images are not there.
    """
    check_listed(config, "networks", "seeds")
    for network in config.networks:
        check_choice("networks", network, tuple(PAPER))
    for seed in config.seeds:
        check_seed("seeds", seed)
    check_flag("committed", config.committed)
    check_budget(config)
    cells = [
        Cell(f"{network}/{seed}", partial(_accuracy, config, workdir, network, seed))
        for network in config.networks
        for seed in config.seeds
    ]
    return run_cells(config, workdir, cells, accuracy_figure_table, draw_accuracy, ("networks", "seeds"))


def _accuracy(config: Any, workdir: str | Path, network: str, seed: int) -> dict[str, Any]:
    whole = not (config.train_images or config.test_images)
    name = COMMITTED.get((config.dataset, config.epochs)) if config.committed and whole else None
    path = RECORDS / f"{network}-{name}-seed{seed}" / "results.json"
    if name and path.exists():
        results = json.loads(path.read_text())
        return {key: results[key] for key in KEPT if key in results} | {
            "from": f"docs/results/accuracy/{path.parent.name}"
        }
    settings = recipe(f"fast/{network}", config, workdir, {"seed": seed})
    return train(settings, Path(workdir) / "training" / f"{network}-seed{seed}")


def committed(dataset: str, epochs: int) -> dict[str, Any]:
    """The committed runs in the form of a record, of all seeds there are."""
    cells = {}
    for network in PAPER:
        for path in sorted(RECORDS.glob(f"{network}-{COMMITTED[dataset, epochs]}-seed*/results.json")):
            results = json.loads(path.read_text())
            cells[f"{network}/{results['seed']}"] = {key: results[key] for key in KEPT}
    seeds = sorted({int(name.split("/")[1]) for name in cells})
    return {"config": {"dataset": dataset, "networks": list(PAPER), "seeds": seeds, "epochs": epochs}, "cells": cells}


def runs_of(record: Mapping[str, Any], network: str) -> list[dict[str, Any]]:
    """What the record has of a network, seed by seed."""
    found = [record["cells"].get(f"{network}/{seed}") for seed in record["config"]["seeds"]]
    return [cell for cell in found if cell]


def accuracy_figure_table(record: Mapping[str, Any]) -> str:
    """Mean and deviation of the test accuracy, parameters, and the paper's accuracy on its own images."""
    rows = []
    for network in record["config"]["networks"]:
        found = runs_of(record, network)
        own = [100 * cell["test_accuracy"] for cell in found]
        accuracy = mean_and_deviation(own) if own else "not run"
        name, paper = PAPER[network]
        theirs = (
            f"{paper:.1f} ± {PAPER_DEVIATIONS[network]:.2f}" if record["config"]["dataset"] == PAPER_DATASET else ""
        )
        parameters = f"{found[0]['parameters']:,}" if found else ""
        rows.append((name, parameters, accuracy, len(own), theirs))
    return table(rows, ("network", "parameters", "test accuracy, %", "seeds", "paper, %"))


def committed_table(dataset: str = PAPER_DATASET, epochs: int = 20) -> str:
    """The table of the committed runs of a data set."""
    return accuracy_figure_table(committed(dataset, epochs))


@styled
def draw_accuracy(record: Mapping[str, Any]) -> Figure:
    """A bar a network with its deviation and its parameters; the paper's accuracy as a diamond."""
    config = record["config"]
    figure = Figure(figsize=(0.7 * WIDTH, 3.2), layout="constrained")
    axes = figure.subplots()
    lowest, with_paper = 100.0, config["dataset"] == PAPER_DATASET
    # From the least to the best, as in the paper.
    listed = [network for network in reversed(PAPER) if network in config["networks"]]
    for place, network in enumerate(listed):
        name, paper = PAPER[network]
        found = runs_of(record, network)
        own = [100 * cell["test_accuracy"] for cell in found]
        if own:
            spread = np.std(own, ddof=1) if len(own) > 1 else 0
            axes.bar(place, np.mean(own), 0.6, yerr=spread, capsize=4, color=network_colour(name))
            axes.annotate(f"{found[0]['parameters']:,}\nparameters", (place, 0.03), ha="center", fontsize=7,
                          xycoords=("data", "axes fraction"), color="white")  # fmt: skip
            lowest = min(lowest, *own)
        if with_paper:
            label = "the paper, original images" if place == 0 else None
            axes.errorbar(place, paper, PAPER_DEVIATIONS[network], fmt="D", ms=4, capsize=3, color=BLACK, label=label)
    axes.set_xticks(range(len(listed)), [PAPER[network][0] for network in listed])
    axes.set(ylabel=f"{config['dataset']}, test accuracy, %", ylim=(max(0, np.floor(lowest / 5) * 5 - 5), None))
    axes.set_title(
        f"mean and deviation of {len(config['seeds'])} seeds, {config['epochs']} epochs", fontweight="normal"
    )
    axes.grid(visible=False, axis="x")
    if with_paper:
        axes.legend(loc="upper left")
    return figure
