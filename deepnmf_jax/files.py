"""Files that are whole or not there, whenever the process that writes them is killed."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


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
        with open(temporary, "wb") as file:
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


def sync_folder(folder: Path) -> None:
    """Makes renames inside `folder` survive a power failure, where the file system can promise that."""
    # Some network file systems refuse fsync on a folder; the renames themselves are done.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
