"""Downloads a data set of TFDS and writes it as ArrayRecord files, the form that is read without TensorFlow.

    deepnmf-jax data cifar10 --data_dir=DIR        (in a clone: make data DATASET=cifar10)

TFDS itself needs TensorFlow for this one step, so `make data` runs it in an environment of its own.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from deepnmf_jax.data.datasets import TFDS_NAMES
from deepnmf_jax.data.tfds import import_tfds, prepared_versions, resolve_data_dir
from deepnmf_jax.programs import run


def prepare(name: str, data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Downloads data set `name` and writes it under `data_dir` as ArrayRecord files.

    Args:
      name: one of `datasets.TFDS_NAMES`.
      data_dir: see `tfds.resolve_data_dir`.

    Returns:
      The folder that holds the prepared files. If they were there already, nothing is downloaded.

    Raises:
      ValueError: `name` is not a known set.
      FileExistsError: the folder holds the set in another file format, which TFDS would keep.
      ImportError: TFDS or TensorFlow is missing.
    """
    if name not in TFDS_NAMES:
        raise ValueError(f"unknown data set {name!r}; {', '.join(TFDS_NAMES)} can be prepared")
    root = resolve_data_dir(data_dir)
    versions = prepared_versions(name, root)
    for folder, file_format in versions.items():
        if file_format == "array_record":
            print(f"{name} is already prepared in {folder}")
            return folder
    if versions:
        folder, file_format = next(iter(versions.items()))
        raise FileExistsError(
            f"{folder} holds {name} as {file_format}, which cannot be read without TensorFlow; give another folder "
            "with --data_dir, or move that one away"
        )
    builder = _tfds_builder()(name, data_dir=str(root), file_format="array_record")
    builder.download_and_prepare()
    path = Path(builder.data_dir)
    print(f"{name} is prepared in {path}")
    return path


def _tfds_builder() -> Callable[..., Any]:
    # TFDS declares neither of them.
    tfds = import_tfds(
        ("tensorflow", "importlib_resources"),
        "preparing a data set needs TensorFlow, once ({error}): `make data DATASET=...` in a clone sets "
        "up an environment for it, or pip install tensorflow tensorflow-datasets array_record pillow "
        "importlib_resources in one of your own; training and testing need no TensorFlow",
    )
    builder: Callable[..., Any] = tfds.builder
    return builder


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="deepnmf-jax data",
        description="Download a data set and prepare it as ArrayRecord files (once, with internet).",
    )
    parser.add_argument("name", choices=TFDS_NAMES, help="the data set")
    parser.add_argument("--data_dir", help="where to write; default $TFDS_DATA_DIR or ~/tensorflow_datasets")
    options = parser.parse_args(arguments)
    try:
        prepare(options.name, options.data_dir)
    except (ImportError, OSError) as error:  # requests' network errors are OSErrors
        print(f"{options.name} could not be prepared: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    run(main)
