"""Arrays out of a zip archive of numpy that somebody else made: read whole, or refused in a sentence.

The archive may be damaged, or made to do harm. No code in it is run, sizes that it declares are checked before memory
is taken, and every array is read to its end, where zip's own checksum is compared.
"""

import errno
import math
import os
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

import numpy as np

# How many times their own size files may unfold to. Photographs shrink to a half, drawings to a twentieth; deflate
# reaches a thousandth.
MOST_UNFOLDED = 100
# What unfolds to no more than this, in bytes, is read however small the file: its images may be black.
ALWAYS_ALLOWED = 2**28
# numpy writes the first two. Of bzip2 four thousand bytes can unfold to gigabytes at once, whatever size is declared.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA)
# Bytes of the record that ends an archive; the number of entries is at 10.
_END = 22
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def existing_file(path: str | os.PathLike[str], advice: str = "") -> Path:
    """The path of a file, its ~ resolved.

    Raises:
      FileNotFoundError: there is nothing of that name; `advice` ends the message.
      ValueError: it is a folder, a pipe or a device; opening one of the latter could wait for ever.
    """
    path = Path(os.path.expanduser(path))
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path} (looked in {path.parent.resolve()}){advice}")
    if not path.is_file():
        raise ValueError(f"{path} cannot be read: it is {'a folder' if path.is_dir() else 'a pipe or device'}, no file")
    return path


def check_unfolded(size: int, stored: int) -> None:
    """ValueError if `size` bytes are too many to come out of `stored` ones, or for the memory of this machine."""
    allowed = max(ALWAYS_ALLOWED, MOST_UNFOLDED * stored)
    if size > allowed:
        raise ValueError(
            f"its {stored:,} bytes would unfold to {size:,}, of which {allowed:,} are allowed; "
            "if that is right, write it uncompressed"
        )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory:
        raise ValueError(f"it holds {size:,} bytes, more than the {memory:,} of memory here")


def read_arrays(source: Path | BinaryIO, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Those of the arrays `names` that are in an archive, without pickle.

    Args:
      source: path of an archive as `numpy.savez` or `numpy.savez_compressed` writes it, or the opened file.
      names: of the arrays to read; others are not looked at. None: all.

    Raises:
      ValueError: the archive or one of these arrays is damaged, is no plain array, is there twice, or is larger than
        `check_unfolded` allows. The message names the array, not the file.
      OSError: the file cannot be read.
    """
    arrays = {}
    with _archive(source) as (archive, size):
        members: dict[str, zipfile.ZipInfo] = {}
        for member in archive.infolist():
            name = _name(member)
            if name in members:
                raise ValueError(f"{name} is in it twice")
            with _named_errors(f"{name}: "), archive.open(member):
                pass  # compares its two names: a damaged one must not pass for an array that is nobody's
            if names is None or name in names:
                members[name] = member
        check_unfolded(sum(member.file_size for member in members.values()), size)
        for name, member in members.items():
            with _named_errors(f"{name}: "):
                arrays[name] = _read_array(archive, member)
    return arrays


def held_names(source: Path | BinaryIO) -> list[str]:
    """Names of all arrays in an archive, sorted. Raises as `read_arrays`."""
    with _archive(source) as (archive, _):
        return sorted(map(_name, archive.infolist()))


@contextmanager
def _named_errors(before: str = "") -> Iterator[None]:
    """Makes every error over wrong bytes a ValueError: zipfile, zlib, lzma and numpy have a dozen kinds of them."""
    try:
        yield
    except Exception as error:
        # Of OSErrors only one is the file's fault: an offset that leads before its beginning.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise ValueError(f"{before}{error or type(error).__name__}") from error


@contextmanager
def _archive(source: Path | BinaryIO) -> Iterator[tuple[zipfile.ZipFile, int]]:
    """The archive, and the bytes that it has."""
    with source.open("rb") if isinstance(source, Path) else nullcontext(source) as file, _named_errors():
        size = file.seek(0, os.SEEK_END)
        check_unfolded(size, size)  # of a sparse file that is larger than any memory
        with zipfile.ZipFile(file) as archive:
            # A damaged length in the directory can swallow the next entry, which zipfile does not notice.
            file.seek(-_END - len(archive.comment), os.SEEK_END)
            number = int.from_bytes(file.read(_END)[10:12], "little")
            if number not in (len(archive.infolist()), 2**16 - 1):
                raise ValueError(f"its directory has {len(archive.infolist())} entries, where {number} were written")
            yield archive, size


def _name(member: zipfile.ZipInfo) -> str:
    return member.filename.removesuffix(".npy")


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    if member.compress_type not in _METHODS:
        raise ValueError(f"it is compressed by method {member.compress_type}, where numpy uses 0 and 8")
    with archive.open(member) as content:
        version = np.lib.format.read_magic(content)
        if version not in _HEADERS:
            raise ValueError(f"it has version {version} of numpy's format, where plain arrays have (1, 0) or (2, 0)")
        shape, _, dtype = _HEADERS[version](content)
        there = member.file_size - content.tell()
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which could run code; write plain numbers or strings")
    if math.prod(shape) * dtype.itemsize != there:
        raise ValueError(f"its header says {dtype} {shape}, but {there:,} bytes of data follow")
    with archive.open(member) as content:
        return np.lib.format.read_array(content, allow_pickle=False)
