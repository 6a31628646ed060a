"""Faults: a kill or power cut at any moment of a save and a full or read-only disk cost no checkpoint saved before."""

import contextlib
import errno
import itertools
import os
import random
import shutil
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepnmf_jax.training import checkpoints, devices, orbax_io
from deepnmf_jax.training.checkpoints import Checkpoints, restore_path
from deepnmf_jax.training.integrity import damage
from tests.attacks import forgetful
from tests.disks import Image, largest_file, make_read_only, small_disk
from tests.programs import Programs, free_port
from tests.training.conftest import make_state, names, same, steps_on_disk

LARGE_STATE = {"w": np.zeros((20, 50_000)), "step": np.zeros((), np.int64)}


def save_for_ever(workdir: Path) -> None:
    """Saves step after step, every second one as the best, and says so."""
    saved = Checkpoints(workdir)
    restored = saved.restore(LARGE_STATE)
    for step in itertools.count(0 if restored is None else restored.step + 1):
        state = {"w": np.full((20, 50_000), float(step)), "step": np.asarray(step)}
        saved.save(step, state, {"step": step}, best=step % 2 == 0)
        print(step, file=sys.stderr, flush=True)


def gather_for_ever(address: str, index: int, failing: int, failure: int | Exception) -> None:
    """One of two processes that wait for each other again and again, of which one gets a signal or fails."""
    devices._SILENCE, devices._FAREWELL = 10, 1
    devices.start("", address, 2, index)
    for count in itertools.count():
        try:
            devices.from_all_processes(np.int32(count))
            if (index, count) == (failing, 3):
                if isinstance(failure, Exception):
                    raise failure
                os.kill(os.getpid(), failure)
        except Exception as error:
            devices.leave(error)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failing", "failure", "status", "message"),
    [
        (0, signal.SIGKILL, 1, "what the processes compute together failed"),
        (1, signal.SIGKILL, 1, "what the processes compute together failed"),
        (0, signal.SIGSTOP, -signal.SIGABRT, "another task died"),
        (1, signal.SIGSTOP, -signal.SIGABRT, "another task died"),
        (0, OSError("no cable"), 1, "what the processes compute together failed"),
        (1, TypeError("a bug"), 1, "what the processes compute together failed"),
    ],
)
def test_another_process_of_the_run_ends(
    programs: Programs, failing: int, failure: int | Exception, status: int, message: str
) -> None:
    """Or is stopped, or fails: this one does not wait for ever, and says why it ends. The first leads the others."""
    address = f"localhost:{free_port()}"
    both = [programs.call(partial(gather_for_ever, address, index, failing, failure)) for index in range(2)]
    ended = both[1 - failing].end(status)
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr and "Python error" not in ended.stderr
    if isinstance(failure, Exception):
        said = both[failing].end(1).stderr
        assert ("Traceback" in said) == isinstance(failure, TypeError)
        assert f"process {failing} of 2: {type(failure).__name__}" in said
    else:
        both[failing].send(signal.SIGKILL)
        both[failing].end(-signal.SIGKILL)


class TestDisk:
    large = {"w": np.random.default_rng(0).random(500_000)}

    def assert_intact(self, saved: Checkpoints, workdir: Path) -> None:
        restored = saved.restore(make_state(0))
        assert restored is not None
        assert same(restored.state, make_state(1))
        assert steps_on_disk(workdir) == {"1"}

    def test_full(self, tmp_path: Path) -> None:
        with small_disk(tmp_path / "disk", "2m"):
            saved = Checkpoints(tmp_path / "disk")
            saved.save(1, make_state(1), {})
            message = r"cannot write the checkpoint \S*latest/2: No space left on device; older .* are intact"
            with pytest.raises(OSError, match=message) as caught:
                saved.save(2, self.large, {})
            assert caught.value.errno == errno.ENOSPC
            self.assert_intact(saved, tmp_path / "disk")
            saved.save(2, make_state(2), {})
            assert steps_on_disk(tmp_path / "disk") == {"1", "2"}

    def test_full_to_the_last_block(self, tmp_path: Path) -> None:
        with small_disk(tmp_path / "disk", "1m"):
            saved = Checkpoints(tmp_path / "disk")
            saved.save(1, make_state(1), {})
            with contextlib.suppress(OSError), open(tmp_path / "disk" / "fill", "wb", buffering=0) as file:
                while True:
                    file.write(bytes(512))
            with pytest.raises(OSError, match="No space left on device"):
                saved.save(1, make_state(2), {})
            self.assert_intact(saved, tmp_path / "disk")

    def test_read_only(self, tmp_path: Path) -> None:
        with small_disk(tmp_path / "disk", "2m"):
            saved = Checkpoints(tmp_path / "disk")
            saved.save(1, make_state(1), {})
            make_read_only(tmp_path / "disk")
            with pytest.raises(OSError, match=r"cannot write the checkpoint \S*latest/2: Read-only file system"):
                saved.save(2, make_state(2), {})
            self.assert_intact(saved, tmp_path / "disk")
            assert restore_path(tmp_path / "disk", make_state(0)).step == 1

    @pytest.mark.parametrize("num_bytes", [0, 500, 100_000])
    def test_files_refused(self, tmp_path: Path, num_bytes: int) -> None:
        saved = Checkpoints(tmp_path)
        saved.save(1, make_state(1), {})
        with (
            largest_file(num_bytes),
            pytest.raises(OSError, match=r"latest/2: File too large; older") as caught,
        ):
            saved.save(2, self.large, {})
        assert caught.value.errno == errno.EFBIG
        self.assert_intact(saved, tmp_path)

    def test_a_file_in_the_way(self, tmp_path: Path) -> None:
        (tmp_path / "checkpoints").touch()
        with pytest.raises(OSError, match=r"cannot open the checkpoints in \S*checkpoints/latest"):
            Checkpoints(tmp_path)


class TestKill:
    @pytest.mark.slow
    @pytest.mark.parametrize("step", [3, 4])
    def test_every_moment_of_a_save(self, workdir: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
        """Stops a save, of a step that exists (3) or not, at each of its calls that change the folder."""

        class KilledError(BaseException):
            pass

        def killer(function: Any, after: int) -> Any:
            def call(*arguments: Any, **options: Any) -> Any:
                calls.append(function)
                if len(calls) > after:
                    if function is rmtree:
                        for path in Path(arguments[0]).glob("meta/*"):
                            path.unlink()
                    raise KilledError
                return function(*arguments, **options)

            return call

        rmtree = shutil.rmtree
        calls: list[Any] = []
        backup = workdir / "backup"
        shutil.copytree(workdir / "checkpoints", backup)
        outcomes = []
        for after in range(100):
            rmtree(workdir / "checkpoints")
            shutil.copytree(backup, workdir / "checkpoints")
            saved = Checkpoints(workdir)
            calls.clear()
            with monkeypatch.context() as patch:
                syncs = (orbax_io, "sync_tree"), (checkpoints, "sync_tree"), (checkpoints, "sync_folder")
                for module, name in ((os, "rename"), (os, "replace"), (shutil, "rmtree"), *syncs):
                    patch.setattr(module, name, killer(getattr(module, name), after))
                try:
                    saved.save(step, make_state(33), {}, best=True)
                    finished = True
                except KilledError:
                    finished = False
            for best in (True, False):
                restored = Checkpoints(workdir).restore(make_state(0), best=best)
                assert restored is not None
                new = same(restored.state, make_state(33))
                assert new or same(restored.state, make_state(3))
                assert restored.step == (step if new else 3)
                outcomes.append(new)
            for folder in workdir.glob("checkpoints/*/*"):
                assert folder.name.isdecimal()
                assert damage(folder) == ""
            if finished:
                break
        assert finished
        # (best, newest): both old, then both new; the new best is the newest at once, unless the latest has its step.
        between = [(True, False)] if step == 3 else []
        expected = [(False, False), *between, (True, True)]
        assert list(dict.fromkeys(zip(outcomes[::2], outcomes[1::2], strict=True))) == expected

    @pytest.mark.slow
    def test_sigkill_while_saving(self, programs: Programs, tmp_path: Path) -> None:
        rng = random.Random(0)
        reached = -1
        for _ in range(5):
            program = programs.call(partial(save_for_ever, tmp_path))
            program.wait_for("\n")
            time.sleep(rng.uniform(0, 0.3))
            program.send(signal.SIGKILL)
            printed = max(map(int, program.end(-signal.SIGKILL).stderr.split()))
            saved = Checkpoints(tmp_path)
            restored, best = saved.restore(LARGE_STATE), saved.restore(LARGE_STATE, best=True)
            assert restored is not None
            assert best is not None
            # The save after the last line may have been completed too, and its best alone.
            assert restored.step in {printed, printed + 1}
            assert best.step in {printed - printed % 2, printed + 1}
            for step, state, meta, _ in (restored, best):
                assert meta == {"step": step} and state["step"] == step and (state["w"] == step).all()
            assert printed > reached
            reached = printed
            assert all(name.isdecimal() for name in steps_on_disk(tmp_path))

    def test_opening_clears_leftovers_and_nothing_else(self, workdir: Path) -> None:
        folder = workdir / "checkpoints" / "latest"
        for name in ("4.saving", "4.saving.orbax-checkpoint-tmp", "5.orbax-checkpoint-tmp", "1.removing"):
            (folder / name / "state").mkdir(parents=True)
        (folder / "notes.txt").touch()
        (folder / "3").rename(folder / "3.replaced")
        Checkpoints(workdir)
        assert names(folder) == {"2", "3", "notes.txt"}


@pytest.mark.skipif(sys.platform != "linux", reason="which file an fsync is of is asked of /proc")
class TestPowerCut:
    @pytest.mark.slow
    def test_every_moment_of_a_save(self, tmp_path: Path) -> None:
        """On a disk that forgets what was not synced, with and without the names: the last save or the one at work."""
        (tmp_path / "disk").mkdir()
        disk = forgetful.Forgetful(tmp_path / "disk")
        allowed: list[tuple[int, int] | None] = [None]
        cuts: dict[tuple[str, str], tuple[forgetful.Tree, list[tuple[int, int] | None]]] = {}

        def cut() -> None:
            for tree in (disk.synced(), disk.named()):
                cuts[forgetful.digest(tree), str(allowed)] = tree, list(allowed)

        with disk.watching(cut):
            # "run" is not on the disk yet, nor is anything in it.
            saved = Checkpoints(tmp_path / "disk" / "run")
            for step, seed, best in ((1, 1, True), (2, 2, False), (2, 22, True)):
                allowed.append((step, seed))
                saved.save(step, make_state(seed), {}, best=best)
                allowed = [(step, seed)]
                cut()
        assert len(cuts) > 15
        for number, (tree, right) in enumerate(cuts.values()):
            left = tmp_path / f"cut{number}"
            forgetful.write(tree, left)
            found = Checkpoints(left / "run").restore(make_state(0))
            assert (found is None and None in right) or any(
                pair and found and found.step == pair[0] and same(found.state, make_state(pair[1])) for pair in right
            ), (number, right, sorted(tree))
            shutil.rmtree(left)

    def test_on_a_real_file_system(self, tmp_path: Path) -> None:
        """An image of the disk, copied as it lies there at once after a save."""
        with Image(tmp_path / "image") as image:
            saved = Checkpoints(image.folder / "runs" / "run")
            saved.save(1, make_state(1), {}, best=True)
            saved.save(2, make_state(2), {})
            image.copy(tmp_path / "copy")
        with Image(tmp_path / "copy") as copy:
            for found, step in (
                (restore_path(copy.folder / "runs" / "run", make_state(0)), 1),
                (Checkpoints(copy.folder / "runs" / "run").restore(make_state(0)), 2),
            ):
                assert found is not None
                assert found.step == step and same(found.state, make_state(step))
