"""main.py where its output goes wrong or others are in its way: it ends in order and says why in one sentence."""

import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import pytest

from deepnmf_jax.training import devices
from deepnmf_jax.training.locks import locked
from tests.programs import NUM_EPOCHS, ROOT, STEPS_PER_EPOCH, Finished, Programs, metrics, stop_at, tensorboard_scalars

# Ctrl-C while a module is imported.
STOP_IN_IMPORT = """
import os, runpy, signal, sys
class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Stop())
sys.argv = ["main.py", "--config=configs/quickstart.py", "--mode=summary"]
sys.path.insert(0, ".")
runpy.run_path("main.py", run_name="__main__")
"""


def assert_one_line(ended: Finished, expected: str) -> None:
    """The last line of a program is what it says of its end, and no traceback is around it."""
    lines = ended.stderr.splitlines()
    assert expected in lines[-1] and "Traceback" not in ended.stderr, ended.stderr
    # The lines of the log begin with the time.
    assert all(line[:2].isdigit() for line in lines[:-1]), ended.stderr


def _close_and_make_noise() -> None:
    """Closes all streams, as a daemon's; a library writes to descriptor 2 all the same."""
    from deepnmf_jax.training import records

    append = records.MetricsLog.append

    def noisy(*arguments: object) -> None:
        os.write(2, b"noise")
        append(*arguments)  # type: ignore[arg-type]

    records.MetricsLog.append = noisy  # type: ignore[method-assign]
    for descriptor in range(3):
        os.close(descriptor)
    sys.stdin = sys.stdout = sys.stderr = None  # type: ignore[assignment]


def _remove_at_second_epoch(workdir: Path) -> None:
    from deepnmf_jax.training import records

    append = records.MetricsLog.append

    def removing(log: records.MetricsLog, record: dict[str, object]) -> None:
        append(log, record)
        if record["epoch"] == 2:
            shutil.rmtree(workdir)

    records.MetricsLog.append = removing  # type: ignore[method-assign,assignment]


def _lose_permissions_at_second_epoch(workdir: Path) -> None:
    """Nothing in the workdir can be written from then on: its owner has changed, or its modes."""
    from deepnmf_jax.training import records

    append = records.MetricsLog.append

    def losing(log: records.MetricsLog, record: dict[str, object]) -> None:
        append(log, record)
        if record["epoch"] == 2:
            for folder in (workdir, *(path for path in workdir.rglob("*") if path.is_dir())):
                folder.chmod(0o555)
            if os.geteuid() == 0:  # whom modes do not stop
                os.seteuid(65534)

    records.MetricsLog.append = losing  # type: ignore[method-assign,assignment]


def _fail_at_second_save() -> None:
    from deepnmf_jax.training.checkpoints import Checkpoints

    save, calls = Checkpoints.save, []

    def failing(*arguments: object, **options: object) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise OSError(28, "cannot write the checkpoint: No space left on device; older ones beside it are intact")
        save(*arguments, **options)  # type: ignore[arg-type]

    Checkpoints.save = failing  # type: ignore[method-assign]


@pytest.mark.slow
class TestRun:
    def test_without_streams_in_the_home_folder(self, programs: Programs, tmp_path: Path) -> None:
        programs.run("--workdir=~/runs/first", change=_close_and_make_noise, HOME=str(tmp_path))
        workdir = tmp_path / "runs" / "first"
        assert workdir.is_dir() and not (ROOT / "~").exists()
        steps = [line["step"] for line in metrics(workdir)]
        assert steps == [STEPS_PER_EPOCH * epoch for epoch in range(1, NUM_EPOCHS + 1)]
        assert list(tensorboard_scalars(workdir)["train_loss"]) == steps
        assert not (workdir / "lock.json").exists() and (workdir / "results.json").exists()

    def test_a_workdir_that_vanishes(self, programs: Programs, tmp_path: Path) -> None:
        change = partial(_remove_at_second_epoch, tmp_path / "run")
        ended = programs.run(f"--workdir={tmp_path / 'run'}", change=change, status=1)
        assert_one_line(ended, f"the folder {tmp_path / 'run'} is gone, and its checkpoints with it")

    def test_permissions_that_are_lost(self, programs: Programs, tmp_path: Path) -> None:
        """The last checkpoint is named, and the run goes on from it once they are back."""
        # Another user must find the folder, to be refused there and not on the way.
        for folder in (tmp_path, *tmp_path.parents):
            if folder.stat().st_mode & 0o005 != 0o005:
                folder.chmod(0o755)
        workdir = tmp_path / "run"
        change = partial(_lose_permissions_at_second_epoch, workdir)
        ended = programs.run(f"--workdir={workdir}", change=change, status=1)
        last = f"{workdir}/checkpoints/latest/{STEPS_PER_EPOCH}"
        assert_one_line(ended, f"Permission denied; the last checkpoint is {last}")
        for folder in (workdir, *(path for path in workdir.rglob("*") if path.is_dir())):
            folder.chmod(0o755)
        programs.run(f"--workdir={workdir}")
        assert len(metrics(workdir)) == NUM_EPOCHS

    def test_a_disk_that_fails_later(self, programs: Programs, tmp_path: Path) -> None:
        """The last checkpoint is named; the run goes on from it. Ctrl-C at the end of that loses nothing."""
        ended = programs.run(f"--workdir={tmp_path}", change=_fail_at_second_save, status=1)
        last = f"{tmp_path}/checkpoints/latest/{STEPS_PER_EPOCH}"
        assert_one_line(ended, f"No space left on device; the last checkpoint is {last}: when that is mended, ")
        change = partial(stop_at, "reports:write_results", 1, signal.SIGINT)
        assert_one_line(programs.run(f"--workdir={tmp_path}", change=change, status=130), "SIGINT: stopped")
        assert len(metrics(tmp_path)) == NUM_EPOCHS

    def test_a_workdir_in_use(self, programs: Programs, tmp_path: Path) -> None:
        with locked(tmp_path):
            ended = programs.run(f"--workdir={tmp_path}", status=1)
        assert_one_line(ended, f"OSError: the workdir {tmp_path} is in use by process {os.getpid()} on ")
        assert not list(tmp_path.iterdir())

    def test_stopped_while_data_are_read(self, programs: Programs, tmp_path: Path) -> None:
        change = partial(stop_at, "setup:load_dataset", 1, signal.SIGINT)
        ended = programs.run(f"--workdir={tmp_path / 'run'}", change=change, status=130)
        assert_one_line(ended, "SIGINT: stopped")
        assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ml_collections", "flax"])
def test_stopped_in_an_import(name: str) -> None:
    command = [sys.executable, "-c", STOP_IN_IMPORT.format(name=name)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 130
    assert ended.stderr == "SIGINT: stopped; the same command goes on from what is saved\n"


@pytest.mark.slow
def test_a_device_that_is_not_there() -> None:
    if jax.default_backend() == "gpu":
        pytest.skip("it is there")
    command = [sys.executable, "main.py", "--config=configs/quickstart.py", "--mode=summary", "--compilation_cache="]
    environment = {**os.environ, "JAX_PLATFORMS": "cuda"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert "JAX finds no device of the kind 'cuda' (JAX_PLATFORMS)" in ended.stderr.splitlines()[-1]


@pytest.mark.parametrize("error", [AssertionError(), RuntimeError("Unable to initialize backend 'x': no x.")])
def test_jax_without_a_device(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def default_backend() -> str:
        raise error

    monkeypatch.setattr(jax, "default_backend", default_backend)
    monkeypatch.setenv("JAX_PLATFORMS", "x")
    with pytest.raises(RuntimeError, match=f"no device of the kind 'x' .JAX_PLATFORMS.{': ' if str(error) else ';'}"):
        devices.backend()


@pytest.mark.parametrize(
    ("processes", "message"),
    [((None, 2, 0), "need --coordinator"), (("localhost:1", 2, 2), "--process_id=2 with --num_processes=2")],
)
def test_processes_that_cannot_be(processes: tuple[str | None, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        devices.start("", *processes)


def test_a_cache_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    assert devices._usable(str(tmp_path / "new")) and not caplog.text
    assert not devices._usable(str(tmp_path / "file" / "cache"))
    assert "no compiled programs are kept in" in caplog.text
