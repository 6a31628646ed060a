"""Pictures in folders, one subfolder a class, as a data set."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepnmf_jax.data import make_pack
from deepnmf_jax.data.datasets import load_dataset, load_folder


def write(folder: Path, *numbers: int, mode: str = "RGB", size: tuple[int, int] = (6, 4), suffix: str = "png") -> None:
    """Pictures of one colour: the red of 003.png is 3."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        colour = number if mode == "L" else (number, 20, 30)
        Image.new(mode, size, colour).save(folder / f"{number:03}.{suffix}")


def test_each_fifth_of_a_class_is_tested_on_and_nothing_is_lost(tmp_path: Path) -> None:
    write(tmp_path / "dog", *range(100, 107))
    write(tmp_path / "cat", *range(11))
    write(tmp_path / ".hidden", 200)
    (tmp_path / "cat" / "notes.txt").write_text("no picture")
    found = load_dataset(str(tmp_path))
    assert found.class_names == ("cat", "dog") and found.num_classes == 2
    assert found.train_images.shape == (8 + 5, 4, 6, 3) and found.train_images.dtype == np.uint8
    assert found.test_images[:, 0, 0, 0].tolist() == [0, 5, 10, 100, 105]
    assert found.test_labels.tolist() == [0, 0, 0, 1, 1]
    numbers = np.concatenate([found.train_images, found.test_images])[:, 0, 0, 0]
    labels = np.concatenate([found.train_labels, found.test_labels])
    assert sorted(numbers.tolist()) == [*range(11), *range(100, 107)]
    assert ((numbers >= 100) == labels).all() and (found.train_images[..., 1] == 20).all()
    assert load_dataset(str(tmp_path)).fingerprint == found.fingerprint


def test_folders_of_their_own_for_training_and_testing(tmp_path: Path) -> None:
    for part, first in (("train", 0), ("test", 50)):
        write(tmp_path / part / "a", first, first + 1, mode="L")
        write(tmp_path / part / "b", first + 2, mode="L")
    found = load_folder(tmp_path)
    assert found.train_images[:, 0, 0].tolist() == [[0], [1], [2]]  # all are grey: one channel
    assert found.test_images[:, 0, 0, 0].tolist() == [50, 51, 52] and found.test_labels.tolist() == [0, 0, 1]


def test_pictures_of_several_sizes_and_kinds_are_packed_to_one(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    write(folder / "a", 1, 2, size=(40, 20))
    write(folder / "b", 3, mode="L", size=(9, 30))
    write(folder / "b", 4, size=(5, 5), suffix="bmp")
    with pytest.raises(ValueError, match=r"004.bmp has 5 x 5 pixels, and others 20 x 40.*deepnmf-jax pack FOLDER"):
        load_dataset(str(folder))
    out = tmp_path / "photos.pack"
    assert make_pack.main([str(folder), "--size=8", f"--out={out}"]) == 0
    found = load_dataset(str(out))
    assert found.train_images.shape == (2, 8, 8, 3) and found.class_names == ("a", "b")
    assert found.fingerprint == load_folder(folder, 8).fingerprint


def test_a_picture_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, 1, 2)
    turned = Image.new("RGB", (4, 6))
    exif = turned.getexif()
    exif[0x0112] = 6  # turn by 90 degrees
    turned.save(tmp_path / "a" / "001.jpg", exif=exif)
    assert load_folder(tmp_path).train_images.shape[1:] == (4, 6, 3)


def test_levels_of_16_bits_are_made_8(tmp_path: Path) -> None:
    levels = np.arange(0, 65536, 257 * 15, dtype=np.uint16)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in (1, 2):
            Image.fromarray(levels[None]).save(tmp_path / name / f"{number}.png")
    found = load_folder(tmp_path)
    assert found.train_images.shape[3] == 1  # they are grey
    np.testing.assert_array_equal(found.train_images[0, 0, :, 0], levels // 257)
    write(tmp_path / "a", 3, size=(18, 1))
    np.testing.assert_array_equal(load_folder(tmp_path).test_images[-1, 0, :, 1], levels // 257)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_lies_on_white(tmp_path: Path, mode: str) -> None:
    """A black drawing on transparent black."""
    drawing = Image.new("LA", (4, 4), (0, 0))
    drawing.paste((0, 255), (0, 0, 2, 4))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in (1, 2):
            path = tmp_path / name / f"{number}.png"
            if mode == "P":
                Image.fromarray(np.uint8([[0, 0, 1, 1]] * 4)).convert("P").save(path, transparency=1)
            else:
                drawing.convert(mode).save(path)
    images = load_folder(tmp_path).train_images
    assert images.shape[3] == (1 if mode == "LA" else 3)
    assert (images[:, :, :2] == 0).all() and (images[:, :, 2:] == 255).all()


@pytest.mark.parametrize("mode", ["I", "F"])
def test_levels_of_32_bits_are_refused(tmp_path: Path, mode: str) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in (1, 2):
            Image.new(mode, (4, 4)).save(tmp_path / name / f"{number}.tiff")
    with pytest.raises(ValueError, match=f"2.tiff cannot be read .* 32 bits .mode {mode}.* use 8 or 16"):
        load_folder(tmp_path)


def test_mistakes_are_told(tmp_path: Path) -> None:
    def refused(message: str, error: type[Exception] = ValueError, folder: Path = tmp_path, size: int | None = None):
        with pytest.raises(error, match=message):
            load_folder(folder, size)

    refused("there is no folder", FileNotFoundError, tmp_path / "none")
    refused("must have 1 to 10,000 classes, got 0")
    write(tmp_path / "a", 1, 2)
    write(tmp_path / "b", 1)
    refused("no picture to train on of the class b; each needs two at least")
    refused("size = 0", size=0)
    write(tmp_path / "b", 2)
    (tmp_path / "b" / "003.png").write_bytes(b"no picture")
    refused(r"b/003.png cannot be read as a picture")
    write(tmp_path / "two" / "train" / "a", 1)
    write(tmp_path / "two" / "test" / "b", 1)
    refused(r"the classes \['a'\] in train, but \['b'\] in test", folder=tmp_path / "two")
    with pytest.raises(ValueError, match="unknown data set 'nowhere'.* or of a folder of pictures"):
        load_dataset("nowhere")
