"""Checkpoints that survive kills, power cuts, full disks and flipped bytes.

On disk, in a run's workdir::

    checkpoints/latest/<step>/   the newest states
    checkpoints/best/<step>/     the best state, and the best before it
      state/  meta/  ...         what orbax wrote; orbax's own CheckpointManager can open the folder above
      manifest.sha256            the checksum of every other file, in the format of sha256sum

A checkpoint is written to `<step>.saving`, read back, and synced; the manifest is added; one rename then makes it
`<step>`. So a folder whose name is a number was complete once, and whatever happened to it since is seen by its
manifest. Older ones are removed when that rename is on the disk.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from deepnmf_jax.core.checks import check_integer
from deepnmf_jax.files import sync_folder, sync_tree
from deepnmf_jax.training import orbax_io
from deepnmf_jax.training.devices import OthersGoneError, barrier, from_all_processes
from deepnmf_jax.training.integrity import MANIFEST, check_matches, damage, named_arrays, named_leaves

_log = logging.getLogger(__name__)
_LATEST, _BEST = "latest", "best"
# Of the latest, so that there is one before a damaged one; of the best, because a resumed run may go back to before the
# newest of them (`discard_after`).
_KEPT = 2
_STEP = re.compile(r"0|[1-9][0-9]*")
_LEFTOVER = re.compile(r"^\d+\.(saving|removing)|\.orbax-checkpoint-tmp")
# As long as the longest path below the folders of latest and best can get.
_LONGEST_PATH_WITHIN = "x" * 150


class Restored(NamedTuple):
    """A checkpoint read back: its step, the state as numpy arrays in the template's tree, the meta, and its folder."""

    step: int
    state: Any
    meta: dict[str, Any]
    folder: Path


class Checkpoints:
    """The checkpoints of one run.

    Saving is synchronous: when `save` returns, the step is on disk, complete, read back and checksummed. In a run of
    several processes each makes one of these, and all call its methods at the same moments.
    """

    def __init__(self, workdir: str | os.PathLike[str]):
        """Opens `workdir`/checkpoints, making it where needed, and clears away what killed saves left.

        Raises:
          OSError: the folders cannot be made, or their paths are too long.
          ValueError: orbax can be given neither the path nor a link to it (`orbax_io.plain_path`).
        """
        self.folder = Path(workdir).absolute() / "checkpoints"
        if jax.process_index() == 0:
            for kind in (_LATEST, _BEST):
                folder = self.folder / kind
                try:
                    folder.mkdir(parents=True, exist_ok=True)
                    with contextlib.suppress(FileNotFoundError):
                        os.lstat(folder / _LONGEST_PATH_WITHIN)
                    _clear_leftovers(folder)
                    # A folder is on the disk when those that hold its name, and the names of those, are.
                    for above in (folder, *folder.parents):
                        sync_folder(above)
                except OSError as error:
                    raise OSError(error.errno, f"cannot open the checkpoints in {folder}: {error.strerror}") from error
        with orbax_io.plain_path(self.folder):
            barrier("checkpoints opened")

    def save(self, step: int, state: Any, meta: Mapping[str, Any], *, best: bool = False) -> None:
        """Saves the latest state, and the same as the best so far if `best` is set.

        A step that exists is replaced; steps after it, of a run that has since gone back, are removed. Killed
        or without power at any moment, what was there before or what is saved now can be restored.

        Args:
          step: training step, >= 0.
          state: pytree of arrays of one element or more (numpy, or jax arrays that this process reads whole).
          meta: plain JSON values to keep with it.

        Raises:
          ValueError: a negative step, a leaf that is no array of numbers, or a meta that is not JSON.
          OSError: the disk is full or not writable; older checkpoints are intact.
        """
        check_integer("step", step, 0)
        arrays = named_arrays(state)
        note = orbax_io.note_of(int(step), arrays, meta)
        # The best first: killed between the two, the run goes on from the best.
        folders = [self.folder / kind for kind in ((_BEST, _LATEST) if best else (_LATEST,))]
        written = folders[0] / f"{step}.saving"
        for folder in folders:
            staging = folder / written.name
            try:
                if staging == written:
                    orbax_io.write(staging, arrays, note)
                elif jax.process_index() == 0:
                    _copy(folders[0] / str(step), staging)
                if jax.process_index() == 0:
                    _put_in_place(staging, int(step))
                barrier("checkpoint saved")
            except OthersGoneError:
                raise
            except Exception as error:
                if jax.process_index() == 0:
                    with contextlib.suppress(OSError):
                        _clear_leftovers(folder)
                raise orbax_io.cannot_save(folder / str(step), error) from error

    def restore(self, template: Any, *, best: bool = False) -> Restored | None:
        """Reads the newest undamaged checkpoint, or None if there is none at all.

        A damaged one (a byte differs, a file is missing or new) is named in a line of the log and skipped.

        Args:
          template: pytree of arrays or `jax.ShapeDtypeStruct`s: the structure, shapes and dtypes expected.
          best: of the best alone; otherwise of all, for each holds a whole state.

        Raises:
          OSError: all checkpoints are damaged.
          RuntimeError: the processes of the run see different ones.
          ValueError: the checkpoint holds another tree than the template; each differing leaf is named.
        """
        return _restore_first(self.folder, _newest_first(self.folder, (_BEST,) if best else (_LATEST, _BEST)), template)

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
      path: the folder of one step, or a run's workdir: the newest of its best; where that is damaged, the newest of
        all others, which as a rule is one of the latest and knows the best variables as well.
      template: as for `Checkpoints.restore`.

    Raises:
      FileNotFoundError: no checkpoint there.
      OSError: the one step is damaged, or all of the workdir's are.
      ValueError: the checkpoint holds another tree than the template.
    """
    path = Path(path).absolute()
    if (path / MANIFEST).exists() or (path / "_CHECKPOINT_METADATA").exists():
        try:
            return _restore(path, template)
        except orbax_io.UnreadableError as error:
            raise OSError(errno.EIO, f"the checkpoint {path} is damaged: {error}") from error
    folder = path / "checkpoints"
    everything = _newest_first(folder, (_LATEST, _BEST))
    newest_best = _newest_first(folder, (_BEST,))[:1]
    candidates = newest_best + [other for other in everything if other not in newest_best]
    restored = _restore_first(folder, candidates, template)
    if restored is not None:
        if newest_best and restored.step < (lost := int(newest_best[0].name)):
            _log.warning("took %s: what was found best at step %d is lost", restored.folder, lost)
        return restored
    what = "holds no checkpoint" if path.exists() else "does not exist"
    raise FileNotFoundError(
        errno.ENOENT,
        f"{path} {what}; give a run's workdir (the folder with checkpoints/ in it) or one step's folder, "
        "such as WORKDIR/checkpoints/best/1000",
    )


# ---------------------------------------------------------------------------------------------------- reading


def _newest_first(folder: Path, kinds: Sequence[str]) -> list[Path]:
    """The steps' folders of these kinds, newest first; of equal steps in the order of the kinds."""
    found = [(step, folder / kind / str(step)) for kind in kinds for step in _steps(folder / kind)]
    return [path for _, path in sorted(found, key=lambda pair: -pair[0])]


def _restore_first(folder: Path, candidates: list[Path], template: Any) -> Restored | None:
    """The first of the candidates that is not damaged; None if there are none."""
    _check_same_everywhere([str(path.relative_to(folder)) for path in candidates], folder)
    for path in candidates:
        try:
            return _restore(path, template, int(path.name))
        except orbax_io.UnreadableError as error:
            _log.warning("skipped the damaged checkpoint %s: %s", path, error)
    if candidates:
        raise OSError(
            errno.EIO,
            f"all checkpoints in {folder} are damaged ({', '.join(str(c.relative_to(folder)) for c in candidates)}); "
            f"put an intact copy there, or delete {folder} to start anew",
        )
    return None


def _restore(path: Path, template: Any, step: int | None = None) -> Restored:
    reason = damage(path)
    _check_same_everywhere([path.name, bool(reason)], path)
    if reason:
        raise orbax_io.UnreadableError(reason)
    content = orbax_io.read(path)
    if step is not None and content.step != step:
        raise orbax_io.UnreadableError(f"it is the checkpoint of step {content.step}")
    check_matches(content.arrays, template, path)
    leaves = [content.arrays[name] for name, _ in named_leaves(template)]
    return Restored(content.step, jax.tree.unflatten(jax.tree.structure(template), leaves), content.meta, path)


def _check_same_everywhere(found: object, folder: Path) -> None:
    digest = np.frombuffer(hashlib.sha256(repr(found).encode()).digest(), np.int32)
    if (from_all_processes(digest) != digest).any():
        raise RuntimeError(
            f"the processes of this run see different checkpoints in {folder} (this one: {found}); "
            "the workdir must be on a disk that all of them share"
        )


# ---------------------------------------------------------------------------------------------------- folders


def _copy(source: Path, folder: Path) -> None:
    """A copy of a checkpoint that is on the disk and agrees with its manifest."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    sync_tree(folder)
    if reason := damage(folder):
        raise OSError(errno.EIO, f"the copy of {source} is wrong: {reason}")


def _put_in_place(staging: Path, step: int) -> None:
    """Gives a complete checkpoint its name, and removes those after it and all but two before it."""
    folder = staging.parent
    final, aside = folder / str(step), folder / f"{step}.replaced"
    if final.exists():
        os.rename(final, aside)
    os.rename(staging, final)
    # What is older goes only when the new one is sure to be found.
    sync_folder(folder)
    _remove(aside)
    for other in [s for s in _steps(folder) if s > step] + _steps(folder)[_KEPT:]:
        _remove(folder / str(other))


def _steps(folder: Path) -> list[int]:
    """The steps saved in a folder, newest first."""
    if not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if _STEP.fullmatch(path.name) and path.is_dir())
    return sorted((int(path.name) for path in found), reverse=True)


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
