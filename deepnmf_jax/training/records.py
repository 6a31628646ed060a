"""What a run keeps for its reader: config.json, images.json, metrics.jsonl, results.json.

Every file is either replaced in one step or repaired on opening, so a kill at any moment does no harm. With
several processes, process 0 alone writes metrics and results; all call `open_workdir`.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from deepnmf_jax.files import open_regular, write_atomically
from deepnmf_jax.models.retired import as_of_today
from deepnmf_jax.training.devices import barrier
from deepnmf_jax.training.integrity import differing_line
from deepnmf_jax.training.locks import make_workdir

_log = logging.getLogger(__name__)

# ----------------------------------------------------------------------------------------- workdir and config


def open_workdir(workdir: str | os.PathLike[str], config: Mapping[str, Any]) -> Path:
    """Creates the workdir, or opens the one that an earlier start with this config left; returns its path.

    The first start writes config.json; every later one compares with it: of all settings, only `data_dir` may change.

    Args:
      workdir: the run's folder.
      config: plain nested mappings of JSON values (`ConfigDict.to_dict()`).

    Raises:
      OSError: the folder cannot be made or written to (read-only, a file is in the way).
      ValueError: the folder belongs to another config (each differing key is named), or to one with a setting that
        no longer exists; its config.json is damaged, or it holds checkpoints but no config.json.
    """
    workdir = make_workdir(workdir)
    path = workdir / "config.json"
    _check_same_config(path, config)
    if jax.process_index() == 0 and not path.exists():
        if any(workdir.glob("checkpoints/*/*")):
            raise ValueError(
                f"{workdir} holds checkpoints but no config.json, so it is not known what they belong to; "
                "choose another --workdir, or delete this one"
            )
        write_atomically(path, _to_json(config, "config") + "\n")
    if jax.process_count() > 1:
        barrier("config.json written")
        _check_same_config(path, config)
    return workdir


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of the workdir.

    Raises:
      OSError: the file cannot be read.
      ValueError: it is damaged.
    """
    try:
        with open_regular(path) as file:
            return dict(json.loads(file.read()))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error})") from error


def trained_config(workdir: Path) -> Any:
    """The config of the run in a workdir, from its config.json.

    Raises:
      OSError: the file cannot be read.
      ValueError: it is damaged.
    """
    from ml_collections import ConfigDict

    settings = read_json(workdir / "config.json")
    settings.pop("data_fingerprint", None)
    return ConfigDict(settings)


def describe_images(workdir: Path, shape: Sequence[int], class_names: Sequence[str]) -> None:
    """Writes images.json, by which the network can be used where its data set is not: the shape (height, width,
    channels) of its images, before they are cropped, and the names of the classes."""
    if jax.process_index() == 0:
        described = {"shape": list(map(int, shape)), "class_names": list(map(str, class_names))}
        write_atomically(workdir / "images.json", json.dumps(described) + "\n")


def described_images(workdir: Path) -> tuple[tuple[int, int, int], list[str]] | None:
    """The shape and the names that `describe_images` wrote; None of a workdir of an older release.

    Raises:
      OSError: images.json is damaged, or cannot be read.
    """
    path = workdir / "images.json"
    if not path.exists():
        return None
    instead = "delete it, and the run's data set is asked"
    try:
        described = read_json(path)
    except ValueError as error:
        raise OSError(f"{error}; {instead}") from error
    try:
        height, width, channels = map(int, described["shape"])
        return (height, width, channels), [str(name) for name in described["class_names"]]
    except (ValueError, TypeError, KeyError) as error:
        raise OSError(f"{path} is damaged ({error}); {instead}") from error


def _check_same_config(path: Path, config: Mapping[str, Any]) -> None:
    if not path.exists():
        return
    try:
        stored = read_json(path)
    except ValueError as error:
        raise ValueError(f"{error}; choose another --workdir, or delete this one") from error
    try:
        stored = flatten(as_of_today(stored))
    except ValueError as error:
        raise ValueError(f"the run in {path.parent} cannot go on: {error}") from error
    given = flatten(as_of_today(json.loads(_to_json(config, "config"))))
    absent = "(absent)"
    differing = [
        f"  {key}: {stored.get(key, absent)!r} in the workdir, {given.get(key, absent)!r} now"
        for key in sorted(stored.keys() | given.keys())
        if key != "data_dir" and (key in stored, stored.get(key)) != (key in given, given.get(key))
    ]
    if differing:
        raise ValueError(
            f"{path.parent} was started with another config:\n"
            + "\n".join(differing)
            + "\nchoose another --workdir, give the old settings, or delete the folder to start anew"
        )


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves of nested settings by dotted name; an empty mapping is a leaf."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            leaves.update(flatten(value, f"{prefix}{key}."))
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


# ---------------------------------------------------------------------------------------------- metrics.jsonl


class MetricsLog:
    """metrics.jsonl: one JSON object a line, on disk when `append` returns.

    Append an epoch's line *before* saving its checkpoint. A run killed between the two resumes at the
    checkpoint before, and the line is dropped and written again; in the other order it would be missing.
    A file that another program removes or changes meanwhile is written anew, with a warning.

    Attributes:
      text: all lines of the file, oldest first: as Python's objects they would fill the memory of a long run.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        step: int = 0,
        saved: str | list[dict[str, Any]] | None = None,
        every: int = 0,
    ):
        """Opens the log of a run that resumes at `step`: drops lines of later steps and a torn last one.

        Args:
          path: of the file.
          step: that the run resumes at.
          saved: the lines up to that step, as the checkpoint has them (an older one has them as a list of records).
            What differs from them in the file is named in a warning and written anew. Without them, lines that stand
            twice or out of order are put in order.
          every: steps from a line to the next; without `saved`, a warning names the lines that are missing.

        Raises:
          ValueError: without `saved`: a line before the last is not a record with an integer "step", or two lines of
            one step differ.
          OSError: the file cannot be written.
        """
        self.path = Path(path)
        written = None
        if self.path.exists():
            with open_regular(self.path) as file:
                written = file.read()
        lines = (written or b"").splitlines()
        records = [_parsed(line) for line in lines]
        if saved is None:
            if None in records[:-1]:
                number = records.index(None)
                raise ValueError(
                    f"line {number + 1} of {self.path} is not a record with an integer 'step': {lines[number][:60]!r}; "
                    "repair it, or delete the folder to start anew"
                )
            earlier = [record for record in records if record and record["step"] <= step]
            kept = _in_order(earlier, self.path, every, step)
        else:
            kept = _records(saved) if isinstance(saved, str) else saved
            readable = [record for record in records if record is None or record["step"] <= step]
            if reason := differing_line(readable, kept):
                _log.warning("%s: %s; written anew from the checkpoint", self.path, reason)
        self.text = "".join(_to_json(record, "record", indent=None) + "\n" for record in kept)
        self._last: int | None = kept[-1]["step"] if kept else None
        if written != self.text.encode():
            write_atomically(self.path, self.text)

    @property
    def records(self) -> list[dict[str, Any]]:
        """The lines as objects."""
        return _records(self.text)

    def append(self, record: Mapping[str, Any]) -> None:
        """Adds one line.

        Raises:
          ValueError: no integer "step", a step not above the last line's, or a value JSON cannot hold (NaN).
          OSError: the line cannot be written; the lines before are intact.
        """
        line = _to_json(record, "record", indent=None) + "\n"
        step = json.loads(line).get("step")
        if type(step) is not int:
            raise ValueError(f"a metrics record needs an integer 'step', got {step!r}")
        if self._last is not None and step <= self._last:
            raise ValueError(
                f"{self.path} already has a line of step {self._last}, got one of step {step}; "
                "open the log with MetricsLog(path, step=...) to go back"
            )
        self._mend()
        try:
            with open(self.path, "ab") as file:
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OSError(error.errno, f"cannot write {self.path}: {error.strerror}") from error
        self.text, self._last = self.text + line, step

    def _mend(self) -> None:
        """Writes the lines so far again if the file is not as long as they are."""
        there = self.path.stat().st_size if self.path.is_file() else None
        # JSON of ASCII alone, so that characters are bytes.
        if there != (size := len(self.text)):
            write_atomically(self.path, self.text)
            what = "was removed" if there is None else f"has {there} bytes in place of {size}"
            _log.warning("%s %s while the run went on; its lines so far are written again", self.path, what)


def _records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def _in_order(records: Sequence[dict[str, Any]], path: Path, every: int, step: int) -> list[dict[str, Any]]:
    """Records by rising steps, each once; a warning says what had to be done, and which are missing.

    Raises:
      ValueError: two records of one step that differ.
    """
    found: dict[int, dict[str, Any]] = {}
    for record in records:
        if found.setdefault(record["step"], record) != record:
            raise ValueError(
                f"{path} has two different lines of step {record['step']}; remove the wrong one, or delete the folder "
                "to start anew"
            )
    ordered = [found[key] for key in sorted(found)]
    if ordered != list(records):
        _log.warning("%s had lines twice or out of order; it is put in order", path)
    if every and (missing := sorted(set(range(every, step + 1, every)) - found.keys())):
        _log.warning("%s lacks the lines of step %s; curves are drawn without them", path, ", ".join(map(str, missing)))
    return ordered


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A line's record, or None if it is torn or otherwise none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if type(record) is dict and type(record.get("step")) is int else None


# --------------------------------------------------------------------------------------------------------- results.json


def write_results(workdir: str | os.PathLike[str], results: Mapping[str, Any]) -> Path:
    """Writes results.json, keys sorted, numpy and jax values as plain numbers and lists; returns its path.

    Raises:
      ValueError: a value is NaN or infinite, or of a kind that JSON does not have; the message names it.
      OSError: the file cannot be written.
    """
    path = Path(workdir) / "results.json"
    write_atomically(path, _to_json(results, "results") + "\n")
    return path


def _to_json(tree: Any, name: str, *, indent: int | None = 2) -> str:
    return json.dumps(_plain(tree, name), indent=indent, sort_keys=indent is not None, allow_nan=False)


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{name}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        # numpy's kind of bfloat16 and its kin, which have no Python number of their own, is V.
        array = np.asarray(value)
        return _plain((array.astype(np.float32) if array.dtype.kind == "V" else array).tolist(), name)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is {value}, which JSON cannot hold; find out why, or leave it out")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise ValueError(f"{name} is a {type(value).__name__}, which JSON cannot hold; give numbers or strings")
