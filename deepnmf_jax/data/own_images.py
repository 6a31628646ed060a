"""A user's own images: reading an .npz file, and saying what is wrong with it."""

import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Sequence[str]]
"""Images and labels to train on, images and labels to test on, names of the classes."""


def read(path: str | os.PathLike[str]) -> Arrays:
    """The content of an .npz file; its form and the errors are those of `datasets.load_npz`."""
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
    return images["train"], labels["train"], images["test"], labels["test"], class_names


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
