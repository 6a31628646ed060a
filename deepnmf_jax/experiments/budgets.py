"""Trainings of an experiment within a budget of images and epochs: each in a folder of its own, resumable."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from deepnmf_jax.core.checks import check_integer
from deepnmf_jax.data.datasets import Dataset, image_shape_and_classes, load_dataset, split_train_validation
from deepnmf_jax.experiments import run_records
from deepnmf_jax.files import write_atomically
from deepnmf_jax.programs import home, read_recipe
from deepnmf_jax.training.loop import train_and_evaluate

# What a training says of itself in the record of an experiment.
KEPT = ("test_accuracy", "validation_accuracy", "parameters", "epochs", "best_epoch", "seconds", "seed")


def check_budget(config: Any, choosing: bool = False) -> None:
    """Refuses a budget that no training can have. The keys: see `recipe`.

    Args:
        config: of the experiment.
        choosing: whether something is chosen by the validation images, so that there must be some.

    Raises:
        ValueError: numbers outside what they allow, an unknown data set, a damaged file.
        FileNotFoundError: the file that is named as the data set is not there.
    """
    for name in ("train_images", "test_images"):
        check_integer(name, config[name], 0)
    check_integer("validation_images", config.validation_images, int(choosing))
    check_integer("epochs", config.epochs, 1)
    image_shape_and_classes(config.dataset)


def check_listed(config: Any, *names: str) -> None:
    """ValueError if one of these settings, which list what is measured, is empty."""
    for name in names:
        if not config[name]:
            raise ValueError(f"{name} is empty; give one value at least")


def check_recipe(name: str, layer: str) -> None:
    """ValueError unless `name` is a file of configs/ whose networks have layers of that kind."""
    if (there := read_recipe(name).model.layer) != layer:
        raise ValueError(f"configs/{name}.py has layer = {there!r}, but this needs {layer!r}; use 'fast/cnmf'")


def recipe(name: str, config: Any, workdir: str | Path, changes: Mapping[str, Any] | None = None) -> ConfigDict:
    """The config of a training within the budget of an experiment.

    Args:
        name: of a file of configs/, such as "fast/cnmf_1x1".
        config: of the experiment, with the keys dataset, data_dir, train_images, validation_images, test_images (0:
            all there are) and epochs.
        workdir: of the experiment, which gets the chosen images as one file.
        changes: other values of settings of configs/base.py, by dotted name.
    """
    settings = ConfigDict(read_recipe(name).to_dict())
    (side, _, channels), _ = image_shape_and_classes(config.dataset)
    budget = {
        "dataset": images_of(config, workdir),
        "data_dir": config.data_dir,
        "num_validation": config.validation_images,
        "num_epochs": config.epochs,
        # As of CIFAR-10: a window four pixels smaller, and flips of what may be mirrored, which digits may not.
        "augmentation.crop": side - 4,
        "augmentation.flip": channels == 3,
    }
    for key, value in {**budget, **(changes or {})}.items():
        *parents, setting = key.split(".")
        place = settings
        for parent in parents:
            place = place[parent]
        if setting not in place:
            raise ValueError(f"there is no setting {key!r} in configs/{name}.py")
        place[setting] = value
    return settings


def train(settings: Any, folder: str | Path) -> dict[str, Any]:
    """Trains the network of a config in a folder, going on where it was stopped; what the record keeps of it.

    A finished training is read, not repeated. Shares, not percent; seconds.
    """
    path = Path(folder) / "results.json"
    results = json.loads(path.read_text()) if path.exists() else train_and_evaluate(settings, folder)
    return {name: results[name] for name in KEPT if name in results}


def trained(folder: str | Path) -> tuple[Any, dict[str, Any]]:
    """The `Run` of a finished training and its best variables by validation; with several seeds a leading axis."""
    return run_records.trained(Path(folder))


def images_of(config: Any, workdir: str | Path) -> str:
    """The data set as `config.dataset` of a training: its name where all images are wanted, else a file in the workdir.

    The chosen images have the classes in proportion, and are the same for every training and every call.
    """
    if not (config.train_images or config.test_images):
        return config.dataset
    workdir = home(workdir)
    path = workdir / f"{Path(config.dataset).stem}-{config.train_images}-{config.test_images}.npz"
    if path.exists():
        return str(path)
    found = load_dataset(config.dataset, config.data_dir or None)
    train_count = config.train_images and config.train_images + config.validation_images
    train, test = (
        _some(labels, count)
        for labels, count in ((found.train_labels, train_count), (found.test_labels, config.test_images))
    )
    workdir.mkdir(parents=True, exist_ok=True)
    chosen = found._replace(
        train_images=found.train_images[train],
        train_labels=found.train_labels[train],
        test_images=found.test_images[test],
        test_labels=found.test_labels[test],
    )
    write_images(path, chosen)
    return str(path)


def write_images(path: Path, dataset: Dataset) -> None:
    """A data set as one .npz, such as `config.dataset` of a training may name."""
    arrays: dict[str, Any] = {
        "x_train": dataset.train_images,
        "y_train": dataset.train_labels,
        "x_test": dataset.test_images,
        "y_test": dataset.test_labels,
        "class_names": np.array(dataset.class_names),
    }
    write_atomically(path, partial(np.savez, **arrays))


def _some(labels: np.ndarray, count: int) -> np.ndarray:
    if not count or count >= len(labels):
        return np.arange(len(labels))
    return split_train_validation(labels, count, seed=0).validation
