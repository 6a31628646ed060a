"""A user's own images: reading an .npz file, and saying what is wrong with it."""

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deepnmf_jax.archives import existing_file, held_names, read_arrays

# The network has a unit for each class: more of them are a mistake rather than a task.
MOST_CLASSES = 10_000
_NEEDED = ("x_train", "y_train", "x_test", "y_test")

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Sequence[str]]
"""Images and labels to train on, images and labels to test on, names of the classes."""


def read(path: str | os.PathLike[str]) -> Arrays:
    """The content of an .npz file; its form and the errors are those of `datasets.load_npz`."""
    path = existing_file(path)
    try:
        arrays = read_arrays(path, (*_NEEDED, "class_names"))
        missing = [name for name in _NEEDED if name not in arrays]
        held = held_names(path) if missing else []
    except ValueError as error:
        raise ValueError(
            f"{path} cannot be read as an .npz file of plain arrays ({error}); write it with np.savez, "
            "strings as a numpy string array and not as objects"
        ) from error
    if missing:
        raise ValueError(
            f"{path} lacks {', '.join(sorted(missing))}; it holds {', '.join(held) or 'nothing'}. "
            "Needed are x_train, y_train, x_test, y_test: np.savez(path, x_train=..., ...)"
        )
    images = {part: _checked_images(arrays[f"x_{part}"], f"x_{part} of {path}") for part in ("train", "test")}
    if images["train"].shape[1:] != images["test"].shape[1:]:
        raise ValueError(
            f"training and test images of {path} differ in size (height, width, channels): "
            f"{images['train'].shape[1:]} and {images['test'].shape[1:]}"
        )
    labels = {
        part: checked_labels(arrays[f"y_{part}"], len(images[part]), f"y_{part} of {path}")
        for part in ("train", "test")
    }
    class_names = _class_names(arrays.get("class_names"), labels["train"], path)
    for part in ("train", "test"):
        checked_labels(labels[part], len(images[part]), f"y_{part} of {path}", len(class_names))
    return images["train"], labels["train"], images["test"], labels["test"], class_names


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


def checked_labels(y: np.ndarray, num_images: int, what: str, num_classes: int | None = None) -> np.ndarray:
    """The labels as they are.

    Args:
        y: labels, expected as (num_images,) integers 0 .. K-1.
        num_images: how many there must be.
        what: the array and its file, for the message.
        num_classes: K; None: not known.

    Raises:
        ValueError: labels of another shape or kind, or outside 0 .. K-1.
    """
    if y.shape != (num_images,):
        raise ValueError(f"{what} must have shape ({num_images},), one label for each image; got {y.shape}")
    if not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"{what} must be integers 0 .. K-1, got {y.dtype}")
    low, high = (int(y.min()), int(y.max())) if num_images else (0, -1)
    if low < 0:
        raise ValueError(f"{what} must be integers 0 .. K-1, got {low}")
    if num_classes is not None and high >= num_classes:
        raise ValueError(f"{what} must hold labels 0 .. {num_classes - 1} for {num_classes} classes, got {high}")
    return y


def checked_class_names(names: Sequence[object], path: Path) -> list[str]:
    """The names of the classes. ValueError: none or too many of them, or what is no text."""
    _check_number_of_classes(len(names), path)
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"class_names of {path} must be strings, got {name!r}")
        # Line breaks, and halves of characters, which no file can hold.
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
            raise ValueError(f"class_names of {path} must be text of one line, got {name!r}")
    return [str(name) for name in names]


def _check_number_of_classes(number: int, path: Path) -> None:
    if not 1 <= number <= MOST_CLASSES:
        raise ValueError(f"{path} must have 1 to {MOST_CLASSES:,} classes, got {number:,}")


def _class_names(names: np.ndarray | None, train_labels: np.ndarray, path: Path) -> list[str]:
    if names is None:
        present = np.unique(train_labels)
        num_classes = int(present[-1]) + 1
        if len(present) < num_classes:
            raise ValueError(
                f"y_train of {path} must hold every label 0 .. K-1 if no class_names are given: the largest "
                f"is {num_classes - 1}, but there are only {len(present)} different ones"
            )
        _check_number_of_classes(num_classes, path)
        return [str(label) for label in range(num_classes)]
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise ValueError(f"class_names of {path} must be a row of strings, got {names.dtype} of shape {names.shape}")
    _check_number_of_classes(len(names), path)
    try:
        texts = names.astype(np.str_).tolist()
    except (ValueError, SystemError) as error:  # bytes or numbers that are no letters
        raise ValueError(f"class_names of {path} must be text: {error}") from error
    return checked_class_names(texts, path)
