"""What does the JPEG copy of CIFAR-10 cost? Copies of it of lower quality, for the table of qualities.

python -m benchmarks.jpeg_quality [--qualities 50 25 10] [--data_dir=...]

Writes runs/jpeg/cifar10-qQ.npz, training and test images encoded again as JPEG files of quality Q (4:2:0, as in the
copy, whose quality is 75), and says how far their pixels are from the copy's. `make table ARGS=--tables=quality` trains
on them. Images that are compressed twice lose at least what they lose at the lower quality, so that what follows from
them is an upper bound of what that quality costs.
"""

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from deepnmf_jax.data.datasets import load_dataset

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the files; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--qualities", type=int, nargs="+", default=QUALITIES)
    parser.add_argument("--data_dir", help="of the TFDS sets; default $TFDS_DATA_DIR or ~/tensorflow_datasets")
    options = parser.parse_args(arguments)
    dataset = load_dataset("cifar10", options.data_dir)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for quality in options.qualities:
        train, test = (encoded(images, quality) for images in (dataset.train_images, dataset.test_images))
        np.savez(
            path_of(quality),
            x_train=train, y_train=dataset.train_labels, x_test=test, y_test=dataset.test_labels,
        )  # fmt: skip
        distance = np.sqrt(np.mean((test.astype(np.float32) - dataset.test_images) ** 2))
        print(f"{path_of(quality)}: {distance:.2f} grey levels from the copy (root mean square, test images)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
