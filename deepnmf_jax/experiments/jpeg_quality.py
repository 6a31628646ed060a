"""What does the JPEG copy of CIFAR-10 cost? Copies of it of lower quality, for the table of qualities.

`make table ARGS=--tables=quality` writes runs/jpeg/cifar10-qQ.npz, training and test images encoded again as JPEG files
of quality Q (4:2:0, as in the copy, whose quality is 75), says how far their pixels are from the copy's, and trains on
them.
"""

import io
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from deepnmf_jax.data.datasets import load_dataset
from deepnmf_jax.files import write_atomically

QUALITIES = (50, 25, 10)
FOLDER = Path("runs/jpeg")


def path_of(quality: int) -> Path:
    """Where the images of a quality are kept, from the root of the repository."""
    return FOLDER / f"cifar10-q{quality}.npz"


def encoded(images: np.ndarray, quality: int) -> np.ndarray:
    """Images, uint8 (N, H, W, 3), after a way through JPEG files of this quality, 1 ... 95."""
    out = np.empty_like(images)
    for i, image in enumerate(images):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling="4:2:0")
        with Image.open(file) as decoded:
            out[i] = np.asarray(decoded)
    return out


def provide(source: str) -> None:
    """Writes the file if `source` is the path of one that is not there yet, and says how far it is from the copy."""
    for quality in QUALITIES:
        path = path_of(quality)
        if source != str(path) or path.exists():
            continue
        dataset = load_dataset("cifar10")
        train, test = (encoded(images, quality) for images in (dataset.train_images, dataset.test_images))
        path.parent.mkdir(parents=True, exist_ok=True)
        write = partial(np.savez, x_train=train, y_train=dataset.train_labels, x_test=test, y_test=dataset.test_labels)
        write_atomically(path, write)
        distance = np.sqrt(np.mean((test.astype(np.float32) - dataset.test_images) ** 2))
        print(f"{path}: {distance:.2f} grey levels from the copy (root mean square, test images)", flush=True)
