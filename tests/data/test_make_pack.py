"""The command that packs a data set: what it writes is what load_dataset gave."""

import sys

import numpy as np
import pytest

from deepnmf_jax.data import packs
from deepnmf_jax.data.datasets import image_shape_and_classes, load_dataset
from deepnmf_jax.data.make_pack import main, pack
from deepnmf_jax.data.packs import read_pack
from tests.data.test_datasets import real_data_dir
from tests.programs import write_images


def test_a_tfds_set_keeps_its_files_and_needs_no_tfds_to_read(small_cifar10, tmp_path, monkeypatch, capsys):
    data_dir, written = small_cifar10
    monkeypatch.setattr("deepnmf_jax.data.tfds._CHUNK", 5)
    monkeypatch.setattr(packs, "_CHUNK", 4)
    path = tmp_path / "cifar10.pack"
    assert main(["cifar10", f"--data_dir={data_dir}", f"--out={path}"]) == 0
    whole = load_dataset("cifar10", data_dir)
    assert whole.fingerprint in capsys.readouterr().out
    for package in ("tensorflow_datasets", "array_record", "mlxtend"):
        monkeypatch.setitem(sys.modules, package, None)
    found = load_dataset(str(path))
    np.testing.assert_array_equal(found.train_images, written["train"][0])
    np.testing.assert_array_equal(found.test_labels, written["test"][1])
    assert (found.fingerprint, found.name, found.class_names) == (whole.fingerprint, "cifar10", whole.class_names)
    first = read_pack(path).images["train"][0]
    assert first.startswith(b"\x89PNG") and image_shape_and_classes(str(path)) == ((32, 32, 3), 10)


def test_own_images_are_packed_as_pixels(tmp_path):
    images, path = write_images(tmp_path / "images.npz"), tmp_path / "images.pack"
    with pytest.raises(ValueError, match=r"must end in \.pack"):
        pack(str(images), tmp_path / "images.zip")
    pack(str(images), path)
    assert load_dataset(str(path)).fingerprint == load_dataset(str(images)).fingerprint
    assert read_pack(path).encoding == "pixels"


@pytest.mark.parametrize("name", ["cifar10", "cifar11"])
def test_what_cannot_be_packed_is_said_on_the_command_line(tmp_path, name, capsys):
    assert main([name, f"--data_dir={tmp_path}", f"--out={tmp_path / 'a.pack'}"]) == 1
    assert f"{name} could not be packed: " in capsys.readouterr().err
    assert not (tmp_path / "a.pack").exists()


@pytest.mark.slow
def test_cifar10_fits_in_50_mb(tmp_path, first_images):
    path = tmp_path / "cifar10.pack"
    # Reads it back and compares.
    packed = pack("cifar10", path, real_data_dir("cifar10"))
    share = 2500 / sum(first_images["cifar10"])
    assert path.stat().st_size < share * 50e6 or packed.images["train"][0].startswith(b"\x89PNG")
