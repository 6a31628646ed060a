"""The data sets of TensorFlow Datasets: where they lie on disk, and reading them.

They are read from ArrayRecord files, which needs no TensorFlow; `prepare` writes these.
"""

import importlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepnmf_jax.archives import existing_file
from deepnmf_jax.data.own_images import Arrays
from deepnmf_jax.data.packs import PARTS, decode_files

_CHUNK = 1000  # records read at a time


def resolve_data_dir(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder of the TFDS sets: `data_dir`, else $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    return Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def prepared_versions(name: str, data_dir: Path) -> dict[Path, str]:
    """The folders of `name` in `data_dir`, called by their versions ("3.0.2"), newest first, with the format that TFDS
    wrote them in: "array_record", "tfrecord", ..."""
    found = {}
    for info_path in (data_dir / name).glob("*/dataset_info.json"):
        folder = info_path.parent
        # A preparation that was cut off leaves a folder "incomplete.X_3.0.2".
        if all(number.isdigit() for number in folder.name.split(".")):
            # Early TFDS wrote no format into this file, and nothing but tfrecord.
            try:
                found[folder] = json.loads(existing_file(info_path).read_text()).get("fileFormat", "tfrecord")
            except (ValueError, AttributeError) as error:
                raise ValueError(
                    f"{info_path} is damaged ({error}); remove {folder} and prepare the set anew"
                ) from error
    newest_first = sorted(found, key=lambda folder: [int(number) for number in folder.name.split(".")], reverse=True)
    return {folder: found[folder] for folder in newest_first}


def read(name: str, data_dir: str | None) -> Arrays:
    """Images and labels of a set. FileNotFoundError, ImportError: as `datasets.load_dataset`."""
    arrays: list[np.ndarray] = []
    for source in _sources(name, data_dir):
        features = source.dataset_info.features
        files, labels = zip(*((bytes(record["image"]), record["label"]) for record in _records(source)), strict=True)
        arrays += [decode_files(files, features["image"].shape), np.asarray(labels, np.int32)]
    train_images, train_labels, test_images, test_labels = arrays
    return train_images, train_labels, test_images, test_labels, features["label"].names


def image_files(name: str, data_dir: str | None = None) -> dict[str, list[bytes]]:
    """The images of a set as the PNG or JPEG files that it was prepared with, "train" and "test".

    Raises:
      FileNotFoundError, ImportError: as `datasets.load_dataset`.
    """
    sources = zip(PARTS, _sources(name, data_dir), strict=True)
    return {part: [bytes(record["image"]) for record in _records(source)] for part, source in sources}


def _sources(name: str, data_dir: str | None) -> list[Any]:
    """TFDS's sources of the training and test images, which are not decoded."""
    root = resolve_data_dir(data_dir)
    versions = prepared_versions(name, root)
    readable = [folder for folder, file_format in versions.items() if file_format == "array_record"]
    if not readable:
        raise FileNotFoundError(_how_to_get(name, root, [f"{folder} ({kind})" for folder, kind in versions.items()]))
    tfds = import_tfds(
        ("array_record", "PIL"),
        f"reading {name} needs packages that are not installed ({{error}}): "
        "pip install tensorflow-datasets array_record pillow; mnist5k and .npz files do not need them",
    )
    # TFDS would decode with OpenCV where that is installed, which gives other grey levels, and slowly.
    sources: list[Any] = tfds.data_source(
        f"{name}:{readable[0].name}",
        split=list(PARTS),
        data_dir=str(root),
        download=False,
        decoders={"image": tfds.decode.SkipDecoding()},
    )
    return sources


def import_tfds(packages: Sequence[str], problem: str) -> Any:
    """TFDS, after the packages that it needs here: it imports them too late to say what is wrong.

    Raises:
      ImportError: one of them is missing; the message is `problem`, with the reason in place of {error}.
    """
    try:
        for package in packages:
            importlib.import_module(package)
        import tensorflow_datasets
    except ImportError as error:
        raise ImportError(problem.format(error=error)) from error
    return tensorflow_datasets


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
        f"{problem}. Two ways to get it: `make data DATASET={name}` (without a clone, but with TensorFlow: "
        f"`deepnmf-jax data {name}`) on a machine with internet, which downloads it and prepares it as array_record; "
        "or set TFDS_DATA_DIR or --config.data_dir to a folder that holds it prepared as array_record. The data set "
        "mnist5k needs neither."
    )
