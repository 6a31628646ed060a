"""A data set as TFDS leaves it on disk."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepnmf_jax.data import tfds


@pytest.fixture
def small_cifar10(tmp_path: Path) -> tuple[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Writes 23 + 7 images as TFDS would have prepared them, without TensorFlow."""
    pytest.importorskip("tensorflow_datasets")
    writer = pytest.importorskip("array_record.python.array_record_module").ArrayRecordWriter
    from PIL import Image
    from tensorflow_datasets.proto import tf_example_pb2

    folder = tmp_path / "cifar10" / "3.0.2"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    written = {}
    for split, count in (("train", 23), ("test", 7)):
        images = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        labels = rng.integers(0, 10, count)
        file = writer(str(folder / f"cifar10-{split}.array_record-00000-of-00001"), "group_size:1")
        for image, label in zip(images, labels, strict=True):
            png = io.BytesIO()
            Image.fromarray(image).save(png, format="png")
            example = tf_example_pb2.Example()
            example.features.feature["image"].bytes_list.value.append(png.getvalue())
            example.features.feature["label"].int64_list.value.append(int(label))
            file.write(example.SerializeToString())
        file.close()
        written[split] = (images, labels)
    image_feature = {
        "pythonClassName": "tensorflow_datasets.core.features.image_feature.Image",
        "image": {"shape": {"dimensions": ["32", "32", "3"]}, "dtype": "uint8"},
    }
    label_feature = {
        "pythonClassName": "tensorflow_datasets.core.features.class_label_feature.ClassLabel",
        "classLabel": {"numClasses": "10"},
    }
    features = {
        "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
        "featuresDict": {"features": {"image": image_feature, "label": label_feature}},
    }
    splits = [
        {
            "name": split,
            "shardLengths": [str(len(labels))],
            "numBytes": "1",
            "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        }
        for split, (_, labels) in written.items()
    ]
    info = {"name": "cifar10", "version": "3.0.2", "fileFormat": "array_record", "splits": splits}
    (folder / "features.json").write_text(json.dumps(features))
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "label.labels.txt").write_text("\n".join(f"class{k}" for k in range(10)) + "\n")
    return str(tmp_path), written


class First:
    """The first images of a TFDS source."""

    def __init__(self, source: Any, count: int):
        self.source, self.count, self.dataset_info = source, count, source.dataset_info

    def __len__(self) -> int:
        return self.count

    def __getitems__(self, positions: list[int]) -> list[dict[str, Any]]:
        return self.source.__getitems__(positions)


@pytest.fixture
def first_images(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """Makes the sets of TFDS have their first 2,000 images to train and 500 to test; the numbers of all."""
    whole: dict[str, list[int]] = {}
    sources = tfds._sources

    def cut(name: str, data_dir: str | None) -> list[First]:
        found = sources(name, data_dir)
        whole[name] = [len(source) for source in found]
        return [First(source, count) for source, count in zip(found, (2000, 500), strict=True)]

    monkeypatch.setattr(tfds, "_sources", cut)
    return whole
