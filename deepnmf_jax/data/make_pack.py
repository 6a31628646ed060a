"""Writes a data set to one file, which is read without TFDS.

    deepnmf-jax pack cifar10 --out=cifar10.pack        (in a clone: make pack DATASET=cifar10)

The form of the file is that of `packs`.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from deepnmf_jax.data import tfds
from deepnmf_jax.data.datasets import TFDS_NAMES, load_dataset, load_folder
from deepnmf_jax.data.packs import PARTS, SUFFIX, Packed, write_pack
from deepnmf_jax.programs import check_target, home, run


def pack(name: str, path: str | os.PathLike[str], data_dir: str | None = None, size: int | None = None) -> Packed:
    """Writes a data set to a pack, reads it back and checks that the images are the same.

    Args:
      name: as for `load_dataset`. Of a TFDS set the files as prepared are kept, of others the pixels.
      path: of the pack, ending in ".pack".
      data_dir: as for `load_dataset`.
      size: of a folder of pictures, as for `load_folder`.

    Raises:
      ValueError: `path` does not end in ".pack", or the images come out otherwise than they went in.
      FileNotFoundError, ImportError: as `load_dataset`.
      OSError: the file cannot be written.
    """
    if not str(path).endswith(SUFFIX):
        raise ValueError(f"the file must end in {SUFFIX}, by which load_dataset knows it; got {path}")
    dataset = load_dataset(name, data_dir) if size is None else load_folder(name, size)
    height, width, channels = dataset.train_images.shape[1:]
    pixels: dict[str, Iterable[bytes]] = {
        "train": (image.tobytes() for image in dataset.train_images),
        "test": (image.tobytes() for image in dataset.test_images),
    }
    files = tfds.image_files(name, data_dir) if name in TFDS_NAMES else None
    packed = Packed(
        name=dataset.name,
        class_names=dataset.class_names,
        image_shape=(height, width, channels),
        encoding="files" if files else "pixels",
        fingerprint=dataset.fingerprint,
        images={part: list((files or pixels)[part]) for part in PARTS},
        labels={"train": dataset.train_labels, "test": dataset.test_labels},
    )
    write_pack(path, packed)
    if load_dataset(str(path)).fingerprint != dataset.fingerprint:
        raise ValueError(f"the images of {path} are not those of {name}: pillow and TFDS's decoder differ")
    return packed


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="deepnmf-jax pack", description="Write a data set to one file.")
    parser.add_argument("name", help="the data set, as in --config.dataset")
    parser.add_argument("--data_dir", help="of the TFDS sets; default $TFDS_DATA_DIR or ~/tensorflow_datasets")
    parser.add_argument(
        "--size", type=int, help="of a folder of pictures: cut and scale them to such a square, in pixels"
    )
    parser.add_argument("--out", type=home, help=f"the file, default NAME{SUFFIX}")
    options = parser.parse_args(arguments)
    path = options.out or Path(f"{Path(options.name).stem}{SUFFIX}")
    try:
        check_target(path)
        packed = pack(options.name, path, options.data_dir, options.size)
    except (ImportError, OSError, ValueError) as error:
        print(f"{options.name} could not be packed: {error}", file=sys.stderr)
        return 1
    counts = " + ".join(str(len(packed.images[part])) for part in PARTS)
    print(f"{path}: {counts} images, {os.path.getsize(path) / 1e6:.1f} MB; fingerprint {packed.fingerprint}")
    return 0


if __name__ == "__main__":
    run(main)
