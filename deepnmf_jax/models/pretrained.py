"""Trained networks that come with the package, and the format they are kept in: plain arrays and JSON."""

import io
import json
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

from deepnmf_jax.files import arrays_in, checksum
from deepnmf_jax.models.network import Network, with_tuples
from deepnmf_jax.models.retired import drop_retired

ARRAYS, DESCRIPTION = "variables.npz", "network.json"


class Pretrained(NamedTuple):
    """A network and its variables: `model.apply(variables, images)` gives the logits.

    `images` are float32 (batch, *image_shape) in [0, 1], the middle of the data set's images; `variables` holds
    "params" and "batch_stats" as numpy arrays; `results` is what its training recorded (accuracies, seconds, config).
    """

    model: Network
    variables: dict[str, Any]
    image_shape: tuple[int, int, int]
    results: dict[str, Any]


def pretrained_names() -> tuple[str, ...]:
    """The networks that `load_pretrained` knows."""
    shelf = _shelf()
    folders = shelf.iterdir() if shelf.is_dir() else ()
    return tuple(sorted(folder.name for folder in folders if folder.joinpath(DESCRIPTION).is_file()))


def load_pretrained(name: str) -> Pretrained:
    """A trained network of the package.

    Args:
        name: one of `pretrained_names()`, for example "cnmf_1x1".

    Raises:
        ValueError: an unknown name; a file that is damaged, or not the one that was published (SHA-256).
    """
    names = pretrained_names()
    if name not in names:
        raise ValueError(f"there is no pretrained network {name!r}; there are {', '.join(names) or 'none'}")
    return read_network(_shelf().joinpath(name))


def read_network(folder: Traversable) -> Pretrained:
    """The network of a folder that `write_network` wrote. ValueError: a file is missing or damaged."""
    try:
        description = json.loads(folder.joinpath(DESCRIPTION).read_text(encoding="utf-8"))
        content = folder.joinpath(ARRAYS).read_bytes()
        results = json.loads(folder.joinpath("results.json").read_text(encoding="utf-8"))
        digest = checksum(content)
        if digest != description["sha256"]:
            raise ValueError(f"SHA-256 {digest}, expected {description['sha256']}")
        variables = traverse_util.unflatten_dict(arrays_in(content), sep="/")
        settings = drop_retired({"model": description["model"]}).get("model", {})
        model = Network(num_classes=description["num_classes"], **with_tuples(settings))
        return Pretrained(model, variables, tuple(description["image_shape"]), results)
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"the network in {folder} cannot be read ({error}); install the package anew") from error


def write_network(
    folder: Path,
    settings: Mapping[str, Any],
    num_classes: int,
    image_shape: tuple[int, ...],
    variables: Mapping[str, Any],
) -> None:
    """Writes variables.npz and network.json, which names the former's SHA-256, into `folder`; results.json, which
    `read_network` also wants, is the training's.

    Args:
        folder: is made if it does not exist.
        settings: fields of `Network` but num_classes, as in config.model.
        num_classes: of the images.
        image_shape: (height, width, channels) of the images that the network sees.
        variables: "params" and "batch_stats", nested by module.
    """
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    flat = traverse_util.flatten_dict(dict(variables), sep="/")
    np.savez_compressed(buffer, allow_pickle=False, **{key: np.asarray(flat[key]) for key in sorted(flat)})
    content = buffer.getvalue()
    description = {
        "model": dict(settings),
        "num_classes": num_classes,
        "image_shape": list(image_shape),
        "sha256": checksum(content),
    }
    (folder / ARRAYS).write_bytes(content)
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _shelf() -> Traversable:
    return resources.files("deepnmf_jax").joinpath("pretrained")
