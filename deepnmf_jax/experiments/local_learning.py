"""Local learning (paper, section 4.2): which layers are local and where labels come in, reading by reading.

python main.py --config=configs/experiments/local_learning.py --workdir=runs/local_learning [--config.data_dir=...]
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from deepnmf_jax.core.checks import check_choice, check_integer
from deepnmf_jax.core.gradients import LOCAL_RULES
from deepnmf_jax.data.augmentation import center_crop
from deepnmf_jax.experiments.budgets import check_budget, check_listed, check_recipe, recipe, train, trained
from deepnmf_jax.experiments.cells import Cell, run_cells
from deepnmf_jax.experiments.claims import IN_PART, NOT, NOT_RUN, Finding
from deepnmf_jax.experiments.tables import mean_and_deviation, table
from deepnmf_jax.models import Network
from deepnmf_jax.plotting import BLACK, BLUE, ORANGE, WIDTH, styled
from deepnmf_jax.training.optimizers import GROUPS

# What the paper reports, in %.
PAPER_LOCAL = 32.0
# A reading comes near to it within so many points. None of ours has the paper's budget.
NEAR = 3.0
BLOCKS = ("no", "all", "all but the last")
_SELECTING = ("rules", "best", "best_seeds")
# Rates must be above 0. Adam's steps are at most about as long as the rate: these change no weight in float32.
_NO_RATE = 1e-12


class Reading(NamedTuple):
    """One reading of the claim: which blocks learn by which rule, and whether labels train batch norm."""

    blocks: str  # of BLOCKS
    rule: str  # "kl", "mse", or "none": what is not local is trained by the labels
    labels: bool  # in scale and offset of batch norm; without, all NMF weights of local blocks see images alone
    frozen: bool = False  # nothing learns: the initial weights, for comparison

    @property
    def name(self) -> str:
        """As in the record, without the seed."""
        if self.frozen:
            return "nothing learns"
        batch_norm = "labels in batch norm" if self.labels else "no labels in batch norm"
        return f"{self.blocks} blocks local, {self.rule}, {batch_norm}" if self.rule != "none" else "back-propagation"

    def apply(self, settings: Any) -> None:
        """Changes the config of a training to the reading."""
        blocks = len(settings.model.kernels)
        local = {"no": 0, "all": blocks, "all but the last": blocks - 1}[self.blocks]
        with settings.model.ignore_type():  # one rule a block, where the file has one for all
            settings.model.local_learning = (self.rule,) * local + ("none",) * (blocks - local)
        for group in GROUPS if self.frozen else () if self.labels else ("batch_norm",):
            settings.optimizer.learning_rate[group] = _NO_RATE


def readings(rules: Sequence[str]) -> list[Reading]:
    """All readings, after back-propagation and the initial weights, which they are held against."""
    local = [Reading(b, rule, labels) for rule in rules for labels in (True, False) for b in BLOCKS[:0:-1]]
    return [Reading("no", "none", True), Reading("no", "none", False, frozen=True), *local]


def run(config: Any, workdir: str) -> None:
    """Trains each reading, then further seeds of the best; writes results.json, table and picture.

    Raises:
        ValueError: settings outside what they allow, or a workdir of another budget.
        FileNotFoundError: the images are not there.
    """
    _check(config)
    writing: Any = {"table": local_learning_table, "draw": draw_local_learning, "selecting": _SELECTING}
    asked = readings(config.rules)
    cells = [_cell(config, workdir, reading, 0) for reading in asked]
    record = run_cells(config, workdir, cells, **writing)
    found = best(record, [reading for reading in asked if reading.rule != "none"], config.best)
    more = [_cell(config, workdir, reading, seed) for seed in config.best_seeds for reading in found]
    if more:
        run_cells(config, workdir, [*cells, *more], **writing)


def _check(config: Any) -> None:
    check_budget(config, choosing=True)
    check_listed(config, "rules")
    check_recipe(config.network, layer="nmf")
    for rule in config.rules:
        check_choice("rules", rule, LOCAL_RULES)
    check_integer("best", config.best, 0)
    check_integer("readout_steps", config.readout_steps, 1)
    for seed in config.best_seeds:
        check_integer("best_seeds", seed, 1)


def _cell(config: Any, workdir: str, reading: Reading, seed: int) -> Cell:
    name = f"{reading.name}/seed {seed}"
    folder = Path(workdir) / "training" / name.replace("/", ", ")
    return Cell(name, partial(_measure, config, workdir, reading, seed, folder))


def _measure(config: Any, workdir: str, reading: Reading, seed: int, folder: Path) -> dict[str, float]:
    settings = recipe(config.network, config, workdir, {"seed": seed})
    reading.apply(settings)
    result = train(settings, folder)
    run, variables = trained(folder)
    return {
        "test_accuracy": result["test_accuracy"],
        "validation_accuracy": result["validation_accuracy"],
        **_readout(run, variables, config.readout_steps),
    }


def _readout(run: Any, variables: Any, steps: int) -> dict[str, float]:
    """Accuracy of a linear classifier of what the last block is given, trained on the training images."""
    data, split = run.dataset, run.split
    side = run.augmentation.crop

    @jax.jit
    def features(images: jax.Array) -> jax.Array:
        return last_features(run.model, variables, images)

    def of(images: np.ndarray) -> np.ndarray:
        batches = [center_crop(jnp.asarray(images[i : i + 500]), side) for i in range(0, len(images), 500)]
        return np.concatenate([np.asarray(features(batch)) for batch in batches])

    known = of(data.train_images[split.train])
    mean, deviation = known.mean(0), known.std(0) + 1e-12
    predict = linear_classifier((known - mean) / deviation, data.train_labels[split.train], data.num_classes, steps)
    sets = {
        "readout_validation_accuracy": (data.train_images[split.validation], data.train_labels[split.validation]),
        "readout_test_accuracy": (data.test_images, data.test_labels),
    }
    return {
        name: float((predict((of(images) - mean) / deviation) == labels).mean())
        for name, (images, labels) in sets.items()
    }


def last_features(model: Network, variables: Any, images: jax.Array) -> jax.Array:
    """What the last block is given: images (batch, height, width, channels) -> (batch, features)."""
    name = f"block{len(model.kernels) - 1}"
    _, state = model.apply(
        variables,
        images,
        train=False,
        capture_intermediates=lambda module, _: module.name == name,
        mutable=["intermediates"],
    )
    found: Any = state["intermediates"][name]["__call__"][0]
    return found.reshape(len(found), -1)


def linear_classifier(features: np.ndarray, labels: np.ndarray, classes: int, steps: int) -> Any:
    """Multinomial regression of features (number, n) by so many accelerated gradient steps; (number, n) -> classes."""
    x = np.concatenate([features, np.ones((len(features), 1), features.dtype)], axis=1)
    wanted = jax.nn.one_hot(labels, classes, dtype=x.dtype)
    # The loss is no more curved than half the covariance of the features.
    rate = 2 / float(np.linalg.eigvalsh(x.T @ x / len(x))[-1])

    def step(at: tuple[jax.Array, jax.Array], number: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        kernel, ahead = at
        slope = x.T @ (jax.nn.softmax(x @ ahead) - wanted) / len(x)
        new = ahead - rate * slope
        return (new, new + number / (number + 3) * (new - kernel)), None

    start = jnp.zeros((x.shape[1], classes), x.dtype)
    numbers = jnp.arange(steps, dtype=x.dtype)
    (kernel, _), _ = jax.jit(lambda start: jax.lax.scan(step, (start, start), numbers))(start)
    fitted = np.asarray(kernel)
    return lambda some: (some @ fitted[:-1] + fitted[-1]).argmax(-1)


def best(record: Mapping[str, Any], asked: Sequence[Reading], number: int) -> list[Reading]:
    """The readings whose seed 0 has the highest validation accuracy, of the network or of the linear read-out."""

    def accuracy(reading: Reading) -> float:
        cell = record["cells"][f"{reading.name}/seed 0"]
        return max(cell["validation_accuracy"], cell["readout_validation_accuracy"])

    return sorted(asked, key=accuracy, reverse=True)[:number]


def _by_reading(record: Mapping[str, Any]) -> dict[str, list[dict[str, float]]]:
    found: dict[str, list[dict[str, float]]] = {}
    for name, cell in record["cells"].items():
        found.setdefault(name.split("/")[0], []).append(cell)
    return found


def _told(values: Sequence[float]) -> str:
    return mean_and_deviation(100 * np.array(values))


def local_learning_table(record: Mapping[str, Any]) -> str:
    """Test accuracy of each reading: of the network, and of a linear read-out of what its last block is given."""
    keys = "test_accuracy", "readout_test_accuracy"
    rows = [
        (name, *(_told([cell[key] for cell in cells]) for key in keys), len(cells))
        for name, cells in _by_reading(record).items()
    ]
    return table(rows, ("what learns how", "test accuracy, %", "with a linear read-out, %", "seeds"))


@styled
def draw_local_learning(record: Mapping[str, Any]) -> Figure:
    """A pair of bars each reading: the network as it was trained, and with a linear read-out."""
    found = _by_reading(record)
    figure = Figure(figsize=(WIDTH, 0.9 + 0.32 * len(found)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(found))
    for shift, key, colour, label in (
        (-0.2, "test_accuracy", BLUE, "the network"),
        (0.2, "readout_test_accuracy", ORANGE, "a linear read-out of its last features"),
    ):
        values = [100 * np.array([cell[key] for cell in cells]) for cells in found.values()]
        errors = [v.std(ddof=1) if len(v) > 1 else 0 for v in values]
        axes.barh(places + shift, [v.mean() for v in values], 0.38, xerr=errors, color=colour, label=label)
    axes.axvline(PAPER_LOCAL, color=BLACK, ls="--", lw=1, label="the paper's local learning")
    axes.set(yticks=places, yticklabels=list(found), xlabel="test accuracy, %")
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.legend(fontsize=7)
    return figure


def claim(record: Mapping[str, Any]) -> Finding:
    """For the table of claims: the reading that comes nearest to the paper's accuracy."""
    local = {
        f"{name}{how}": [cell[key] for cell in cells]
        for name, cells in _by_reading(record).items()
        for key, how in (("test_accuracy", ""), ("readout_test_accuracy", ", linear read-out"))
        if "local" in name
    }
    if not local:
        return "", NOT_RUN
    away = {name: abs(100 * float(np.mean(accuracies)) - PAPER_LOCAL) for name, accuracies in local.items()}
    nearest = min(away, key=lambda name: away[name])
    ours = f"{_told(local[nearest])} %: {nearest}; {record['config']['train_images']:,} images"
    return ours, IN_PART if away[nearest] < NEAR else NOT
