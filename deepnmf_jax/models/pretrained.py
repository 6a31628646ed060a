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

from deepnmf_jax.archives import read_arrays
from deepnmf_jax.files import checksum
from deepnmf_jax.models.fields import with_tuples
from deepnmf_jax.models.network import Network
from deepnmf_jax.models.retired import drop_retired

ARRAYS, DESCRIPTION = "variables.npz", "network.json"


class Pretrained(NamedTuple):
    """A network and its variables: `model.apply(variables, images)` gives the logits.

    `images` are float32 (batch, *image_shape) in [0, 1], the middle of the data set's images, as `prepare` makes them;
    `variables` holds "params" and "batch_stats" as numpy arrays; `results` is what its training recorded (accuracies,
    seconds, config, names of the classes).
    """

    model: Network
    variables: dict[str, Any]
    image_shape: tuple[int, int, int]
    results: dict[str, Any]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each logit's class; its number where the record has no names."""
        return tuple(self.results.get("class_names", map(str, range(self.model.num_classes))))

    def prepare(self, images: Any) -> np.ndarray:
        """Images as the network takes them: scaled to [0, 1], their middle, with a batch axis.

        Args:
            images: one image (height, width, channels) or a batch of them, 8-bit or floats in [0, 1], of the size of
                the data set's images (32 x 32 for CIFAR-10) or of any between `image_shape` and a quarter more.

        Returns:
            float32 (batch, *image_shape).

        Raises:
            ValueError: images of another size, without colours, with channels first, of another type, or outside
                [0, 1]; the message says what to do.
        """
        images = np.asarray(images)
        if images.dtype.kind in "US":
            raise ValueError(f"images are text, {str(images)[:80]!r}; open a file first: PIL.Image.open(path)")
        if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
            raise ValueError(f"images have dtype {images.dtype}; give 8-bit images (uint8), or floats in [0, 1]")
        height, width, channels = self.image_shape
        if images.ndim not in (3, 4) or images.shape[-1] != channels:
            raise ValueError(
                f"images have shape {images.shape}; the network takes (batch, {height}, {width}, {channels}) or one "
                f"({height}, {width}, {channels}){_advice(images.shape, channels)}"
            )
        images = images if images.ndim == 4 else images[None]
        for size, side in zip(images.shape[1:3], (height, width), strict=True):
            if not side <= size <= 1.25 * side:
                raise ValueError(
                    f"images have {images.shape[1]} x {images.shape[2]} pixels; the network takes {height} x {width}, "
                    "or the middle of slightly larger ones: resize them, to 32 x 32 for a network of CIFAR-10"
                )
        images = middle(images, height, width)
        if images.dtype == np.uint8:
            return images.astype(np.float32) / np.float32(255)
        if images.size and not (images.min() >= 0 and images.max() <= 1):
            raise ValueError(
                f"images range from {images.min():.3g} to {images.max():.3g}; give floats in [0, 1] (divide by 255), "
                "or 8-bit images (uint8)"
            )
        return images.astype(np.float32)


def middle(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """The window of that size in the middle of images (..., height, width, channels), as `center_crop` cuts it."""
    top, left = (images.shape[-3] - height) // 2, (images.shape[-2] - width) // 2
    return images[..., top : top + height, left : left + width, :]


def _advice(shape: tuple[int, ...], channels: int) -> str:
    """What to do about images whose last axis is not `channels` long."""
    if len(shape) > 2 and shape[-3] == channels:
        return "; these have their channels first: np.moveaxis(images, -3, -1)"
    if channels == 3 and shape and shape[-1] == 4:
        return "; these have transparency: images[..., :3]"
    if channels == 3 and len(shape) > 1:
        grey = "images" if shape[-1] == 1 else "images[..., None]"
        return f"; of grey images repeat the levels: np.repeat({grey}, 3, axis=-1)"
    return ""


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
        variables = traverse_util.unflatten_dict(read_arrays(io.BytesIO(content)), sep="/")
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
    arrays: dict[str, Any] = {key: np.asarray(flat[key]) for key in sorted(flat)}
    np.savez_compressed(buffer, **arrays)
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
