"""What people see of a run: config.json, metrics.jsonl, TensorBoard files, a progress bar, results.json.

Every file is either replaced in one step or repaired on opening, so a kill at any moment does no harm. With
several processes, process 0 alone writes metrics, TensorBoard files and results; all call `open_workdir`.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from deepnmf_jax.files import write_atomically
from deepnmf_jax.models.retired import ADDED, drop_retired
from deepnmf_jax.training.devices import barrier
from deepnmf_jax.training.environment import installed

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
    workdir = Path(workdir)
    _check_writable(workdir)
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


def _check_writable(workdir: Path) -> None:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workdir) as file:
            file.write(b"0")
            file.flush()
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write to the workdir {workdir}: {error.strerror}; choose a --workdir where you may "
            "write, on a disk with space",
        ) from error


def _check_same_config(path: Path, config: Mapping[str, Any]) -> None:
    if not path.exists():
        return
    try:
        stored = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); choose another --workdir, or delete this one") from error
    try:
        stored = flatten(drop_retired(stored))
    except ValueError as error:
        raise ValueError(f"the run in {path.parent} cannot go on: {error}") from error
    given = flatten(json.loads(_to_json(config, "config")))
    stored = {key: value for key, value in ADDED.items() if key in given} | stored
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

    Attributes:
      records: all lines of the file, oldest first.
    """

    def __init__(self, path: str | os.PathLike[str], *, step: int = 0):
        """Opens the log of a run that resumes at `step`: drops lines of later steps and a torn last one.

        Raises:
          ValueError: a line before the last is not a record with an integer "step".
          OSError: the file cannot be written.
        """
        self.path = Path(path)
        written = self.path.read_bytes() if self.path.exists() else None
        lines = (written or b"").splitlines()
        records = [_parsed(line) for line in lines]
        if None in records[:-1]:
            number = records.index(None)
            raise ValueError(
                f"line {number + 1} of {self.path} is not a record with an integer 'step': {lines[number][:60]!r}; "
                "repair it, or delete the folder to start anew"
            )
        self.records = [record for record in records if record and record["step"] <= step]
        kept = "".join(_to_json(record, "record", indent=None) + "\n" for record in self.records)
        if written != kept.encode():
            write_atomically(self.path, kept)

    def append(self, record: Mapping[str, Any]) -> None:
        """Adds one line.

        Raises:
          ValueError: no integer "step", a step not above the last line's, or a value JSON cannot hold (NaN).
          OSError: the line cannot be written; the lines before are intact.
        """
        line = _to_json(record, "record", indent=None) + "\n"
        plain = json.loads(line)
        step = plain.get("step")
        if type(step) is not int:
            raise ValueError(f"a metrics record needs an integer 'step', got {step!r}")
        if self.records and step <= self.records[-1]["step"]:
            raise ValueError(
                f"{self.path} already has a line of step {self.records[-1]['step']}, got one of step {step}; "
                "open the log with MetricsLog(path, step=...) to go back"
            )
        try:
            with open(self.path, "ab") as file:
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OSError(error.errno, f"cannot write {self.path}: {error.strerror}") from error
        self.records.append(plain)


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A line's record, or None if it is torn or otherwise none."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if type(record) is dict and type(record.get("step")) is int else None


# ---------------------------------------------------------------------------------- TensorBoard, progress bar


class TensorBoard:
    """Scalars for TensorBoard, on disk when `write` returns. Like a metrics line, write before saving."""

    def __init__(self, folder: str | os.PathLike[str], *, step: int = 0):
        """Opens an event file for a run that starts or resumes at `step`; TensorBoard hides later steps.

        Raises:
          OSError: the file cannot be made.
        """
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        Path(folder).mkdir(parents=True, exist_ok=True)
        # SummaryWriter hands events to a thread, and its flush does not wait for them; this writes at once.
        # File names hold only the second of opening. With the step in them, the worst that a restart within
        # the same second overwrites is a file whose steps are all written again.
        self._file = EventsWriter(str(Path(folder) / "events"), f".{step:012d}")
        started = SessionLog(status=SessionLog.START)
        self._file.write_event(Event(step=step + 1, wall_time=time.time(), session_log=started))
        self._file.flush()

    def write(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Writes `scalars` (tag -> value) of `step`."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        for tag, value in scalars.items():
            summary = scalar(tag, float(value))
            self._file.write_event(Event(step=step, wall_time=time.time(), summary=summary))
        self._file.flush()

    def close(self) -> None:
        """Closes the event file."""
        self._file.close()


class Progress:
    """One epoch's progress bar: loss, accuracy, images/s and time left.

    `shown` is False when stderr is not a terminal or tqdm is not installed. `done` counts the images so far.
    """

    def __init__(self, num_images: int, description: str):
        self.shown = sys.stderr.isatty() and installed("tqdm", "progress bar")
        self.done = 0
        self._bar = None
        if self.shown:
            from tqdm import tqdm

            # Updates are some steps apart, so each is shown.
            self._bar = tqdm(
                total=num_images,
                desc=description,
                unit=" images",
                leave=False,
                dynamic_ncols=True,
                mininterval=0,
                miniters=1,
            )

    def update(self, images: int, loss: float, accuracy: float) -> None:
        """Advances by `images` and shows the running `loss` and `accuracy` (0 to 1)."""
        self.done += images
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {loss:.4f}, accuracy {100 * accuracy:.1f} %", refresh=False)
            self._bar.update(images)

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.close()


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
