"""Saved estimators: one .npz file with a JSON header. Reading it runs no code, whatever is in it."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from deepnmf_jax.archives import read_arrays
from deepnmf_jax.core.checks import check_integer, check_number
from deepnmf_jax.files import checksum, open_regular, write_atomically

FORMAT = "deepnmf_jax.decomposition"
# Raise it when a file written from now on cannot be read by the code of before.
VERSION = 1


class Kind(NamedTuple):
    """What a saved array must be: a letter for each axis, the same letter for the same length; whether entries are
    all at least 0; whether they are whole numbers; whether they must be finite."""

    axes: str
    nonnegative: bool = False
    whole: bool = False
    finite: bool = True


def write(
    path: str | os.PathLike,
    name: str,
    arguments: dict[str, Any],
    numbers: dict[str, Any],
    stored: dict[str, np.ndarray],
) -> None:
    """Write an estimator of class `name` to `path`, which is replaced only once the file is complete.

    Raises:
        ValueError: an argument that JSON has no form for, such as a sharding.
    """
    header = {"format": FORMAT, "version": VERSION, "class": name, "arguments": arguments, "numbers": numbers}
    header["sha256"] = {key: checksum(array) for key, array in stored.items()}
    try:
        text = json.dumps(header, default=_plain)
    except TypeError as error:
        raise ValueError(f"the arguments {arguments} cannot be saved ({error}); name the device by a string") from error
    content: dict[str, Any] = {"header": np.frombuffer(text.encode(), np.uint8), **stored}
    # Its argument `allow_pickle` came with NumPy 2.1: before, it would be saved as an array of that name.
    write_atomically(path, lambda file: np.savez(file, **content))


def _plain(value: Any) -> Any:
    """Scalars and arrays as Python's numbers and lists."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{value!r} has no form in JSON")


def read(path: str | os.PathLike, name: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, np.ndarray]]:
    """Arguments, numbers and arrays of the estimator of class `name` that `write` has put into `path`.

    Raises:
        OSError: there is no such file, it cannot be read, or it is a pipe or a device.
        ValueError: no such file format, a damaged array (which is named), a newer version, another class.
    """
    try:
        with open_regular(path) as file:
            stored = read_arrays(file)
        header = json.loads(stored.pop("header").tobytes().decode())
        form, version, sums = header.get("format"), header.get("version"), header.get("sha256")
    except (KeyError, AttributeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a file that `save` has written, or it is damaged: {error}") from error
    if form != FORMAT:
        raise ValueError(f"{path} is not a file that `save` has written: its format is {form!r}")
    with named_errors(path):
        if check_integer("version", version, 1) > VERSION:
            raise ValueError(f"it has version {version}, this deepnmf_jax reads up to {VERSION}; update it")
        held = header["class"]
        if held != name:
            raise ValueError(f"it holds a {held}, not a {name}; use {held}.load")
        # Files of version 0.1.0 have no checksums.
        if sums is not None:
            _check_sums(sums, stored)
        arguments, numbers = header["arguments"], header["numbers"]
        if not isinstance(arguments, dict) or not isinstance(numbers, dict):
            raise ValueError("its header holds no arguments or no numbers")
    return arguments, numbers, stored


@contextmanager
def named_errors(path: str | os.PathLike) -> Iterator[None]:
    """Makes what wrong contents of a file raise a ValueError that names the file."""
    try:
        yield
    except KeyError as error:
        raise ValueError(f"{path} is damaged: {error} is missing") from error
    except (ValueError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path} cannot be loaded: {error}") from error


def _check_sums(sums: Mapping[str, str], stored: Mapping[str, np.ndarray]) -> None:
    for name in sorted(sums.keys() | stored.keys()):
        if name not in stored:
            raise ValueError(f"array {name!r} is missing")
        if name not in sums:
            raise ValueError(f"array {name!r} is not one that was saved")
        if checksum(stored[name]) != sums[name]:
            raise ValueError(f"array {name!r} is not what was saved (SHA-256)")


def check_arrays(stored: Mapping[str, np.ndarray], kinds: Mapping[str, Kind], sizes: dict[str, int]) -> None:
    """ValueError naming the array that is not of its kind; `sizes` has the lengths known so far, and gets the others.

    Arrays that are not there are left to the caller.
    """
    for name, kind in kinds.items():
        if name not in stored:
            continue
        array = stored[name]
        if array.dtype.kind not in ("iu" if kind.whole else "f"):
            raise ValueError(f"array {name!r} has dtype {array.dtype}")
        wanted = [sizes.setdefault(axis, length) for axis, length in zip(kind.axes, array.shape, strict=False)]
        if array.ndim != len(kind.axes) or tuple(wanted) != array.shape:
            raise ValueError(f"array {name!r} has shape {array.shape}, which does not fit the others")
        if kind.finite and not np.isfinite(array).all():
            raise ValueError(f"array {name!r} has entries that are NaN or infinite")
        if kind.nonnegative and (array < 0).any():
            raise ValueError(f"array {name!r} has negative entries")


def check_report(numbers: Mapping[str, Any]) -> None:
    """ValueError for how a fit ended: "n_iter", "converged" and, where there is one, "reconstruction_err"."""
    if numbers["n_iter"] is not None:
        check_integer("n_iter", numbers["n_iter"], 0)
    if not isinstance(numbers["converged"], (bool, type(None))):
        raise ValueError(f"converged = {numbers['converged']!r}, but it must be true, false or null")
    if numbers.get("reconstruction_err") is not None:
        check_number("reconstruction_err", numbers["reconstruction_err"], 0)
