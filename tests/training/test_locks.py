"""One process in one workdir, whatever became of the last one."""

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from deepnmf_jax.training import locks
from deepnmf_jax.training.locks import LOCK, check_free, locked

# A process that holds the lock until it is killed.
HOLD = """
import fcntl, os, sys, time
descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(descriptor, fcntl.LOCK_EX)
os.write(descriptor, sys.argv[2].encode())
print("held", flush=True)
time.sleep(600)
"""
HOLDER = {"pid": 4711, "host": "elsewhere", "since": "2026-01-02T03:04:05+00:00"}


def test_a_second_holder_is_refused_with_the_name_of_the_first(tmp_path: Path) -> None:
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
        for another in (lambda: check_free(tmp_path), locked(tmp_path).__enter__):
            with pytest.raises(OSError, match=f"in use by process {os.getpid()} on {socket.gethostname()}, since 2"):
                another()
    assert not list(tmp_path.iterdir())
    check_free(tmp_path)
    with locked(tmp_path):
        pass


def test_a_killed_holder_gives_it_back(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / LOCK), json.dumps(HOLDER)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(OSError, match="process 4711 on elsewhere, since 2026-01-02T03:04:05"), locked(tmp_path):
            pass
        holder.kill()
    assert json.loads((tmp_path / LOCK).read_text()) == HOLDER
    check_free(tmp_path)
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("text", [json.dumps(HOLDER), "", "[]"])
def test_a_file_that_nobody_holds_locks_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / LOCK).write_text(text)
    check_free(tmp_path)
    with locked(tmp_path), pytest.raises(OSError, match="in use"):
        check_free(tmp_path)


def test_a_lock_that_was_given_back_while_it_was_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that was opened is no longer in the folder: a lock on it would keep nobody out."""
    real, calls = fcntl.flock, []

    def flock(descriptor: int, how: int) -> None:
        if not calls:
            os.unlink(tmp_path / LOCK)
        calls.append(how)
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path), pytest.raises(OSError, match="in use"):
        check_free(tmp_path)
    assert len(calls) == 3


def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path):
        assert f"the file system of {tmp_path} has no locks (No locks available)" in caplog.text
    monkeypatch.setattr(locks, "fcntl", None)
    with locked(tmp_path):
        check_free(tmp_path)


def test_a_folder_that_goes_away_is_no_second_error(tmp_path: Path) -> None:
    (folder := tmp_path / "run").mkdir()
    with locked(folder):
        (folder / LOCK).unlink()
        folder.rmdir()
