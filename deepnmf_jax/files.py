"""Files that are whole or not there, whenever a process is killed or the power is cut, and that show their damage."""

import contextlib
import errno
import hashlib
import io
import math
import os
import zipfile
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

import numpy as np

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
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


def arrays_in(content: bytes) -> dict[str, np.ndarray]:
    """The arrays in the bytes of an .npz file, by name. Runs no code, and takes no more memory than there are bytes.

    Each array is read to its end, so that the checksum of the zip format is looked at.

    Raises:
        ValueError: the file is damaged, or holds something else than arrays of numbers; the array is named.
    """
    arrays: dict[str, np.ndarray] = {}
    name = ""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > len(content) + sum(
                _unfolded(member) for member in members
            ):
                raise ValueError("it declares more bytes than it can hold")
            for member in members:
                name = member.filename.removesuffix(".npy")
                if name in arrays:
                    raise ValueError("it is there twice")
                arrays[name] = _array_in(archive.read(member))
    except Exception as error:  # zipfile, zlib and numpy raise a dozen kinds over wrong bytes
        where = f"array {name!r}: " if name else ""
        raise ValueError(f"{where}{str(error) or type(error).__name__}") from error
    return arrays


def _unfolded(member: zipfile.ZipInfo) -> int:
    """Bytes that a compressed member may add by being unfolded: deflate reaches a thousandth."""
    return 0 if member.compress_type == zipfile.ZIP_STORED else 1100 * member.compress_size


def _array_in(content: bytes) -> np.ndarray:
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"version {version} of numpy's format is not known here")
    shape, by_columns, dtype = _HEADERS[version](stream)
    there = len(content) - stream.tell()
    if dtype.hasobject or dtype.fields:
        raise ValueError(f"its dtype is {dtype}, not one of plain numbers")
    if math.prod(shape) * dtype.itemsize != there:
        raise ValueError(f"its header says {dtype} {shape}, but {there} bytes of data follow")
    flat = np.frombuffer(content, dtype, offset=stream.tell())
    return np.array(flat.reshape(shape, order="F" if by_columns else "C"))
