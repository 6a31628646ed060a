"""One run in one workdir: a lock that the system gives back when its holder dies, however it dies."""

import contextlib
import datetime
import errno
import json
import logging
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from deepnmf_jax.training.devices import from_all_processes

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_log = logging.getLogger(__name__)
LOCK = "lock.json"
# Those who only look at a lock hold it for a moment.
_TRIES, _PAUSE = 5, 0.1


def make_workdir(workdir: str | os.PathLike[str]) -> Path:
    """Makes a workdir where there is none, and sees whether it can be written to; returns its path.

    Raises:
        OSError: it cannot be made or written to (read-only, a file is in the way, a full disk).
    """
    workdir = Path(workdir)
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
    return workdir


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Keeps other processes out of a workdir that exists, until the block ends or this process dies.

    The lock is the system's (`flock`), on the file `lock.json`, which says who holds it: a file that a killed process
    left, or that was copied with the folder, locks nothing. In a run of several processes the first one locks for all.

    Raises:
        OSError: another process has it; the message says which, where and since when.
    """
    refusal, descriptor = "", None
    if jax.process_index() == 0:
        refusal, descriptor = _acquire(workdir)
    # All processes of a run end together: otherwise the others would wait for the first.
    if from_all_processes(np.int32(bool(refusal))).any():
        raise OSError(refusal or f"the workdir {workdir} is in use, says the first process of this run")
    try:
        yield
    finally:
        if descriptor is not None:
            # Removed while it is held; who opened it meanwhile sees that it is no longer there.
            with contextlib.suppress(OSError):
                os.unlink(workdir / LOCK)
            os.close(descriptor)


def check_free(workdir: str | os.PathLike[str]) -> None:
    """OSError, as `locked` raises it, if a process has this workdir now; nothing is written.

    For what comes before a run may write: data are not read in vain.
    """
    path = Path(workdir) / LOCK
    if fcntl is None or jax.process_count() > 1 or not path.is_file():
        return
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OSError(_refusal(path)) from None
    except OSError:
        return
    finally:
        os.close(descriptor)


def _acquire(workdir: Path) -> tuple[str, int | None]:
    """Why not, or "" and the descriptor that holds the lock; None where the file system has no locks."""
    path = workdir / LOCK
    if fcntl is None:
        return "", None
    for _ in range(_TRIES):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_there(path, descriptor):
                _sign(descriptor)
                return "", descriptor
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                os.close(descriptor)
                _log.warning(
                    "the file system of %s has no locks (%s): nothing keeps a second run out of it, so start none",
                    workdir, error.strerror,
                )  # fmt: skip
                return "", None
        os.close(descriptor)
        time.sleep(_PAUSE)
    return _refusal(path), None


def _is_there(path: Path, descriptor: int) -> bool:
    """Whether the file that was opened is still the one at `path`, and was not removed by its last holder."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except OSError:
        return False


def _sign(descriptor: int) -> None:
    since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
    # On a full disk the lock holds all the same.
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{json.dumps(holder)}\n".encode(), 0)


def _refusal(path: Path) -> str:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        holder = f"process {found['pid']} on {found['host']}, since {found['since']}"
    except (OSError, ValueError, TypeError, KeyError):
        holder = f"a process that {path} does not name"
    return (
        f"the workdir {path.parent} is in use by {holder}; wait for its end or stop it (the same command then goes on "
        "from what it saved), or choose another --workdir"
    )
