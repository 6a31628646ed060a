"""A user's own pictures in folders, one subfolder a class."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepnmf_jax.core.checks import check_integer
from deepnmf_jax.data.own_images import Arrays, checked_class_names
from deepnmf_jax.programs import home

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
# Without folders of its own for testing, this share of each class is tested on: each fifth picture.
TEST_EVERY = 5
# Modes of PIL: one bit, 8 bits, 8 bits with transparency, 16 bits.
_GREY = ("1", "L", "LA", "I;16", "I;16B", "I;16L", "I")


def is_folder(name: str | os.PathLike[str]) -> bool:
    """Whether the name of a data set is that of a folder."""
    return home(name).is_dir()


def read(folder: str | os.PathLike[str], size: int | None = None) -> Arrays:
    """The pictures of folder/CLASS/*, of which each fifth of a class, by name, is tested on; or, where there are these
    two folders, of folder/train/CLASS/* and folder/test/CLASS/*.

    Pictures are turned as their camera says, and in colour unless all are grey. 16 bits of grey are made 8, and what is
    transparent lies on white. What is no picture by its name (.png, .jpg, ...), and hidden folders, are left out. The
    classes are in the order of their names.

    Args:
        folder: of the data set.
        size: pixels, side of the square that the middle of each picture is cut and scaled to; None: as they are.

    Returns:
        uint8 images (number, height, width, channels) and labels to train on, the same to test on, names of classes.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no classes, other classes to test on than to train on, a class without pictures, a file that is no
            picture or has levels of 32 bits, pictures of several sizes without `size`.
    """
    root = home(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}")
    if size is not None:
        check_integer("size", size, 1)
    parts = {part: _by_class(root / part) for part in ("train", "test") if (root / part).is_dir()}
    if set(parts) != {"train", "test"}:
        found = _by_class(root)
        parts = {
            "train": {name: [f for i, f in enumerate(files) if i % TEST_EVERY] for name, files in found.items()},
            "test": {name: files[::TEST_EVERY] for name, files in found.items()},
        }
    names = checked_class_names(list(parts["train"]), root)
    if names != list(parts["test"]):
        raise ValueError(f"{root} has the classes {names} in train, but {list(parts['test'])} in test")
    for part, files_of in parts.items():
        if empty := [name for name, files in files_of.items() if not files]:
            raise ValueError(
                f"{root} has no picture to {part} on of the class {empty[0]}; each needs two at least "
                f"({', '.join(SUFFIXES)})"
            )
    grey = all(_mode(file) in _GREY for files_of in parts.values() for files in files_of.values() for file in files)
    images = {part: _images([f for files in parts[part].values() for f in files], grey, size) for part in parts}
    if images["train"].shape[1:] != images["test"].shape[1:]:
        raise ValueError(_sizes(root, images["train"].shape[1:], images["test"].shape[1:]))
    labels = {part: np.repeat(np.arange(len(names)), [len(f) for f in parts[part].values()]) for part in parts}
    return images["train"], labels["train"], images["test"], labels["test"], names


def _by_class(folder: Path) -> dict[str, list[Path]]:
    """The pictures of each class, in the order of their names."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return {
        path.name: sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
        for path in classes
    }


def _mode(file: Path) -> str:
    with opened(file) as picture:
        mode: str = picture.mode
    return mode


@contextlib.contextmanager
def opened(file: Path) -> Iterator[Any]:
    """The picture of a file, by PIL.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no picture, here or where its pixels are first looked at.
    """
    from PIL import Image

    try:
        with Image.open(file) as picture:
            yield picture
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file} cannot be read as a picture: {error}") from error


def upright(picture: Any, grey: bool) -> Any:
    """A PIL image in 8 bits, in levels of grey or in colours, turned as the camera noted, and on white.

    Raises:
        ValueError: levels of 32 bits.
    """
    from PIL import Image, ImageOps

    # Older releases of Pillow read the 16 bits of a PNG as 32.
    sixteen = picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PNG")
    picture = ImageOps.exif_transpose(picture) or picture
    if picture.mode in ("I", "F") and not sixteen:
        raise ValueError(
            f"its levels have 32 bits (mode {picture.mode}), of which nothing says what is white; use 8 or 16"
        )
    if sixteen:  # Pillow would cut off what is above 255.
        picture = Image.fromarray(np.rint(np.asarray(picture) / 257).astype(np.uint8))
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        # What is behind it may be anything, black where a drawing is black.
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("L" if grey else "RGB")


def _images(files: Sequence[Path], grey: bool, size: int | None) -> np.ndarray:
    """uint8 (number, height, width, 1 or 3)."""
    from PIL import ImageOps

    images: list[np.ndarray] = []
    for file in files:
        with opened(file) as original:
            picture = upright(original, grey)
        if size is not None:
            picture = ImageOps.fit(picture, (size, size))
        image = np.asarray(picture)
        image = image[..., None] if grey else image
        if images and image.shape != images[0].shape:
            raise ValueError(_sizes(file, image.shape, images[0].shape))
        images.append(image)
    return np.stack(images)


def _sizes(where: Path, one: tuple[int, ...], other: tuple[int, ...]) -> str:
    return (
        f"{where} has {one[0]} x {one[1]} pixels, and others {other[0]} x {other[1]}; all must be of one size: "
        "deepnmf-jax pack FOLDER --size=32 --out=mine.pack makes them so"
    )
