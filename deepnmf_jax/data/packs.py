"""A data set in one file, read with numpy and pillow alone.

`make pack DATASET=cifar10` writes one (`make_pack`).

The file is a zip archive of numpy arrays without pickle, as `numpy.savez_compressed` writes it; `numpy.load` opens it.

    version         2-byte integer, 1
    description     JSON text: name, class_names, image_shape, encoding, checksum, fingerprint
    x_train  x_test    uint8 (bytes,): all images one after the other, as `encoding` says
    o_train  o_test    int64 (images + 1,): where each image begins and the last one ends
    y_train  y_test    int32 (images,): labels

encoding "files": each image is a PNG or JPEG file as the prepared data set holds it, so nothing is lost or gained;
"pixels": its bytes are those of the array (height, width, channels). `checksum` is the SHA-256 of the six arrays as
stored; `fingerprint` that of the decoded images and labels (`Dataset.fingerprint`).
"""

import hashlib
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepnmf_jax.archives import check_unfolded, existing_file, read_arrays
from deepnmf_jax.core.checks import check_integer
from deepnmf_jax.data.own_images import checked_class_names, checked_labels
from deepnmf_jax.files import write_atomically

SUFFIX = ".pack"
VERSION = 1
PARTS = ("train", "test")
_ARRAYS = ("x_train", "o_train", "y_train", "x_test", "o_test", "y_test")
# Pillow's names for images of 8 bits a channel.
_MODES = ("L", "LA", "RGB", "RGBA")
# Images decoded by one thread at a time.
_CHUNK = 500


class Packed(NamedTuple):
    """The content of a pack: `images[part]` are bytes, one object an image; part is "train" or "test"."""

    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]  # height, width, channels
    encoding: str  # "files" or "pixels"
    fingerprint: str  # of the decoded images
    images: Mapping[str, Sequence[bytes]]
    labels: Mapping[str, np.ndarray]  # int32 (images,)


def write_pack(path: str | os.PathLike[str], packed: Packed) -> None:
    """Writes a pack; the file is whole or not there.

    Raises:
      OSError: the file cannot be written.
    """
    arrays: dict[str, np.ndarray] = {}
    for part in PARTS:
        images = packed.images[part]
        arrays[f"x_{part}"] = np.frombuffer(b"".join(images), np.uint8)
        arrays[f"o_{part}"] = np.cumsum([0, *(len(image) for image in images)], dtype=np.int64)
        arrays[f"y_{part}"] = np.asarray(packed.labels[part], np.int32)
    description = {
        "name": packed.name,
        "class_names": packed.class_names,
        "image_shape": packed.image_shape,
        "encoding": packed.encoding,
        "checksum": _checksum(arrays),
        "fingerprint": packed.fingerprint,
    }
    named: Any = {"version": np.int16(VERSION), "description": np.asarray(json.dumps(description)), **arrays}
    # Files of one kind begin with the same tables, which compression takes out.
    write_atomically(path, lambda file: np.savez_compressed(file, **named))


def read_pack(path: str | os.PathLike[str]) -> Packed:
    """Reads a pack without decoding its images.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not a pack, one of a later version, or not what was written.
    """
    path = existing_file(path, "; deepnmf-jax pack (in a clone make pack) writes one")
    try:
        arrays = read_arrays(path, ("version", "description", *_ARRAYS))
        missing = [name for name in ("version", "description", *_ARRAYS) if name not in arrays]
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}")
        if arrays["version"].shape or arrays["version"] != VERSION:
            raise ValueError(f"it has version {arrays['version']} of the format, this package reads {VERSION}")
        return _checked_pack(_description(arrays["description"]), arrays, path)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as a pack ({error}); write it again: deepnmf-jax pack") from error


def _description(array: np.ndarray) -> Mapping[str, Any]:
    try:
        description = json.loads(str(array))
    except (ValueError, RecursionError, SystemError) as error:  # the last of numbers that are no letters
        raise ValueError(f"description: {error}") from error
    if not isinstance(description, dict):
        raise ValueError(f"description: it must be a dictionary, not a {type(description).__name__}")
    for name in ("name", "encoding", "fingerprint", "checksum"):
        if not isinstance(description.get(name), str):
            raise ValueError(f"description: {name} must be a string, got {description.get(name)!r}")
    for name in ("class_names", "image_shape"):
        if not isinstance(description.get(name), list):
            raise ValueError(f"description: {name} must be a list, got {description.get(name)!r}")
    return description


def _checked_pack(description: Mapping[str, Any], arrays: Mapping[str, np.ndarray], path: Path) -> Packed:
    if _checksum(arrays) != description["checksum"]:
        raise ValueError("its arrays differ from those that were written")
    class_names = tuple(checked_class_names(description["class_names"], path))
    image_shape = description["image_shape"]
    if len(image_shape) != 3:
        raise ValueError(f"image_shape = {image_shape}, but it must be height, width and channels")
    for side in image_shape:
        check_integer("image_shape", side, 1)
    images = {part: _cut(arrays[f"x_{part}"], arrays[f"o_{part}"], part) for part in PARTS}
    return Packed(
        name=description["name"],
        class_names=class_names,
        image_shape=tuple(image_shape),
        encoding=description["encoding"],
        fingerprint=description["fingerprint"],
        images=images,
        labels={
            part: checked_labels(arrays[f"y_{part}"], len(images[part]), f"y_{part}", len(class_names))
            for part in PARTS
        },
    )


def decode(packed: Packed, part: str) -> np.ndarray:
    """The images of a part, uint8 (images, height, width, channels).

    Raises:
      ValueError: no images, an image of another size or kind, or an unknown encoding.
      ImportError: pillow is missing.
    """
    images = packed.images[part]
    if not images:
        raise ValueError(f"there are no images in x_{part}")
    if packed.encoding == "files":
        return decode_files(images, packed.image_shape)
    if packed.encoding != "pixels":
        raise ValueError(f"the pack's encoding {packed.encoding!r} is unknown; this package reads 'files' and 'pixels'")
    size = math.prod(packed.image_shape)
    if wrong := [(i, len(image)) for i, image in enumerate(images) if len(image) != size]:
        i, found = wrong[0]
        raise ValueError(f"image {i} of x_{part} has {found:,} bytes, where {packed.image_shape} needs {size:,}")
    return np.frombuffer(b"".join(images), np.uint8).reshape(len(images), *packed.image_shape)


def decode_files(files: Sequence[bytes], image_shape: tuple[int, int, int]) -> np.ndarray:
    """Images of one shape from their PNG or JPEG files, by as many threads as there are cores; errors as `decode`."""
    from PIL import Image

    check_unfolded(len(files) * math.prod(image_shape), sum(map(len, files)))
    pixels = np.empty((len(files), *image_shape), np.uint8)

    def decode_image(content: bytes) -> np.ndarray:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
            # Before decoding, so that a small file cannot ask for a large image.
            shape = (image.height, image.width, len(image.getbands()))
            if shape != image_shape:
                raise ValueError(f"it is {shape}, not {image_shape} (height, width, channels)")
            if image.mode not in _MODES:  # a palette's numbers are no grey levels
                raise ValueError(f"its mode is {image.mode}, where {', '.join(_MODES)} can be read")
            return np.asarray(image).reshape(shape)

    def decode_chunk(start: int) -> None:
        for i, content in enumerate(files[start : start + _CHUNK], start):
            try:
                pixels[i] = decode_image(content)
            except Exception as error:  # pillow has a dozen kinds for damaged files, and one for bombs
                raise ValueError(f"image {i}: {error}") from error

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for _ in threads.map(decode_chunk, range(0, len(files), _CHUNK)):
            pass
    return pixels


def _cut(content: np.ndarray, offsets: np.ndarray, part: str) -> list[bytes]:
    if content.dtype != np.uint8 or content.ndim != 1:
        raise ValueError(f"x_{part} must be bytes in a row, got {content.dtype} of shape {content.shape}")
    if offsets.dtype.kind != "i" or offsets.ndim != 1 or not len(offsets):
        raise ValueError(f"o_{part} must be integers in a row, got {offsets.dtype} of shape {offsets.shape}")
    if offsets[0] != 0 or offsets[-1] != len(content) or (offsets[1:] < offsets[:-1]).any():
        raise ValueError(f"o_{part} must rise from 0 to {len(content):,}, the bytes of x_{part}")
    whole = content.tobytes()
    return [whole[a:b] for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in _ARRAYS:
        array = arrays[name]
        digest.update(f"{name} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).data)
    return digest.hexdigest()
