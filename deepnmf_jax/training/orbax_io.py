"""Arrays and a note in one folder, by orbax: written, synced, read back, and checksummed."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from deepnmf_jax.files import sync_tree
from deepnmf_jax.training.devices import barrier, from_all_processes
from deepnmf_jax.training.integrity import Name, digest_of, named_arrays, nested, write_manifest
from deepnmf_jax.training.orbax_interfaces import interface_of

# What orbax and TensorStore take for nothing but a path; brackets and the like are patterns to them, and a backslash
# is a separator.
_PLAIN = re.compile(r"[A-Za-z0-9_./+=,@-]*")


class UnreadableError(Exception):
    """A folder that does not hold what was written to it; the message is the reason."""


class Content(NamedTuple):
    """What a folder holds: the step, the arrays by their names with their digest, and the meta."""

    step: int
    digest: str
    arrays: dict[Name, np.ndarray]
    meta: dict[str, Any]


def note_of(step: int, arrays: Mapping[Name, np.ndarray], meta: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object that is kept beside the arrays.

    Raises:
      ValueError: a meta that is not JSON.
    """
    note = {"step": step, "content": digest_of(arrays), "meta": dict(meta)}
    try:
        return dict(json.loads(json.dumps(note)))
    except TypeError as error:
        raise ValueError(f"meta must hold plain JSON values ({error}), got {meta!r}") from error


def write(folder: Path, arrays: Mapping[Name, np.ndarray], note: dict[str, Any]) -> None:
    """Writes a folder, replacing one that is there. When it returns, all of it but the folder's own name is on the
    disk, it has been read back, and its manifest is written. All processes of a run call it at one moment.

    Raises:
      OSError: it cannot be written, or what is read back is not what was given.
    """
    with plain_path(folder.parent) as parent, _quiet():
        interface_of().save(parent / folder.name, nested(arrays), note)
    reason = ""
    try:
        content = read(folder)
        # The first process alone has written its meta.
        meta = content.meta if jax.process_index() == 0 else note["meta"]
        if note != {"step": content.step, "content": content.digest, "meta": meta}:
            reason = "it differs from what was given"
    except UnreadableError as error:
        reason = str(error)
    if from_all_processes(np.int32(bool(reason))).any():
        raise OSError(errno.EIO, f"what was written cannot be read back: {reason or 'in another process'}")
    if jax.process_index() == 0:
        # Orbax leaves its small files to the system, which writes them some seconds later.
        sync_tree(folder)
        write_manifest(folder)
    barrier("checkpoint written")


def read(folder: Path) -> Content:
    """Reads a folder, changing nothing in it.

    Raises:
      UnreadableError: it does not hold what was written.
    """
    try:
        with plain_path(folder) as plain, _quiet():
            tree, note = interface_of().load(plain)
        step, digest, meta = int(note["step"]), note["content"], dict(note["meta"])
        arrays = named_arrays(tree)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise UnreadableError(f"orbax cannot read it: {type(error).__name__}: {reason}") from error
    if digest_of(arrays) != digest:
        raise UnreadableError("the arrays differ from those that were saved")
    return Content(step, digest, arrays, meta)


@contextlib.contextmanager
def plain_path(folder: Path) -> Iterator[Path]:
    """A path to the folder in which orbax finds no pattern: its own, or for as long as needed a link to it.

    Raises:
      ValueError: the folder for temporary files, where the link would be, has such a path itself.
      OSError: the link cannot be made.
    """
    if _PLAIN.fullmatch(str(folder)):
        yield folder
        return
    temporary = tempfile.gettempdir()
    if not _PLAIN.fullmatch(temporary):
        raise ValueError(
            f"neither the workdir's path nor that of the folder for temporary files, {temporary!r}, may be given to "
            "orbax; set TMPDIR to a folder whose path has letters and digits alone, or choose such a workdir"
        )
    with tempfile.TemporaryDirectory(prefix="deepnmf_jax-", dir=temporary) as home:
        link = Path(home) / "folder"
        link.symlink_to(folder, target_is_directory=True)
        yield link


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # Orbax would log the tracebacks of its threads; what they raise is raised by its call too.
    with contextlib.ExitStack() as stack:
        for quiet in map(logging.getLogger, ("absl", "asyncio", "concurrent.futures")):
            stack.callback(quiet.setLevel, quiet.level)
            quiet.setLevel(logging.CRITICAL + 1)
        yield


def cannot_save(folder: Path, error: Exception) -> OSError:
    """The error of a checkpoint that could not be saved, in one sentence, with the system's error number."""
    # TensorStore raises ValueError with the system's error code in its text.
    code = re.search(r"os_error_code='(\d+)'", str(error))
    number = int(code.group(1)) if code else getattr(error, "errno", None) or errno.EIO
    if code:
        reason = os.strerror(number)
    else:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else f"{type(error).__name__}: {error}"
    return OSError(number, f"cannot write the checkpoint {folder}: {reason}; older ones beside it are intact")
