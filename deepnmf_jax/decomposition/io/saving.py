"""Saved estimators: one .npz file with a JSON header. Reading it runs no code, whatever is in it."""

import json
import os
import zipfile
from typing import Any

import numpy as np

from deepnmf_jax.files import write_atomically

FORMAT = "deepnmf_jax.decomposition"
# Raise it when a file written from now on cannot be read by the code of before.
VERSION = 1


def write(
    path: str | os.PathLike,
    name: str,
    arguments: dict[str, Any],
    numbers: dict[str, Any],
    stored: dict[str, np.ndarray],
) -> None:
    """Write an estimator of class `name` to `path`, which is replaced only once the file is complete.

    Raises:
        ValueError: an argument that JSON has no form for, such as a device object.
    """
    header = {"format": FORMAT, "version": VERSION, "class": name, "arguments": arguments, "numbers": numbers}
    try:
        text = json.dumps(header)
    except TypeError as error:
        raise ValueError(f"the arguments {arguments} cannot be saved ({error}); name the device by a string") from error
    stored = {"header": np.frombuffer(text.encode(), np.uint8), **stored}
    write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **stored))


def read(path: str | os.PathLike, name: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, np.ndarray]]:
    """Arguments, numbers and arrays of the estimator of class `name` that `write` has put into `path`.

    Raises:
        ValueError: no such file format, a newer version, another class.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            stored = dict(file)
        header = json.loads(stored.pop("header").tobytes().decode())
    except (KeyError, EOFError, zipfile.BadZipFile, UnicodeDecodeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is not a file that `save` has written: {error}") from error
    if header.get("format") != FORMAT:
        raise ValueError(f"{path} is not a file that `save` has written: its format is {header.get('format')!r}")
    if header["version"] > VERSION:
        raise ValueError(f"{path} has version {header['version']}, this deepnmf_jax reads up to {VERSION}; update it")
    if header["class"] != name:
        raise ValueError(f"{path} holds a {header['class']}, not a {name}; use {header['class']}.load")
    return header["arguments"], header["numbers"], stored
