"""What must be in a workdir: names, shapes and checksum of a checkpoint's arrays, checksums of its files, records."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from deepnmf_jax.files import open_regular, write_atomically

MANIFEST = "manifest.sha256"

Name = tuple[str, ...]
"""The path of a leaf: fields, keys and indices as strings, whatever containers they are in."""


def named_leaves(tree: Any) -> list[tuple[Name, Any]]:
    """The leaves of a tree with their names, in the order of `jax.tree.leaves`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(tuple(jax.tree_util.keystr((key,), simple=True) for key in path), leaf) for path, leaf in leaves]


def named_arrays(tree: Any) -> dict[Name, np.ndarray]:
    """The leaves of a tree as numpy arrays.

    Raises:
      ValueError: a leaf is not an array of numbers with at least one element; it is named.
    """
    arrays: dict[Name, np.ndarray] = {}
    for name, leaf in named_leaves(tree):
        try:
            array = np.asarray(leaf)
        except Exception as error:
            raise ValueError(f"state leaf {'/'.join(name)} cannot be read as an array: {error}") from error
        # Kind V is bfloat16 and its kin, but also structured arrays, which have fields.
        if array.dtype.kind not in "biufcV" or array.dtype.fields or not array.size:
            raise ValueError(
                f"state leaf {'/'.join(name)} is {array.dtype.name}{list(array.shape)}; only arrays of "
                "numbers with at least one element can be saved"
            )
        if name in arrays:
            raise ValueError(f"two leaves of the state are called {'/'.join(name)}; rename one")
        arrays[name] = array
    if not arrays or () in arrays:
        raise ValueError("the state must be a container (dict, tuple, struct) of at least one array")
    return arrays


def nested(arrays: Mapping[Name, np.ndarray]) -> dict[str, Any]:
    """Dicts in dicts, as orbax stores them."""
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        node = tree
        for part in name[:-1]:
            node = node.setdefault(part, {})
        node[name[-1]] = array
    return tree


def _dtype(leaf: Any) -> np.dtype[Any]:
    return np.dtype(leaf.dtype) if hasattr(leaf, "dtype") else np.asarray(leaf).dtype


def digest_of(arrays: Mapping[Name, np.ndarray]) -> str:
    """SHA-256 of names, dtypes, shapes and contents."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def check_matches(stored: Mapping[Name, np.ndarray], template: Any, folder: Path) -> None:
    """Holds the arrays of the checkpoint in `folder` against the tree that is expected.

    Raises:
      ValueError: names, shapes or dtypes differ; each differing leaf is given with both.
    """
    expected = {name: (tuple(np.shape(leaf)), _dtype(leaf)) for name, leaf in named_leaves(template)}
    found = {name: (array.shape, array.dtype) for name, array in stored.items()}

    def describe(leaf: tuple[tuple[int, ...], np.dtype[Any]] | None) -> str:
        return "absent" if leaf is None else f"{leaf[1].name}{list(leaf[0])}"

    differing = [
        f"  {'/'.join(name)}: {describe(has)} in the checkpoint, {describe(wants)} expected"
        for name in sorted(found.keys() | expected.keys())
        if (has := found.get(name)) != (wants := expected.get(name))
    ]
    if differing:
        more = [f"  and {len(differing) - 8} more"] if len(differing) > 8 else []
        raise ValueError(
            f"the checkpoint {folder} does not fit; give the config that it was trained with:\n"
            + "\n".join(differing[:8] + more)
        )


def write_manifest(folder: Path) -> None:
    """Writes the checksum of every file below the folder to its manifest, in the format of sha256sum.

    Raises:
      OSError: it cannot be written.
    """
    write_atomically(folder / MANIFEST, _manifest(_checksums(folder)))


def _checksums(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if not path.is_dir() and path != folder / MANIFEST)
    checksums = {}
    for file in files:
        with open_regular(file) as content:
            checksums[file.relative_to(folder).as_posix()] = hashlib.file_digest(content, "sha256").hexdigest()
    return checksums


def _manifest(checksums: Mapping[str, str]) -> str:
    return "".join(f"{checksum}  {name}\n" for name, checksum in checksums.items())


def damage(folder: Path) -> str:
    """How the folder differs from its manifest (which must be, to the byte, what it would be now), or ""."""
    try:
        with open_regular(folder / MANIFEST) as file:
            stored = file.read()
        found = _checksums(folder)
    except OSError as error:
        return f"cannot read {error.filename}: {error.strerror}"
    if stored == _manifest(found).encode(errors="surrogateescape"):
        return ""
    lines = (line.partition("  ") for line in stored.decode(errors="replace").splitlines())
    listed = {name: checksum for checksum, _, name in lines if name}
    for word, names in (
        ("missing", listed.keys() - found.keys()),
        ("not in the manifest", found.keys() - listed.keys()),
        ("changed", {name for name in found.keys() & listed.keys() if found[name] != listed[name]}),
    ):
        if names:
            return f"{min(names)} is {word}"
    return f"{MANIFEST} is changed"


def differing_line(found: list[dict[str, Any] | None], expected: list[dict[str, Any]]) -> str:
    """The first line of metrics.jsonl that is not the one expected, in words, or "".

    Args:
      found: its records; None stands for a line that is none, and behind the last record does not count.
      expected: the records that it should have.
    """
    for number, (line, right) in enumerate(itertools.zip_longest(found, expected), start=1):
        if number > len(expected):
            if line is not None:
                return f"line {number}, of step {line['step']}, is one too many"
        elif number > len(found):
            return f"line {number}, of step {right['step']}, is missing"
        elif line is None:
            return f"line {number} is not a record with an integer 'step'"
        elif line["step"] != right["step"]:
            return f"line {number} is of step {line['step']}, not {right['step']}"
        elif line != right:
            return f"line {number}, of step {line['step']}, is not what the run wrote"
    return ""
