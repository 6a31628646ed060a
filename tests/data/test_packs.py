"""A data set comes out of its pack as it went in, or not at all."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepnmf_jax.data import packs
from deepnmf_jax.data.datasets import load_dataset
from deepnmf_jax.data.packs import Packed, decode, read_pack, write_pack


def small(images: dict[str, list[bytes]], **changes: object) -> Packed:
    labels = {part: np.arange(len(found), dtype=np.int32) % 2 for part, found in images.items()}
    packed = Packed("small", ("a", "b"), (2, 2, 1), "pixels", "", images, labels)
    return packed._replace(**changes)


def png(pixels: np.ndarray, kind: str = "png") -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format=kind)
    return file.getvalue()


@settings(deadline=None, max_examples=30)
@given(st.lists(st.binary(max_size=9), max_size=5), st.lists(st.binary(max_size=9), max_size=5))
def test_any_bytes_come_back(tmp_path_factory, train, test):
    path = tmp_path_factory.mktemp("pack") / "a.pack"
    packed = small({"train": train, "test": test})
    write_pack(path, packed)
    found = read_pack(path)
    assert found.images == packed.images and found._replace(images={}, labels={}) == packed._replace(
        images={}, labels={}
    )
    assert all((found.labels[part] == packed.labels[part]).all() for part in ("train", "test"))


def test_a_file_that_is_torn_changed_or_of_another_version_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.pack"
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_pack(path)
    packed = small({"train": [bytes(4)] * 50, "test": [bytes(4)]})
    write_pack(path, packed)
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2], whole[:400] + bytes([whole[400] ^ 1]) + whole[401:]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read as a pack"):
            read_pack(path)
    # A zip archive that is whole, of arrays that are not those of the checksum.
    with np.load(io.BytesIO(whole)) as file:
        arrays = dict(file)
    arrays["y_train"] = arrays["y_train"][::-1]
    np.savez(path.with_suffix(".npz"), **arrays)
    path.with_suffix(".npz").replace(path)
    with pytest.raises(ValueError, match="differ from those that were written"):
        read_pack(path)
    monkeypatch.setattr(packs, "VERSION", 2)
    write_pack(path, packed)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="version 2 of the format, this package reads 1"):
        read_pack(path)


def test_no_object_is_unpickled(tmp_path):
    path = tmp_path / "a.pack"
    np.savez(path.with_suffix(".npz"), version=np.int16(1), description=np.asarray([{}], object))
    path.with_suffix(".npz").replace(path)
    with pytest.raises(ValueError, match="a.pack cannot be read.*description: it holds Python objects"):
        read_pack(path)


def test_an_image_of_another_size_or_kind_is_refused():
    rng = np.random.default_rng(0)
    right, large = rng.integers(0, 256, (2, 2), np.uint8), rng.integers(0, 256, (3, 2), np.uint8)
    packed = small({"train": [png(right), png(right, "jpeg")], "test": [png(right), png(large)]}, encoding="files")
    np.testing.assert_array_equal(decode(packed, "train")[0, ..., 0], right)
    with pytest.raises(ValueError, match=r"\(3, 2, 1\), not \(2, 2, 1\)"):
        decode(packed, "test")
    with pytest.raises(Exception, match="cannot identify"):
        decode(small({"train": [png(right, "gif")], "test": []}, encoding="files"), "train")
    with pytest.raises(ValueError, match="'zip' is unknown"):
        decode(packed._replace(encoding="zip"), "train")


def test_another_decoder_is_named_and_its_images_kept(tmp_path, caplog):
    path = tmp_path / "a.pack"
    write_pack(path, small({"train": [bytes(4)] * 2, "test": [bytes(4)] * 2}, fingerprint="of other images"))
    found = load_dataset(str(path))
    assert "come out otherwise" in caplog.text and found.fingerprint != "of other images"
