"""What a trained network says of pictures: `deepnmf-jax predict`."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from deepnmf_jax.data.datasets import KNOWN
from deepnmf_jax.data.image_folders import opened, upright
from deepnmf_jax.models import Pretrained, load_pretrained
from deepnmf_jax.models.pretrained import middle
from deepnmf_jax.programs import home
from deepnmf_jax.training import checkpoints
from deepnmf_jax.training.records import described_images, trained_config
from deepnmf_jax.training.reports import PRETRAINED
from deepnmf_jax.training.setup import cropped_shape, prepare, without_data
from deepnmf_jax.training.state import TrainState

# Classes that are printed of a picture.
LISTED = 3


def best_variables(template: TrainState, workdir: Path) -> dict[str, Any]:
    """Those of a run with the best validation, or before its first epoch has ended the last ones; with several seeds
    they have a leading axis.

    Raises:
        FileNotFoundError: there is no checkpoint.
        OSError: all checkpoints there are damaged.
    """
    state = checkpoints.restore_path(workdir, template).state
    found = state.best if np.all(jax.device_get(state.best.epoch) > 0) else state
    return jax.device_get({"params": found.params, "batch_stats": found.batch_stats})


def load_trained(workdir: str | os.PathLike[str]) -> Pretrained:
    """The network of a run with its best variables by validation; of several seeds, the first.

    The run may be going on, or have been stopped. Its data set is not needed, if the workdir holds images.json, which
    every training writes.

    Args:
        workdir: folder of the run; `~` is the home folder.

    Returns:
        What `load_pretrained` gives: `model`, `variables`, `image_shape`, `class_names`, `prepare`; `results` has the
        config of the run and the names of the classes.

    Raises:
        FileNotFoundError: no run there, or no checkpoint yet.
        ValueError: a config.json that cannot be read.
        OSError: no intact checkpoint; or images.json is damaged, or missing as of an older release and the run's data
            set is not there.
    """
    folder = home(workdir)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} has no config.json; give the workdir of a run, or {PRETRAINED}NAME")
    config = trained_config(folder)
    described = described_images(folder)
    if described is None:
        dataset = prepare(config).dataset
        described = dataset.train_images.shape[1:], list(dataset.class_names)
    whole, class_names = described
    image_shape = cropped_shape(config.augmentation.crop, whole)
    model, template = without_data(config, image_shape, len(class_names))
    variables = best_variables(template, folder)
    if config.num_seeds > 1:
        variables = jax.tree.map(lambda leaf: leaf[0], variables)
    more = {"class_names": class_names, "config": config.to_dict(), "whole_shape": whole}
    return Pretrained(model, variables, image_shape, more)


def read_image(path: Path, trained: Pretrained) -> np.ndarray:
    """A picture of any size as the network takes it: its middle, float32 (1, height, width, channels) in [0, 1].

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no picture, or has levels of 32 bits; the network is for images of other than 1 or 3 channels.
    """
    from PIL import ImageOps

    # The network sees the middle of its data set's images: the picture is brought to their size first.
    shape = trained.image_shape
    known = KNOWN.get(Path(str(trained.results.get("config", {}).get("dataset", ""))).stem)
    usual = known.image_shape if known and known.image_shape[2] == shape[2] else shape
    height, width, channels = trained.results.get("whole_shape") or usual
    if channels not in (1, 3):
        raise ValueError(
            f"the network is for images of {channels} channels; files of pictures give 1 or 3: use `predict`"
        )
    with opened(path) as picture:
        fitted = np.asarray(ImageOps.fit(upright(picture, channels == 1), (width, height)))
    # By itself `prepare` refuses images that are much larger.
    return trained.prepare(middle(fitted.reshape(height, width, channels), *shape[:2]))


def predict(trained: Pretrained, images: np.ndarray) -> list[list[tuple[str, float]]]:
    """For each image (number, height, width, channels) the names of the classes and their probabilities, the most
    probable first."""
    rngs: Any = {"rngs": {"spikes": jax.random.key(0)}} if trained.model.needs_spikes else {}
    apply = jax.jit(lambda variables, images: trained.model.apply(variables, images, **rngs))
    rows = np.asarray(jax.nn.softmax(apply(trained.variables, images)))
    return [[(trained.class_names[i], float(row[i])) for i in np.argsort(-row, kind="stable")] for row in rows]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="deepnmf-jax predict", description="Say what is on pictures.")
    parser.add_argument("pictures", nargs="+", type=home, metavar="FILE", help="a picture of any size")
    parser.add_argument("--checkpoint", required=True, help=f"workdir of a run, or {PRETRAINED}NAME")
    options = parser.parse_args(arguments)
    name = options.checkpoint
    trained = load_pretrained(name.removeprefix(PRETRAINED)) if name.startswith(PRETRAINED) else load_trained(name)
    images = np.concatenate([read_image(path, trained) for path in options.pictures])
    for path, found in zip(options.pictures, predict(trained, images), strict=True):
        print(f"{path}: {', '.join(f'{name} {share:.1%}' for name, share in found[:LISTED])}")
    return 0
