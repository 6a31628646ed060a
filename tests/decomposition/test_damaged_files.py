"""A saved estimator loads to the same numbers, or a ValueError names the file (and the array): nothing in between."""

import io
import json
import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepnmf_jax import NMF, ArchetypalAnalysis, ConvexNMF, Dn2MFGL, SemiNMF
from deepnmf_jax.archives import read_arrays
from deepnmf_jax.decomposition import ConvergenceWarning
from deepnmf_jax.files import checksum
from tests.decomposition.test_pickling import assert_same

MAKERS: dict[type, Callable[[], Any]] = {
    NMF: lambda: NMF(2, max_iter=2),
    SemiNMF: lambda: SemiNMF(2, max_iter=2),
    ConvexNMF: lambda: ConvexNMF(2, max_iter=2),
    ArchetypalAnalysis: lambda: ArchetypalAnalysis(2, max_iter=2),
    Dn2MFGL: lambda: Dn2MFGL((3, 2), n_clusters=2, alpha=0.1, n_neighbors=3, max_iter=2),
}
OLD = Path(__file__).parent / "saved"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[type, bytes]:
    """The file of an estimator of each class; that of NMF goes on with batches."""
    a, path, files = np.random.default_rng(0).random((16, 6)), tmp_path_factory.mktemp("saved") / "m.npz", {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for kind, make in MAKERS.items():
            model = make()
            model.fit(a)
            if kind is NMF:
                model.partial_fit(a)
            model.save(path)
            files[kind] = path.read_bytes()
    return files


@pytest.mark.slow
def test_random_damage(saved: dict[type, bytes], tmp_path: Path) -> None:
    rng, path = np.random.default_rng(0), tmp_path / "m.npz"
    # Old files have no checksums of their own; zip's is looked at, since every array is read to its end.
    old = [(kind, (OLD / f"{name}.npz").read_bytes()) for kind, name in ((NMF, "nmf"), (Dn2MFGL, "dn2mfgl"))]
    refused, contents = 0, [*saved.items(), *old]
    for kind, content in contents:
        path.write_bytes(content)
        whole = kind.load(path)
        for i in range(40):
            damaged = bytearray(content)
            place = int(rng.integers(len(content)))
            if i % 4 == 0:
                del damaged[place:]
            elif i % 4 == 1:
                damaged[place:] = bytes(len(damaged) - place)
            else:
                damaged[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(damaged)
            try:
                assert_same(whole, kind.load(path))
            except ValueError as error:
                assert str(path) in str(error)
                refused += 1
    # A flip in a date or a comment of the archive changes nothing.
    assert refused > 0.8 * 40 * len(contents)


def rewritten(content: bytes, change: Callable[[dict[str, np.ndarray], dict], Any], sums: str = "right") -> bytes:
    """The file with other arrays or another header, its checksums made right, left as they were, or taken out."""
    arrays = read_arrays(io.BytesIO(content))
    header = json.loads(arrays.pop("header").tobytes())
    replaced = change(arrays, header)
    header = header if replaced is None else replaced
    if sums == "right" and isinstance(header, dict):
        header["sha256"] = {name: checksum(array) for name, array in arrays.items()}
    elif sums == "none":
        del header["sha256"]
    file = io.BytesIO()
    np.savez(file, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)
    return file.getvalue()


def put(name: str, value: float) -> Callable[[dict[str, np.ndarray], dict], None]:
    def change(arrays: dict[str, np.ndarray], header: dict) -> None:
        arrays[name] = arrays[name].copy()
        arrays[name].flat[-1] = value

    return change


@pytest.mark.parametrize("sums", ["right", "left", "none"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [(NMF, name) for name in ("_d", "_m", "_n", "_seen")]
    + [(SemiNMF, "_d"), (ConvexNMF, "_w"), (ArchetypalAnalysis, "_d")]
    + [(Dn2MFGL, name) for name in ("H0", "H1", "components_", "embedding_", "cluster_centers_", "_feature_weights")],
)
def test_wrong_values_are_named(saved: dict[type, bytes], kind: Any, name: str, sums: str, tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    for value in (np.nan, np.inf, -1.0):
        if value == -1 and name == "_d" and kind is not NMF and sums != "left":
            continue  # their dictionaries have any sign
        path.write_bytes(rewritten(saved[kind], put(name, value), sums))
        with pytest.raises(ValueError, match=f"m.npz .*array '{name}' "):
            kind.load(path)


def deep(arrays: dict, header: dict) -> dict:
    return json.loads("[" * 900 + "]" * 900)


WRONG: dict[str, Callable[[dict, dict], Any]] = {
    "an array is missing": lambda arrays, header: arrays.pop("H1", None) is None and header.pop("numbers"),
    "another shape": lambda arrays, header: arrays.update({k: v.T for k, v in arrays.items() if v.ndim == 2}),
    "whole numbers": lambda arrays, header: arrays.update({k: v.astype(int) for k, v in arrays.items()}),
    "text": lambda arrays, header: arrays.update({k: v.astype(str) for k, v in arrays.items()}),
    "a list for a header": lambda arrays, header: [1, 2],
    "a deep header": deep,
    "no arguments": lambda arrays, header: header.pop("arguments") and None,
    "an argument too many": lambda arrays, header: header["arguments"].update(surprise=1),
    "an argument of text": lambda arrays, header: header["arguments"].update(tol="small"),
    "arguments in a list": lambda arrays, header: header.update(arguments=[1]),
    "numbers of text": lambda arrays, header: header["numbers"].update(n_iter="many"),
    "no number": lambda arrays, header: header["numbers"].clear(),
    "the scale is nothing": lambda arrays, header: header["numbers"].update(scale=0, choice=None),
    "a version of text": lambda arrays, header: header.update(version="two"),
    "a later version": lambda arrays, header: header.update(version=99),
    "another class": lambda arrays, header: header.update({"class": ["NMF"]}),
    "checksums of text": lambda arrays, header: header.update(sha256="f00"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_contents(saved: dict[type, bytes], wrong: str, tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    for kind in (NMF, Dn2MFGL):
        path.write_bytes(rewritten(saved[kind], WRONG[wrong], "left" if wrong == "checksums of text" else "right"))
        with pytest.raises(ValueError, match=r"m\.npz"):
            kind.load(path)


def test_files_that_are_no_archives_of_arrays(saved: dict[type, bytes], tmp_path: Path) -> None:
    path = tmp_path / "m.npz"

    def archive(content: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", compression) as made:
            made.writestr("header.npy", content)
        return file.getvalue()

    pickled = io.BytesIO()
    np.save(pickled, np.array([{}], object), allow_pickle=True)
    huge = io.BytesIO()
    np.lib.format.write_array_header_1_0(huge, {"descr": "<f8", "fortran_order": False, "shape": (2**40,)})
    nested = b"\x93NUMPY\x01\x00" + (6000).to_bytes(2, "little") + b"(" * 6000
    for content in (
        b"",
        b"no such thing",
        saved[NMF][:-1],
        archive(b"abc"),
        archive(pickled.getvalue()),
        archive(huge.getvalue()),
        archive(nested),
        archive(bytes(10**7), zipfile.ZIP_DEFLATED),
        archive(bytes(10**6), zipfile.ZIP_LZMA),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"m\.npz is not a file that `save` has written"):
            NMF.load(path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        NMF.load(tmp_path / "nowhere.npz")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no regular file.*pipe"):
        NMF.load(tmp_path / "pipe")
