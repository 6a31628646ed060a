"""Files of images that are damaged or made to do harm: each is read as it was written, or refused in one sentence."""

import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepnmf_jax import archives
from deepnmf_jax.data import packs
from deepnmf_jax.data.datasets import Dataset, load_dataset
from deepnmf_jax.data.packs import Packed, write_pack

RNG = np.random.default_rng(0)
ARRAYS = {
    "x_train": RNG.integers(0, 256, (6, 4, 3), np.uint8),
    "y_train": np.asarray([0, 1, 2, 0, 1, 2]),
    "x_test": RNG.integers(0, 256, (2, 4, 3), np.uint8),
    "y_test": np.asarray([2, 0]),
}
PACKED = Packed(
    name="small",
    class_names=("a", "b", "c"),
    image_shape=(4, 3, 1),
    encoding="pixels",
    fingerprint="",
    images={part: [image.tobytes() for image in ARRAYS[f"x_{part}"]] for part in packs.PARTS},
    labels={part: ARRAYS[f"y_{part}"] for part in packs.PARTS},
)


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def npz(method: int = zipfile.ZIP_STORED, **changes: Any) -> bytes:
    arrays: dict[str, Any] = ARRAYS | changes
    members = {f"{name}.npy": a if isinstance(a, bytes) else npy(np.asarray(a)) for name, a in arrays.items()}
    return zipped(members, method)


def pack(**changes: Any) -> bytes:
    """A pack whose checksum is right, whatever is in it."""
    file = io.BytesIO()

    def to_memory(_: object, write: Callable[[io.BytesIO], object]) -> None:
        write(file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packs, "write_atomically", to_memory)
        write_pack("", PACKED._replace(**changes))
    return file.getvalue()


def described(**changes: Any) -> bytes:
    """A pack with another description."""
    with np.load(io.BytesIO(pack())) as file:
        arrays = dict(file)
    description = json.loads(str(arrays["description"])) | changes
    return zipped({f"{n}.npy": npy(a) for n, a in (arrays | {"description": json.dumps(description)}).items()})


def labelled(y: Any) -> dict[str, Any]:
    return {"labels": {"train": np.asarray(y), "test": ARRAYS["y_test"]}}


def header(text: str, data: bytes = b"", length: int | None = None) -> bytes:
    encoded = text.encode() + b"\n"
    size = len(encoded) if length is None else length
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", size) + encoded + data


def picture(size: tuple[int, int], mode: str = "L", kind: str = "png") -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new(mode, size).save(file, format=kind)
    return file.getvalue()


def damaged(content: bytes, name: bytes) -> bytes:
    """With one byte of the data of a member changed."""
    place = content.index(name) + len(name) + 40
    return content[:place] + bytes([content[place] ^ 8]) + content[place + 1 :]


class Code:
    """Unpickling it would write a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, (f"open({str(Path.cwd() / 'ran')!r}, 'w')",))


def pickled() -> bytes:
    return pickle.dumps(Code())


GREY = "{'descr': '|u1', 'fortran_order': False, 'shape': (6, 4, 3), }"
TOO_MANY = [str(i) for i in range(100_000)]
SMALL_FILES: dict[str, Any] = {"encoding": "files", "image_shape": (4, 3, 1)}

# Suffix of the file, its content, what the message says beside the file's name.
HOSTILE: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "objects": ("npz", lambda: npz(y_train=np.asarray([Code()] * 6, object)), "y_train.*Python objects"),
    "names that are objects": ("npz", lambda: npz(class_names=np.asarray(["a", 1, None], object)), "class_names"),
    "a pickle": ("npz", pickled, "npz file"),
    "a pickle in place of an array": ("npz", lambda: npz(x_train=pickled()), "x_train"),
    "a text in place of an array": ("npz", lambda: npz(x_train=b"pixels"), "x_train"),
    "nothing in place of an array": ("npz", lambda: npz(y_test=b""), "y_test"),
    "an empty archive": ("npz", lambda: zipped({}), "lacks.*it holds nothing"),
    "an array alone": ("npz", lambda: npy(ARRAYS["x_train"]), "npz file"),
    "an unfolding of gigabytes": ("npz", lambda: unfolding(zipfile.ZIP_DEFLATED), "would unfold to"),
    "the same by lzma": ("npz", lambda: unfolding(zipfile.ZIP_LZMA), "would unfold to"),
    "bzip2": ("npz", lambda: npz(zipfile.ZIP_BZIP2), "x_train: it is compressed by method 12"),
    "damage in lzma": ("npz", lambda: damaged(npz(zipfile.ZIP_LZMA), b"x_train.npy"), "x_train"),
    "damage in deflate": ("npz", lambda: damaged(npz(zipfile.ZIP_DEFLATED), b"x_test.npy"), "x_test"),
    "damage in pixels": ("npz", lambda: damaged(npz(), b"x_train.npy"), "x_train"),
    "a shape beyond the data": ("npz", lambda: npz(x_train=header(GREY.replace("6", "10**9"), bytes(72))), "x_train"),
    "a larger shape": ("npz", lambda: npz(x_train=header(GREY.replace("6", "9" * 9), bytes(72))), "bytes of data"),
    "a smaller shape": ("npz", lambda: npz(x_train=header(GREY.replace("6", "5"), bytes(72))), "72 bytes of data"),
    "a negative shape": ("npz", lambda: npz(x_train=header(GREY.replace("6", "-6"), bytes(72))), "x_train"),
    "two negative lengths": (
        "npz",
        lambda: npz(x_train=header(GREY.replace("(6, 4", "(-6, -4"), bytes(72))),
        "x_train",
    ),
    "a short header": ("npz", lambda: npz(x_train=header(GREY + " " * 64, bytes(72), len(GREY))), "x_train"),
    "a long header": ("npz", lambda: npz(x_train=header(GREY, bytes(72), 60000)), "x_train"),
    "a header that nests": ("npz", lambda: npz(x_train=header("(" * 9000)), "x_train"),
    "a header that calls": ("npz", lambda: npz(x_train=header("__import__('os').getpid()")), "x_train"),
    "a version of the future": ("npz", lambda: npz(x_train=b"\x93NUMPY\x09\x00" + bytes(99)), "x_train.*version"),
    "fields": ("npz", lambda: npz(x_train=np.zeros((6, 4, 3), [("a", "u1")])), "x_train"),
    "times": ("npz", lambda: npz(y_train=np.zeros(6, "M8[s]")), "y_train"),
    "complex": ("npz", lambda: npz(x_train=np.zeros((6, 4, 3), complex)), "x_train.*complex"),
    "one number": ("npz", lambda: npz(x_train=np.uint8(3)), "x_train.*shape"),
    "labels with two axes": ("npz", lambda: npz(y_train=np.zeros((6, 1), int)), r"y_train.*\(6, 1\)"),
    "one-hot labels": ("npz", lambda: npz(y_train=np.eye(3)[ARRAYS["y_train"]]), r"y_train.*\(6, 3\)"),
    "a label far away": ("npz", lambda: npz(y_train=[0, 1, 2, 0, 1, 2**40]), "y_train"),
    "a test label far away": ("npz", lambda: npz(y_test=[0, 2**40]), "y_test.*1099511627776"),
    "names without end": ("npz", lambda: npz(class_names=TOO_MANY), "10,000 classes, got 100,000"),
    "names of no length": (
        "npz",
        lambda: npz(class_names=header(f"{{'descr': '|S0', 'fortran_order': False, 'shape': ({10**12},), }}")),
        "classes, got 1,000,000,000,000",
    ),
    "names that are numbers": ("npz", lambda: npz(class_names=[1.5, 2, 3]), "class_names.*float64"),
    "names that are no letters": ("npz", lambda: npz(class_names=np.asarray([b"a", b"b", b"\xff"])), "class_names"),
    "names beyond Unicode": ("npz", lambda: npz(class_names=np.full(3, 2**31, np.uint32).view("U1")), "class_names"),
    "half a character": ("npz", lambda: npz(class_names=["a", "b", "\ud800"]), "class_names"),
    "names of two lines": ("npz", lambda: npz(class_names=["a", "b", "c\nd"]), "class_names.*one line"),
    "an array twice": ("npz", lambda: twice(), "x_train is in it twice"),
    "a password": ("npz", lambda: encrypted(npz()), "x_train"),
    "label 7 of 3": ("pack", lambda: pack(**labelled([0, 1, 7, 0, 1, 2])), "y_train.*got 7"),
    "label -1": ("pack", lambda: pack(**labelled([0, 1, -1, 0, 1, 2])), "y_train.*got -1"),
    "more labels": ("pack", lambda: pack(**labelled([0, 1, 2] * 3)), r"y_train.*shape \(6,\).*\(9,\)"),
    "fewer labels": ("pack", lambda: pack(**labelled([0, 1])), r"y_train.*shape \(6,\).*\(2,\)"),
    "labels in a column": ("pack", lambda: pack(**labelled(np.zeros((6, 1), int))), r"y_train.*\(6, 1\)"),
    "no images": (
        "pack",
        lambda: pack(
            images={"train": [], "test": PACKED.images["test"]}, labels={"train": [], "test": ARRAYS["y_test"]}
        ),
        "no images in x_train",
    ),
    "names in numbers": ("pack", lambda: described(class_names=[1, 2, 3]), "class_names.*strings"),
    "names in one word": ("pack", lambda: described(class_names="abc"), "class_names must be a list"),
    "too many names": ("pack", lambda: described(class_names=TOO_MANY), "10,000 classes"),
    "another description": ("pack", lambda: zipped({"version.npy": npy(np.int16(1))}), "lacks description"),
    "a size of images": ("pack", lambda: described(image_shape=[10**6, 10**6, 3]), "bytes"),
    "a size in words": ("pack", lambda: described(image_shape=["4", "3", "1"]), "image_shape"),
    "a flat size": ("pack", lambda: described(image_shape=[4, 3]), "height, width and channels"),
    "another encoding": ("pack", lambda: described(encoding="zip"), "'zip' is unknown"),
    "another checksum": ("pack", lambda: described(checksum="0"), "differ from those that were written"),
    "pixels of another size": ("pack", lambda: pack(image_shape=(4, 4, 1)), "image 0 of x_train has 12 bytes"),
    "gigabytes of black images": (
        "pack",
        lambda: pack(encoding="files", image_shape=(30_000, 30_000, 1)),
        "would unfold to 5,400,000,000",
    ),
    "a picture that is a bomb": (
        "pack",
        lambda: pack(
            images={"train": [bomb()] * 6, "test": [picture((3, 4))] * 2}, **SMALL_FILES
        ),
        "image 0.*bomb",
    ),
    "a picture of a palette": (
        "pack",
        lambda: pack(images={"train": [picture((3, 4), "P")] * 6, "test": [picture((3, 4))] * 2}, **SMALL_FILES),
        "image 0: its mode is P",
    ),
    "a picture of 16 bits": (
        "pack",
        lambda: pack(images={"train": [picture((3, 4), "I;16")] * 6, "test": [picture((3, 4))] * 2}, **SMALL_FILES),
        "image 0: its mode is I;16",
    ),
    "half a picture": (
        "pack",
        lambda: pack(
            images={"train": [picture((3, 4))[:-30]] * 6, "test": [picture((3, 4))] * 2}, **SMALL_FILES
        ),
        "image 0",
    ),
    "no picture": ("pack", lambda: pack(images={"train": [b"GIF"] * 6, "test": [b""] * 2}, **SMALL_FILES), "image 0"),
}  # fmt: skip


def unfolding(method: int) -> bytes:
    data = npy(np.zeros((3, 1000, 1000), np.uint8))
    return zipped({f"{name}.npy": data if name == "x_train" else npy(a) for name, a in ARRAYS.items()}, method)


def bomb() -> bytes:
    """A picture of a few bytes that says it has 10 billion pixels."""
    small = picture((3, 4))
    shape = b"IHDR" + struct.pack(">II", 10**5, 10**5) + small[24:29]
    return small[:12] + shape + struct.pack(">I", zlib.crc32(shape)) + small[33:]


def twice() -> bytes:
    file = io.BytesIO(npz())
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("x_train.npy", npy(ARRAYS["x_train"]))
    return file.getvalue()


def encrypted(content: bytes) -> bytes:
    """The flag of a password, set in the directory of the archive."""
    place = content.index(b"PK\x01\x02") + 8
    return content[:place] + b"\x01" + content[place + 1 :]


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_refused_in_one_sentence(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(archives, "ALWAYS_ALLOWED", 2**20)
    suffix, make, message = HOSTILE[kind]
    path = tmp_path / f"images.{suffix}"
    path.write_bytes(make())
    with pytest.raises(ValueError, match=message) as raised:
        load_dataset(str(path))
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)
    assert sorted(tmp_path.iterdir()) == [path]  # no code of the file ran


@pytest.mark.parametrize("suffix", ["npz", "pack"])
def test_what_is_no_file_neither_hangs_nor_fills_the_memory(suffix: str, tmp_path: Path) -> None:
    pipe, device, folder, loop = (tmp_path / f"{name}.{suffix}" for name in ("pipe", "device", "folder", "loop"))
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    folder.mkdir()
    loop.symlink_to(loop)
    for path, message in ((pipe, "a pipe or device"), (device, "a pipe or device"), (folder, "a folder")):
        with pytest.raises(ValueError, match=f"{path} cannot be read: it is {message}, no file"):
            load_dataset(str(path))
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_dataset(str(loop))
    sparse = tmp_path / f"sparse.{suffix}"
    with sparse.open("wb") as file:
        file.truncate(2**43)
    with pytest.raises(ValueError, match=f"{sparse} cannot be read .*more than the .* of memory"):
        load_dataset(str(sparse))


def same(a: Dataset, b: Dataset) -> bool:
    return (a.fingerprint, a.class_names, a.name) == (b.fingerprint, b.class_names, b.name)


CONTENTS = {
    "stored": ("npz", lambda: npz(class_names=["a", "b", "c"])),
    "deflated": ("npz", lambda: npz(zipfile.ZIP_DEFLATED, class_names=["a", "b", "c"])),
    "pack": ("pack", pack),
}


@pytest.mark.filterwarnings("ignore:Reading `.npy`")
@pytest.mark.parametrize("kind", CONTENTS)
def test_a_flipped_bit_changes_nothing_or_is_noticed(kind: str, tmp_path: Path) -> None:
    suffix, make = CONTENTS[kind]
    content = make()
    path = tmp_path / f"images.{suffix}"
    path.write_bytes(content)
    whole, rng, refused = load_dataset(str(path)), np.random.default_rng(0), 0
    for place, bit in zip(rng.integers(0, len(content), 200), rng.integers(0, 8, 200), strict=True):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
        try:
            assert same(load_dataset(str(path)), whole), (place, bit)
        except ValueError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 120


def test_no_entry_of_the_directory_is_lost(tmp_path: Path) -> None:
    """A comment of more letters would swallow the entry that follows, and the file would have other class names."""
    content = npz(class_names=["a", "b", "c"])
    place = content.rindex(b"PK\x01\x02", 0, content.rindex(b"PK\x01\x02")) + 32
    for length in range(1, 100):
        (tmp_path / "images.npz").write_bytes(content[:place] + bytes([length]) + content[place + 1 :])
        with pytest.raises(ValueError, match="images.npz cannot be read"):
            load_dataset(str(tmp_path / "images.npz"))


def test_the_length_of_a_header_cannot_shift_pixels(tmp_path: Path) -> None:
    """numpy pads headers by spaces, so that a shorter one is still read, and the data begin too early."""
    x = np.repeat(ARRAYS["x_train"], 100, axis=2)
    content = npz(x_train=x, x_test=np.repeat(ARRAYS["x_test"], 100, axis=2))
    place = content.index(npy(x)) + 8
    assert content[place] == 118
    (tmp_path / "images.npz").write_bytes(content[:place] + bytes([118 ^ 32]) + content[place + 1 :])
    with pytest.raises(ValueError, match="images.npz cannot be read .*x_train"):
        load_dataset(str(tmp_path / "images.npz"))


def test_what_is_right_is_read(tmp_path: Path) -> None:
    """Every kind of compression that can be checked, names in any script, black images that shrink to nothing."""
    path = tmp_path / "images.npz"
    names = ["$x$", r"\frac{", "می‌خواهم"]
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA):
        path.write_bytes(npz(method, class_names=names, notes=np.asarray([Code()], object)))
        found = load_dataset(str(path))
        np.testing.assert_array_equal(found.train_images[..., 0], ARRAYS["x_train"])
        assert found.class_names == tuple(names)
    path.write_bytes(
        npz(zipfile.ZIP_DEFLATED, x_train=np.zeros((6, 1000, 1000), "u1"), x_test=np.zeros((2, 1000, 1000)))
    )
    assert load_dataset(str(path)).train_images.shape == (6, 1000, 1000, 1)
