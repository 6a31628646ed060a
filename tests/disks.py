"""Disks that are full, small, read-only (also for root) or without power."""

import contextlib
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A file system of its own in a new folder; skips the test where mounting is not permitted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


class Image:
    """An ext4 file system in a file, made where there is none; mounted beside it while the context is open.

    Skips the test where that is not permitted.
    """

    def __init__(self, path: Path):
        self.path, self.folder = path, path.with_name(f"{path.name}.mounted")

    def __enter__(self) -> Self:
        if not self.path.exists():
            with open(self.path, "wb") as file:
                file.truncate(16 * 2**20)
            self._call("mkfs.ext4", "-q", str(self.path))
        self.folder.mkdir()
        # Nothing is written but what is synced: the file system's own turn comes after minutes.
        self._call("mount", "-o", "loop,commit=300", str(self.path), str(self.folder))
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    def copy(self, path: Path) -> None:
        """What is on the disk at this moment, which is what a power cut leaves."""
        shutil.copyfile(self.path, path)

    @staticmethod
    def _call(*command: str) -> None:
        if shutil.which(command[0]) is None or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip(f"{command[0]} is not there, or not permitted")


def make_read_only(folder: Path) -> None:
    """The disk that `small_disk` has mounted there can no longer be written to."""
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


@contextlib.contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """Makes the system refuse larger files to this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
