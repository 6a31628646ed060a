"""A data set in one file, read with numpy and pillow alone.

    python -m deepnmf_jax.data.packs cifar10 --out=cifar10.pack        (make pack DATASET=cifar10)

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

import argparse
import hashlib
import io
import json
import os
import sys
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SUFFIX = ".pack"
VERSION = 1
_PARTS = ("train", "test")
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
    path = Path(path)
    arrays: dict[str, np.ndarray] = {}
    for part in _PARTS:
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
    # Files of one kind begin with the same tables, which compression takes out.
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            named: Any = {"version": np.int16(VERSION), "description": np.asarray(json.dumps(description)), **arrays}
            np.savez_compressed(file, **named)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
        images = {part: _cut(arrays[f"x_{part}"], arrays[f"o_{part}"]) for part in _PARTS}
        height, width, channels = description["image_shape"]
        return Packed(
            name=description["name"],
            class_names=tuple(description["class_names"]),
            image_shape=(height, width, channels),
            encoding=description["encoding"],
            fingerprint=description["fingerprint"],
            images=images,
            labels={part: arrays[f"y_{part}"] for part in _PARTS},
        )
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as a pack ({error}); write it again: make pack") from error


def decode(packed: Packed, part: str) -> np.ndarray:
    """The images of a part, uint8 (images, height, width, channels), by as many threads as there are cores.

    Raises:
      ValueError: an image of another size, or an unknown encoding.
      ImportError: pillow is missing.
    """
    images = packed.images[part]
    if packed.encoding == "pixels":
        return np.frombuffer(b"".join(images), np.uint8).reshape(len(images), *packed.image_shape)
    if packed.encoding != "files":
        raise ValueError(f"the pack's encoding {packed.encoding!r} is unknown; this package reads 'files' and 'pixels'")
    pixels = np.empty((len(images), *packed.image_shape), np.uint8)
    starts = range(0, len(images), _CHUNK)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for _ in threads.map(lambda start: _decode_files(images[start : start + _CHUNK], pixels[start:]), starts):
            pass
    return pixels


def _decode_files(images: Sequence[bytes], pixels: np.ndarray) -> None:
    from PIL import Image

    for i, content in enumerate(images):
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
            # Before decoding, so that a small file cannot ask for a large image.
            shape = (image.height, image.width, len(image.getbands()))
            if shape != pixels.shape[1:]:
                raise ValueError(f"an image of the pack is {shape}, not {pixels.shape[1:]} (height, width, channels)")
            pixels[i] = np.asarray(image).reshape(shape)


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


def pack(name: str, path: str | os.PathLike[str], data_dir: str | None = None) -> Packed:
    """Writes a data set to a pack, reads it back and checks that the images are the same.

    Args:
      name: as for `load_dataset`. Of a TFDS set the files as prepared are kept, of others the pixels.
      path: of the pack, ending in ".pack".
      data_dir: as for `load_dataset`.

    Raises:
      ValueError: `path` does not end in ".pack", or the images come out otherwise than they went in.
      FileNotFoundError, ImportError: as `load_dataset`.
    """
    from deepnmf_jax.data import datasets

    if not str(path).endswith(SUFFIX):
        raise ValueError(f"the file must end in {SUFFIX}, by which load_dataset knows it; got {path}")
    dataset = datasets.load_dataset(name, data_dir)
    height, width, channels = dataset.train_images.shape[1:]
    pixels: dict[str, Iterable[bytes]] = {
        "train": (image.tobytes() for image in dataset.train_images),
        "test": (image.tobytes() for image in dataset.test_images),
    }
    files = datasets.image_files(name, data_dir) if name in datasets.TFDS_NAMES else None
    packed = Packed(
        name=dataset.name,
        class_names=dataset.class_names,
        image_shape=(height, width, channels),
        encoding="files" if files else "pixels",
        fingerprint=dataset.fingerprint,
        images={part: list((files or pixels)[part]) for part in _PARTS},
        labels={"train": dataset.train_labels, "test": dataset.test_labels},
    )
    write_pack(path, packed)
    found = datasets.load_dataset(str(path))
    if found.fingerprint != dataset.fingerprint:
        raise ValueError(f"the images of {path} are not those of {name}: pillow and TFDS's decoder differ")
    return packed


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m deepnmf_jax.data.packs", description="Write a data set to one file."
    )
    parser.add_argument("name", help="the data set, as in --config.dataset")
    parser.add_argument("--data_dir", help="of the TFDS sets; default $TFDS_DATA_DIR or ~/tensorflow_datasets")
    parser.add_argument("--out", help=f"the file, default NAME{SUFFIX}")
    options = parser.parse_args(arguments)
    path = options.out or f"{Path(options.name).stem}{SUFFIX}"
    try:
        packed = pack(options.name, path, options.data_dir)
    except (ImportError, OSError, ValueError) as error:
        print(f"{options.name} could not be packed: {error}", file=sys.stderr)
        return 1
    counts = " + ".join(str(len(packed.images[part])) for part in _PARTS)
    print(f"{path}: {counts} images, {os.path.getsize(path) / 1e6:.1f} MB; fingerprint {packed.fingerprint}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
