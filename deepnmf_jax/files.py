"""Files that are whole or not there, whenever a process is killed or the power is cut, and that show their damage."""

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

import numpy as np

# With which systems and users' rights say that a folder cannot be synced.
_NOT_OFFERED = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR}


def write_atomically(path: str | os.PathLike[str], content: str | bytes | Callable[[BinaryIO], object]) -> None:
    """Writes a file so that at every moment `path` is the old file or the new one, never a part of one.

    Args:
        path: of the file; its folder must exist.
        content: text (UTF-8), bytes, or a function that writes to the binary file that it is given, such as
            `lambda file: np.savez(file, **arrays)`.

    Raises:
        OSError: the file cannot be written (full disk, read-only folder); the old file is intact.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        # What a killed write has left, or a pipe of that name, which would be waited for.
        temporary.unlink(missing_ok=True)
        with open(temporary, "xb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise OSError(error.errno, f"cannot write {path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """Opens a file to be read, if it is one: a pipe would be waited for without end, a device read without end.

    Raises:
        OSError: the file is not there, may not be read, or is no regular file.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return open(path, "rb")


def sync_folder(folder: Path) -> None:
    """Makes the names inside `folder` survive a power cut, where the file system can promise that.

    Raises:
        OSError: the disk has failed.
    """
    try:
        _sync(folder)
    except OSError as error:
        # Some network file systems refuse fsync on a folder, and one above the user's own may not be opened.
        if error.errno not in _NOT_OFFERED:
            raise


def sync_tree(folder: Path) -> None:
    """Makes all that is in `folder`, from the inside out, survive a power cut; its own name is in its parent.

    Raises:
        OSError: a file cannot be read, or the disk has failed.
    """
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            _sync(Path(place, name))
        sync_folder(Path(place))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checksum(content: bytes | np.ndarray) -> str:
    """SHA-256 of bytes, or of an array with its dtype and shape, as hexadecimal digits."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    described = f"{content.dtype.str} {content.shape}\n".encode()
    return hashlib.sha256(described + content.tobytes()).hexdigest()
