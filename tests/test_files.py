"""A file is the old or the new one, whatever stops the writing of it."""

import os
from pathlib import Path

import numpy as np
import pytest

from deepnmf_jax.files import open_regular, write_atomically
from tests.disks import largest_file


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_text_bytes_and_what_a_function_writes(tmp_path):
    path = tmp_path / "a"
    for content, written in (
        ("σ\n", "σ\n".encode()),
        (b"\x00\xff", b"\x00\xff"),
        (lambda file: file.write(b"by hand"), b"by hand"),
        ("", b""),
    ):
        write_atomically(path, content)
        assert path.read_bytes() == written
    # Whatever the name ends in, numpy adds nothing to it.
    write_atomically(str(path), lambda file: np.savez(file, x=np.arange(3)))
    with np.load(path) as file:
        assert file["x"].tolist() == [0, 1, 2]
    assert names(tmp_path) == {"a"}


def test_what_cannot_be_written_leaves_the_old(tmp_path):
    path = tmp_path / "a.json"
    write_atomically(path, "old")
    for content in ("n" * 1000, lambda file: file.write(bytes(1000))):
        with largest_file(10), pytest.raises(OSError, match=r"cannot write \S*a.json: File too large"):
            write_atomically(path, content)
    with pytest.raises(FileNotFoundError, match=r"cannot write \S*nowhere/a: No such file"):
        write_atomically(tmp_path / "nowhere" / "a", "new")
    assert path.read_text() == "old" and names(tmp_path) == {"a.json"}


def test_an_error_of_the_function_is_raised_and_leaves_the_old(tmp_path):
    def fail(file):
        file.write(b"half")
        raise KeyboardInterrupt

    write_atomically(tmp_path / "a", "old")
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a", fail)
    assert (tmp_path / "a").read_text() == "old" and names(tmp_path) == {"a"}


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_kill_at_the_last_moment_leaves_the_old(tmp_path, monkeypatch, call):
    """Nothing is cleared away after a kill, and the next writing does not mind what is left."""

    class KilledError(BaseException):
        pass

    def kill(*arguments):
        raise KilledError

    write_atomically(tmp_path / "a", "old")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, kill)
        patch.setattr(Path, "unlink", lambda *arguments, **options: None)
        with pytest.raises(KilledError):
            write_atomically(tmp_path / "a", "new and longer")
    assert (tmp_path / "a").read_text() == "old" and names(tmp_path) == {"a", "a.tmp"}
    write_atomically(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new" and names(tmp_path) == {"a"}


def test_only_files_are_opened(tmp_path: Path) -> None:
    """A pipe would be waited for without end, a device read without end."""
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"abc"
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    for name in ("pipe", "device"):
        with pytest.raises(OSError, match="it is no regular file"):
            open_regular(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "nothing")
    # Nor is such a thing waited for where a file is written.
    os.mkfifo(tmp_path / "new.tmp")
    write_atomically(tmp_path / "new", "text")
    assert (tmp_path / "new").read_text() == "text"
    assert not (tmp_path / "new.tmp").exists()
