"""What a trained network says of pictures: `deepnmf-jax predict`."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from deepnmf_jax.data.datasets import KNOWN
from deepnmf_jax.models import Pretrained, load_pretrained
from deepnmf_jax.programs import home
from deepnmf_jax.training import checkpoints
from deepnmf_jax.training.records import described_images
from deepnmf_jax.training.reports import PRETRAINED
from deepnmf_jax.training.setup import prepare, without_data
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


def trained_network(checkpoint: str) -> Pretrained:
    """The network of a workdir with its best variables by validation (of several seeds, the first), or of the package.

    Args:
        checkpoint: a workdir, or "pretrained:NAME".

    Raises:
        ValueError: an unknown name, a config that cannot be read.
        OSError: no run there, no intact checkpoint; or images.json is damaged, or missing as of an older release
            and the run's data set is not there.
    """
    if checkpoint.startswith(PRETRAINED):
        return load_pretrained(checkpoint.removeprefix(PRETRAINED))
    from ml_collections import ConfigDict

    workdir = home(checkpoint)
    path = workdir / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{workdir} has no config.json; give the workdir of a run, or {PRETRAINED}NAME")
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings.pop("data_fingerprint", None)
    config = ConfigDict(settings)
    if described := described_images(workdir):
        image_shape, class_names = described
        model, template = without_data(config, image_shape, len(class_names))
    else:
        run = prepare(config)
        image_shape, class_names = run.image_shape, list(run.dataset.class_names)
        model, template = run.model, run.template()
    variables = best_variables(template, workdir)
    if config.num_seeds > 1:
        variables = jax.tree.map(lambda leaf: leaf[0], variables)
    return Pretrained(model, variables, image_shape, {"class_names": class_names, "config": config.to_dict()})


def read_image(path: Path, trained: Pretrained) -> np.ndarray:
    """A picture of any size as the network takes it: its middle, float32 (1, height, width, channels) in [0, 1].

    Raises:
        OSError: no picture there, or one that cannot be read.
    """
    from PIL import Image, ImageOps

    height, width, channels = trained.image_shape
    # The network sees the middle of its data set's images: the picture is brought to their size first.
    known = KNOWN.get(Path(str(trained.results.get("config", {}).get("dataset", ""))).stem)
    if known and known.image_shape[2] == channels:
        height, width, _ = known.image_shape
    with Image.open(path) as picture:
        fitted = ImageOps.fit(picture.convert("L" if channels == 1 else "RGB"), (width, height))
    return trained.prepare(np.asarray(fitted).reshape(height, width, channels))


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
    trained = trained_network(options.checkpoint)
    images = np.concatenate([read_image(path, trained) for path in options.pictures])
    for path, found in zip(options.pictures, predict(trained, images), strict=True):
        print(f"{path}: {', '.join(f'{name} {share:.1%}' for name, share in found[:LISTED])}")
    return 0
