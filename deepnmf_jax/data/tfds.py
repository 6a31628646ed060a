"""The data sets of TensorFlow Datasets: where they lie on disk, and reading them.

They are read from ArrayRecord files, which needs no TensorFlow; `prepare` writes these.
"""

import importlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepnmf_jax.data.own_images import Arrays

_CHUNK = 1000  # records decoded at a time


class PreparedVersion(NamedTuple):
    """One version of a data set found on disk."""

    version: str  # as the folder is called: "3.0.2"
    file_format: str  # what TFDS wrote it as: "array_record", "tfrecord", ...
    path: Path


def resolve_data_dir(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder of the TFDS sets: `data_dir`, else $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    return Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def prepared_versions(name: str, data_dir: Path) -> list[PreparedVersion]:
    """The versions of `name` that lie in `data_dir`, newest first, whatever their file format."""
    found = []
    for info_path in (data_dir / name).glob("*/dataset_info.json"):
        folder = info_path.parent
        # A preparation that was cut off leaves a folder "incomplete.X_3.0.2".
        if all(number.isdigit() for number in folder.name.split(".")):
            # Early TFDS wrote no format into this file, and nothing but tfrecord.
            file_format = json.loads(info_path.read_text()).get("fileFormat", "tfrecord")
            found.append(PreparedVersion(folder.name, file_format, folder))
    return sorted(found, key=lambda v: [int(number) for number in v.version.split(".")], reverse=True)


def read(name: str, data_dir: str | None) -> Arrays:
    """Images and labels of a set. FileNotFoundError, ImportError: as `datasets.load_dataset`."""
    train, test = _sources(name, data_dir)
    return *_decode(train), *_decode(test), train.dataset_info.features["label"].names


def image_files(name: str, data_dir: str | None = None) -> dict[str, list[bytes]]:
    """The images of a set as the PNG or JPEG files that it was prepared with, "train" and "test".

    Raises:
      FileNotFoundError, ImportError: as `datasets.load_dataset`.
    """
    sources = zip(("train", "test"), _sources(name, data_dir, encoded=True), strict=True)
    return {part: [bytes(record["image"]) for record in _records(source)] for part, source in sources}


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
    for position, record in enumerate(_records(source)):
        images[position], labels[position] = record["image"], record["label"]
    return images, labels


def _records(source: Any) -> Iterator[dict[str, Any]]:
    for start in range(0, len(source), _CHUNK):
        yield from source.__getitems__(list(range(start, min(start + _CHUNK, len(source)))))


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
