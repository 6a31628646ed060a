"""Checkpoints that survive kills, full disks and flipped bytes. Orbax is used only here.

On disk, in a run's workdir::

    checkpoints/latest/<step>/   the newest states
    checkpoints/best/<step>/     the best state, and the best before it
      state/  meta/  ...         what orbax wrote; orbax's own CheckpointManager can open the folder above
      manifest.sha256            the checksum of every other file, in the format of sha256sum

Orbax writes to `<step>.saving`; the manifest is added; one rename then makes it `<step>`. So a folder whose
name is a number was complete once, and whatever happened to it since is seen by its manifest.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from deepnmf_jax.core.checks import check_integer
from deepnmf_jax.files import sync_folder
from deepnmf_jax.training.devices import barrier, from_all_processes
from deepnmf_jax.training.integrity import (
    MANIFEST,
    check_matches,
    damage,
    digest_of,
    named_arrays,
    named_leaves,
    nested,
    write_manifest,
)

_LATEST, _BEST = "latest", "best"
# Of the latest, so that there is one before a damaged one; of the best, because a resumed run may go back to before the
# newest of them (`discard_after`).
_KEPT = 2
_LEFTOVER = re.compile(r"^\d+\.(saving|removing)|\.orbax-checkpoint-tmp")


class Restored(NamedTuple):
    """A checkpoint read back: its step, the state as numpy arrays in the template's tree, and the meta."""

    step: int
    state: Any
    meta: dict[str, Any]


class _DamagedError(Exception):
    """A step's folder that is not what was saved; the message is the reason."""


class Checkpoints:
    """The checkpoints of one run.

    Saving is synchronous: when `save` returns, the step is on disk, complete and checksummed. In a run of
    several processes each makes one of these, and all call its methods at the same moments.
    """

    def __init__(self, workdir: str | os.PathLike[str]):
        """Opens `workdir`/checkpoints, making it where needed, and clears away what killed saves left.

        Raises:
          OSError: the folders cannot be made.
        """
        self.folder = Path(workdir).absolute() / "checkpoints"
        if jax.process_index() == 0:
            for kind in (_LATEST, _BEST):
                folder = self.folder / kind
                try:
                    folder.mkdir(parents=True, exist_ok=True)
                    _clear_leftovers(folder)
                except OSError as error:
                    raise OSError(error.errno, f"cannot open the checkpoints in {folder}: {error.strerror}") from error
        barrier("checkpoints opened")

    def save(self, step: int, state: Any, meta: Mapping[str, Any], *, best: bool = False) -> None:
        """Saves the latest state, and the same as the best so far if `best` is set.

        A step that exists is replaced; steps after it, of a run that has since gone back, are removed. Killed
        at any moment, what was there before or what is saved now can be restored.

        Args:
          step: training step, >= 0.
          state: pytree of arrays of one element or more (numpy, or jax arrays that this process reads whole).
          meta: plain JSON values to keep with it.

        Raises:
          ValueError: a negative step, a leaf that is no array of numbers, or a meta that is not JSON.
          OSError: the disk is full or not writable; older checkpoints are intact.
        """
        check_integer("step", step, 0)
        leaves = named_arrays(state)
        digest = digest_of(leaves)
        try:
            note = json.loads(json.dumps({"step": int(step), "content": digest, "meta": dict(meta)}))
        except TypeError as error:
            raise ValueError(f"meta must hold plain JSON values ({error}), got {meta!r}") from error
        # The best first: killed between the two, the run resumes before this step and saves both again.
        for kind in (_BEST, _LATEST) if best else (_LATEST,):
            folder = self.folder / kind
            try:
                self._save(folder, int(step), nested(leaves), note)
            except Exception as error:
                if jax.process_index() == 0:
                    with contextlib.suppress(OSError):
                        _clear_leftovers(folder)
                raise _cannot_save(folder / str(step), error) from error

    def _save(self, folder: Path, step: int, tree: dict[str, Any], note: dict[str, Any]) -> None:
        staging, final, aside = (folder / f"{step}{suffix}" for suffix in (".saving", "", ".replaced"))
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(tree), meta=ocp.args.JsonSave(note))
        with _checkpointer() as checkpointer:
            checkpointer.save(staging, args=arguments, force=True)
        if jax.process_index() == 0:
            write_manifest(staging)
            if final.exists():
                os.rename(final, aside)
            os.rename(staging, final)
            sync_folder(folder)
            _remove(aside)
            for other in [s for s in _steps(folder) if s > step] + _steps(folder)[_KEPT:]:
                _remove(folder / str(other))
        barrier("checkpoint saved")

    def restore(self, template: Any, *, best: bool = False) -> Restored | None:
        """Reads the newest undamaged checkpoint, or None if there is none at all.

        A damaged one (a byte differs, a file is missing or new) is named in a warning and skipped.

        Args:
          template: pytree of arrays or `jax.ShapeDtypeStruct`s: the structure, shapes and dtypes expected.
          best: of the best instead of the latest.

        Raises:
          OSError: all checkpoints are damaged.
          RuntimeError: the processes of the run see different ones.
          ValueError: the checkpoint holds another tree than the template; each differing leaf is named.
        """
        return _restore_newest(self.folder / (_BEST if best else _LATEST), template)

    def discard_after(self, step: int) -> None:
        """Removes the checkpoints after `step`, for a run that goes on from there (0: from the start)."""
        if jax.process_index() == 0:
            for folder in (self.folder / kind for kind in (_LATEST, _BEST)):
                for later in (s for s in _steps(folder) if s > step):
                    _remove(folder / str(later))
        barrier("later checkpoints discarded")


def restore_path(path: str | os.PathLike[str], template: Any) -> Restored:
    """Reads a checkpoint by its path, changing nothing on disk.

    Args:
      path: a run's workdir (its best, else its latest), or the folder of one step.
      template: as for `Checkpoints.restore`.

    Raises:
      FileNotFoundError: no checkpoint there.
      OSError: the one step is damaged, or all of the workdir's are.
      ValueError: the checkpoint holds another tree than the template.
    """
    path = Path(path).absolute()
    if (path / MANIFEST).exists() or (path / "_CHECKPOINT_METADATA").exists():
        try:
            if reason := damage(path):
                raise _DamagedError(reason)
            return _read(path, template)
        except _DamagedError as error:
            raise OSError(errno.EIO, f"the checkpoint {path} is damaged: {error}") from error
    for kind in (_BEST, _LATEST):
        restored = _restore_newest(path / "checkpoints" / kind, template)
        if restored is not None:
            return restored
    what = "holds no checkpoint" if path.exists() else "does not exist"
    raise FileNotFoundError(
        errno.ENOENT,
        f"{path} {what}; give a run's workdir (the folder with checkpoints/ in it) or one step's folder, "
        "such as WORKDIR/checkpoints/best/1000",
    )


# ---------------------------------------------------------------------------------------------------- reading


def _restore_newest(folder: Path, template: Any) -> Restored | None:
    reports = [(step, damage(folder / str(step))) for step in _steps(folder)]
    _check_same_everywhere([(step, not reason) for step, reason in reports], folder)
    for step, reason in reports:
        try:
            if reason:
                raise _DamagedError(reason)
            return _read(folder / str(step), template, step)
        except _DamagedError as error:
            warnings.warn(f"skipped the damaged checkpoint {folder / str(step)}: {error}", stacklevel=3)
    if reports:
        raise OSError(
            errno.EIO,
            f"all checkpoints in {folder} are damaged (steps {', '.join(str(step) for step, _ in reports)}); "
            f"put an intact copy there, or delete {folder.parent} to start anew",
        )
    return None


def _check_same_everywhere(found: object, folder: Path) -> None:
    digest = np.frombuffer(hashlib.sha256(repr(found).encode()).digest(), np.int32)
    if (from_all_processes(digest) != digest).any():
        raise RuntimeError(
            f"the processes of this run see different checkpoints in {folder} (this one: {found}); "
            "the workdir must be on a disk that all of them share"
        )


def _read(folder: Path, template: Any, step: int | None = None) -> Restored:
    arguments = ocp.args.Composite(state=ocp.args.StandardRestore(), meta=ocp.args.JsonRestore())
    try:
        with _checkpointer() as checkpointer:
            content = checkpointer.restore(folder, args=arguments)
        note = content["meta"]
        stored_step, digest, meta = int(note["step"]), note["content"], note["meta"]
        stored = named_arrays(content["state"])
    except Exception as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise _DamagedError(f"orbax cannot read it: {type(error).__name__}: {reason}") from error
    if digest_of(stored) != digest:
        raise _DamagedError("the arrays differ from those that were saved")
    if step is not None and stored_step != step:
        raise _DamagedError(f"it is the checkpoint of step {stored_step}")
    check_matches(stored, template, folder)
    names = [name for name, _ in named_leaves(template)]
    state = jax.tree.unflatten(jax.tree.structure(template), [stored[name] for name in names])
    return Restored(stored_step, state, meta)


# ------------------------------------------------------------------------------------------ folders and orbax


def _steps(folder: Path) -> list[int]:
    """The steps saved in a folder, newest first."""
    if not folder.is_dir():
        return []
    return sorted((int(path.name) for path in folder.iterdir() if path.name.isdecimal()), reverse=True)


def _remove(folder: Path) -> None:
    # Renamed first: killed half-way, no folder with a step's name is left in pieces.
    if folder.exists():
        doomed = folder.with_name(f"{folder.name.removesuffix('.replaced')}.removing")
        shutil.rmtree(doomed, ignore_errors=True)
        os.rename(folder, doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def _clear_leftovers(folder: Path) -> None:
    for path in list(folder.iterdir()):
        if path.name.endswith(".replaced"):
            final = path.with_name(path.name.removesuffix(".replaced"))
            if final.exists():
                _remove(path)
            else:
                os.rename(path, final)
        elif _LEFTOVER.search(path.name):
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _checkpointer() -> Iterator[ocp.Checkpointer]:
    # Orbax would log the tracebacks of its threads; what they raise is raised by its call too.
    with contextlib.ExitStack() as stack:
        for quiet in map(logging.getLogger, ("absl", "asyncio", "concurrent.futures")):
            stack.callback(quiet.setLevel, quiet.level)
            quiet.setLevel(logging.CRITICAL + 1)
        # A new one each time: one that has failed to write may not be used again.
        yield stack.enter_context(contextlib.closing(ocp.Checkpointer(ocp.CompositeCheckpointHandler())))


def _cannot_save(folder: Path, error: Exception) -> OSError:
    # TensorStore raises ValueError with the system's error code in its text.
    code = re.search(r"os_error_code='(\d+)'", str(error))
    number = int(code.group(1)) if code else getattr(error, "errno", None) or errno.EIO
    reason = os.strerror(number) if code or isinstance(error, OSError) else f"{type(error).__name__}: {error}"
    return OSError(number, f"cannot write the checkpoint {folder}: {reason}; older ones beside it are intact")
