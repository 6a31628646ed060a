"""Accuracy against the level of noise: networks with NMF layers beside their twins of convolutions.

python main.py --config=configs/experiments/robustness.py --workdir=runs/robustness [--config.data_dir=...]
"""

from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deepnmf_jax.core.checks import check_choice, check_integer, check_number, check_seed
from deepnmf_jax.data.augmentation import center_crop
from deepnmf_jax.data.datasets import load_dataset
from deepnmf_jax.experiments.budgets import check_budget, check_listed, images_of, recipe, train, trained, write_images
from deepnmf_jax.experiments.cells import Cell, run_cells
from deepnmf_jax.experiments.noise import ATTACK, KINDS, add_noise, attack_of, check_levels
from deepnmf_jax.experiments.robustness_pages import claim, draw_robustness, robustness_table
from deepnmf_jax.models import Network, load_pretrained, pretrained_names
from deepnmf_jax.programs import home

# The config of configs/ that trains a network, and what is changed in it.
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (f"fast/{name}", {}) for name in ("cnn", "cnmf", "cnn_1x1", "cnmf_1x1")},
    "residual": ("beyond/residual", {}),
    "residual_cnn": ("beyond/residual", {"model.layer": "conv"}),
}
# `claim` is what the table of claims asks an experiment for.
__all__ = ["claim", "run"]
# Of the images trained on with noise: each has one of so many levels, from 0 to `train_level`.
TRAIN_LEVELS = 11
_SELECTING = ("pretrained", "networks", "train_noise", "statistics")


def run(config: Any, workdir: str) -> None:
    """Trains the networks, asks each in noise, writes results.json, table and pictures.

    Raises:
        ValueError: settings outside what they allow, or a workdir of another budget.
        FileNotFoundError: the images are not there.
    """
    _check(config)
    run_cells(config, workdir, _cells(config, Path(workdir)), robustness_table, draw_robustness, _SELECTING)


def _check(config: Any) -> None:
    check_budget(config, choosing=True)
    check_listed(config, "train_noise", "statistics", "levels")
    check_seed("seed", config.seed)
    for name in config.pretrained:
        check_choice("pretrained", name, pretrained_names())
    for name in config.networks:
        check_choice("networks", name, tuple(NETWORKS))
    if not (config.networks or config.pretrained):
        raise ValueError("networks and pretrained are empty; name one network at least")
    for kind in config.train_noise:
        check_choice("train_noise", kind, ("none", *KINDS))
    check_number("train_level", config.train_level, 0, 1)
    for statistics in config.statistics:
        check_choice("statistics", statistics, ("running", "batch"))
    for name in ("num_seeds", "batch_size"):
        check_integer(name, config[name], 1)
    check_listed(config.levels, *config.levels)
    check_levels(config.levels)


def _cells(config: Any, workdir: Path) -> list[Cell]:
    """Networks of the package first, then the others: training, clean images, each kind of noise."""
    cells: list[Cell] = []

    def ask(name: str, subject: "_Subject", cost: float) -> None:
        for statistics in config.statistics:
            for kind in ("clean", *config.levels):
                levels = config.levels.get(kind, (0.0,))
                # A step of FGSM goes through the network and back.
                work = cost * len(levels) * (3 if kind == ATTACK else 1)
                cells.append(Cell(f"{name}/{statistics}/{kind}", partial(subject.curve, statistics, kind), work))

    images = _Images(config, workdir)
    for name in config.pretrained:
        ask(f"package/{name}", _Subject(config, images, partial(_from_package, name)), 1)
    for kind in config.train_noise:
        for name in config.networks:
            place = f"trained, {kind}/{name}"
            folder = workdir / "training" / place.replace("/", ", ")
            subject = _Subject(config, images, partial(_from_training, folder))
            work = config.num_seeds * config.epochs * (config.train_images or 45000) / 500
            cells.append(Cell(f"{place}/training", partial(_train, config, workdir, name, kind, folder), work))
            ask(place, subject, config.num_seeds)
    return cells


def _train(config: Any, workdir: Path, name: str, kind: str, folder: Path) -> dict[str, Any]:
    file, changes = NETWORKS[name]
    more = {} if kind == "none" else {"dataset": _noisy_images(config, workdir, kind)}
    settings = recipe(file, config, workdir, {**changes, **more, "num_seeds": config.num_seeds})
    result = train(settings, folder)
    return {key: result[key] for key in ("test_accuracy", "validation_accuracy", "parameters", "best_epoch")}


def _noisy_images(config: Any, workdir: Path, kind: str) -> str:
    """The data set with noise on the training images, each with a level of its own and the same noise in all epochs."""
    path = home(workdir) / f"{Path(config.dataset).stem}-{config.train_images}-{config.test_images}-{kind}.npz"
    if path.exists():
        return str(path)
    found = load_dataset(images_of(config, workdir), config.data_dir or None)
    clean = found.train_images.astype(np.float32) / 255
    noisy, key = np.empty_like(found.train_images), jax.random.key(config.seed)
    pictures = jnp.asarray(clean[:1000])
    for i in range(TRAIN_LEVELS):
        level = config.train_level * i / (TRAIN_LEVELS - 1)
        images = jnp.asarray(clean[i::TRAIN_LEVELS])
        changed = np.asarray(add_noise(jax.random.fold_in(key, i), images, kind, level, pictures))
        # Networks of this family do not see brightness, so that what is too bright is made darker, not cut.
        changed = changed / np.maximum(changed.max(axis=(1, 2, 3), keepdims=True), 1)
        noisy[i::TRAIN_LEVELS] = np.rint(255 * changed).astype(np.uint8)
    write_images(path, found._replace(train_images=noisy))
    return str(path)


def _from_package(name: str) -> tuple[Network, list[Any]]:
    found = load_pretrained(name)
    return found.model, [found.variables]


def _from_training(folder: Path) -> tuple[Network, list[Any]]:
    run, variables = trained(folder)
    if len(run.seeds) == 1:
        return run.model, [variables]
    return run.model, [jax.tree.map(lambda leaf, i=i: leaf[i], variables) for i in range(len(run.seeds))]


class _Images:
    """Test images and the training images of the noise "picture", in the middle, read when first needed."""

    def __init__(self, config: Any, workdir: Path):
        self.config, self.workdir = config, workdir

    @cached_property
    def read(self) -> tuple[Any, np.ndarray, Any]:
        """Test images float32 (number, height, width, channels), their labels, 1,000 pictures."""
        found = load_dataset(images_of(self.config, self.workdir), self.config.data_dir or None)
        side = found.test_images.shape[1] - 4  # as in training
        test, pictures = (
            np.asarray(center_crop(jnp.asarray(images), side))
            for images in (found.test_images, found.train_images[:1000])
        )
        return test, found.test_labels, pictures


class _Subject:
    """A network, with the variables of each of its seeds, loaded when first asked."""

    def __init__(self, config: Any, images: _Images, load: Callable[[], tuple[Network, list[Any]]]):
        self.config, self.images, self.load = config, images, load

    @cached_property
    def loaded(self) -> tuple[Network, list[Any]]:
        return self.load()

    @cached_property
    def programs(self) -> dict[str, tuple[Any, Any]]:
        """Of each statistics: images -> classes, and images -> images one step of FGSM away."""
        return {name: _compiled(self.loaded[0].clone(batch_statistics=name)) for name in self.config.statistics}

    def curve(self, statistics: str, kind: str) -> list[list[float]]:
        """Accuracy at each level of a kind of noise, of each seed: a share of the test images."""
        classify, attack = self.programs[statistics]
        images, labels, pictures = self.images.read
        key, size = jax.random.key(self.config.seed), self.config.batch_size
        curve = []
        for level in self.config.levels.get(kind, (0.0,)):
            right = np.zeros(len(self.loaded[1]))
            for i, start in enumerate(range(0, len(labels), size)):
                batch, wanted = jnp.asarray(images[start : start + size]), labels[start : start + size]
                if kind in KINDS:
                    batch = add_noise(jax.random.fold_in(key, i), batch, kind, level, pictures)
                for seed, variables in enumerate(self.loaded[1]):
                    seen = attack(variables, batch, wanted, level) if kind == ATTACK else batch
                    right[seed] += (np.asarray(classify(variables, seen)) == wanted).sum()
            curve.append((right / len(labels)).tolist())
        return curve


def _compiled(model: Network) -> tuple[Any, Any]:
    def classify(variables: Any, images: jax.Array) -> jax.Array:
        logits: Any = model.apply(variables, images, train=False)
        return logits.argmax(-1)

    return jax.jit(classify), attack_of(model)
