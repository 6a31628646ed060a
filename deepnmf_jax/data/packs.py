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
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepnmf_jax.files import write_atomically

SUFFIX = ".pack"
VERSION = 1
PARTS = ("train", "test")
_ARRAYS = ("x_train", "o_train", "y_train", "x_test", "o_test", "y_test")
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
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path} (looked in {path.parent.resolve()}); make pack writes one")
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            if int(file["version"]) != VERSION:
                raise ValueError(f"it has version {int(file['version'])} of the format, this package reads {VERSION}")
            description = json.loads(str(file["description"]))
            arrays = {name: file[name] for name in _ARRAYS}
        if _checksum(arrays) != description["checksum"]:
            raise ValueError("its arrays differ from those that were written")
        images = {part: _cut(arrays[f"x_{part}"], arrays[f"o_{part}"]) for part in PARTS}
        height, width, channels = description["image_shape"]
        return Packed(
            name=description["name"],
            class_names=tuple(description["class_names"]),
            image_shape=(height, width, channels),
            encoding=description["encoding"],
            fingerprint=description["fingerprint"],
            images=images,
            labels={part: arrays[f"y_{part}"] for part in PARTS},
        )
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as a pack ({error}); write it again: make pack") from error


def decode(packed: Packed, part: str) -> np.ndarray:
    """The images of a part, uint8 (images, height, width, channels).

    Raises:
      ValueError: an image of another size, or an unknown encoding.
      ImportError: pillow is missing.
    """
    images = packed.images[part]
    if packed.encoding == "files":
        return decode_files(images, packed.image_shape)
    if packed.encoding != "pixels":
        raise ValueError(f"the pack's encoding {packed.encoding!r} is unknown; this package reads 'files' and 'pixels'")
    return np.frombuffer(b"".join(images), np.uint8).reshape(len(images), *packed.image_shape)


def decode_files(files: Sequence[bytes], image_shape: tuple[int, int, int]) -> np.ndarray:
    """Images of one shape from their PNG or JPEG files, by as many threads as there are cores; errors as `decode`."""
    from PIL import Image

    pixels = np.empty((len(files), *image_shape), np.uint8)

    def decode_chunk(start: int) -> None:
        for i, content in enumerate(files[start : start + _CHUNK], start):
            with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
                # Before decoding, so that a small file cannot ask for a large image.
                shape = (image.height, image.width, len(image.getbands()))
                if shape != image_shape:
                    raise ValueError(f"an image is {shape}, not {image_shape} (height, width, channels)")
                pixels[i] = np.asarray(image).reshape(shape)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for _ in threads.map(decode_chunk, range(0, len(files), _CHUNK)):
            pass
    return pixels


def _cut(content: np.ndarray, offsets: np.ndarray) -> list[bytes]:
    whole = content.tobytes()
    return [whole[a:b] for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in _ARRAYS:
        array = arrays[name]
        digest.update(f"{name} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).data)
    return digest.hexdigest()
