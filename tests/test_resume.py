"""A run that was interrupted and started again ends with the same bits as one that never stopped.

Runs are stopped by signals that they send to themselves at chosen places, or that reach them at random times.
"""

import json
import random
import re
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM

import numpy as np
import pytest

from tests.programs import (
    NUM_STEPS,
    STEPS_PER_EPOCH,
    Programs,
    metrics,
    results,
    saved_state,
    stop_at,
    stop_in_compilation,
    tensorboard_scalars,
)

pytestmark = pytest.mark.slow

STEP, EVALUATION = "loop:Training._after_step", "evaluation:place"
SAVED = {SIGTERM: 143, SIGINT: 130}


@pytest.fixture(scope="module")
def uninterrupted(programs: Programs) -> Path:
    folder = programs.folder / "uninterrupted"
    programs.run(f"--workdir={folder}")
    for part in ("params", "batch_stats", "opt_state", "plateau", "sums", "best", "seed", "step"):
        assert any(name.startswith(f"['{part}']") for name in saved_state(folder)), f"the checkpoint lacks {part}"
    return folder


def kill(programs: Programs, workdir: Path, place: str, call: int, *flags: str, after: bool = False) -> None:
    """Kills a run before (after) the given call of a function."""
    change = partial(stop_at, place, call, SIGKILL, after)
    programs.run(f"--workdir={workdir}", *flags, change=change, status=-SIGKILL)


def stop(
    programs: Programs,
    workdir: Path,
    change: Callable[[], None],
    number: int,
    step: int,
    *flags: str,
    **environment: str,
) -> None:
    """Interrupts a run that must save at this step first, and say so."""
    ended = programs.run(f"--workdir={workdir}", *flags, change=change, status=SAVED[number], **environment)
    name = number.name
    assert ended.stderr.splitlines()[-1] == f"{name}: saved at step {step}; the same command goes on from there"
    assert (workdir / "checkpoints" / "latest" / str(step)).is_dir()
    assert not (workdir / "results.json").exists()


def finish(programs: Programs, workdir: Path, uninterrupted: Path, *flags: str, **options: bool) -> str:
    """Lets a run go on to its end, which must be that of the uninterrupted one; returns what it printed."""
    ended = programs.run(f"--workdir={workdir}", *flags, **options)
    assert metrics(workdir) == metrics(uninterrupted)
    one, other = results(workdir), results(uninterrupted)
    # Saving more often changes nothing but that setting.
    for found in (one, other):
        del found["config"]["save_every_steps"]
    assert one == other
    for kind in ("latest", "best"):
        resumed, straight = saved_state(workdir, kind), saved_state(uninterrupted, kind)
        assert resumed.keys() == straight.keys()
        for name, leaf in straight.items():
            same = (resumed[name].dtype, resumed[name].tobytes()) == (leaf.dtype, leaf.tobytes())
            assert same, f"{kind} {name} differs by up to {np.max(np.abs(resumed[name] - leaf.astype(float)))}"
    shown = tensorboard_scalars(workdir)
    for tag in ("train_loss", "validation_accuracy"):
        assert shown[tag] == {line["step"]: float(np.float32(line[tag])) for line in metrics(workdir)}
    assert all(path.name.isdecimal() for path in (workdir / "checkpoints").glob("*/*"))
    return ended.stderr


def saved_steps(workdir: Path, kind: str = "latest") -> set[str]:
    return {path.name for path in (workdir / "checkpoints" / kind).iterdir()}


class TestKilled:
    """By SIGKILL, which leaves no time to save."""

    def test_at_one_place_after_the_other(self, programs: Programs, tmp_path: Path, uninterrupted: Path) -> None:
        """Each attempt goes on with what the one before has left, from the first file to the pictures."""
        die = partial(kill, programs, tmp_path)
        die("records:write_atomically", 1)
        die("setup:Run.initial_state", 1)
        die(STEP, random.Random(0).randrange(1, STEPS_PER_EPOCH))
        die(EVALUATION, 2)
        die("records:MetricsLog.append", 1, after=True)
        die("checkpoints:Checkpoints.save", 1)
        die("orbax_io:write_manifest", 1)
        # The best of the first epoch is saved, the latest is not.
        die("checkpoints:_put_in_place", 2)
        assert saved_steps(tmp_path, "best") >= {"8"} and saved_steps(tmp_path) == {"8.saving"}
        # From which the next attempt goes on.
        die("checkpoints:Checkpoints.save", 1, after=True)
        assert saved_steps(tmp_path) == {"16"}
        die(STEP, random.Random(1).randrange(1, STEPS_PER_EPOCH))
        die("tensorboard:TensorBoard.write", 1, after=True)
        die("orbax_io:sync_tree", 1)
        die("reports:write_results", 1)
        die("reports:_draw", 1)
        finish(programs, tmp_path, uninterrupted, pictures=True)
        assert len(list((tmp_path / "pictures").glob("*.png"))) == 3

    def test_at_random_times(self, programs: Programs, tmp_path: Path, uninterrupted: Path) -> None:
        longest = json.loads((uninterrupted / "results.json").read_text())["seconds"]
        rng, killed = random.Random(2), 0
        for _ in range(4):
            program = programs.start(f"--workdir={tmp_path / 'killed'}")
            program.wait_for("devices:")
            time.sleep(rng.uniform(0, longest / 2))
            program.send(SIGKILL)
            program.process.join()
            assert program.process.exitcode in (0, -SIGKILL)
            killed += program.process.exitcode != 0
        assert killed >= 2
        finish(programs, tmp_path / "killed", uninterrupted)


class TestInterrupted:
    """By SIGTERM or Ctrl-C, which save first."""

    def test_again_and_again(self, programs: Programs, tmp_path: Path, uninterrupted: Path) -> None:
        first = random.Random(3).randrange(1, 5)
        stop(programs, tmp_path, partial(stop_at, STEP, first, SIGTERM), SIGTERM, first)
        stop(programs, tmp_path, partial(stop_at, STEP, 1, SIGINT), SIGINT, first + 1)
        # In evaluation and in a save of the end of an epoch, which is complete then.
        stop(programs, tmp_path, partial(stop_at, EVALUATION, 2, SIGTERM), SIGTERM, STEPS_PER_EPOCH)
        saving = partial(stop_at, "orbax_io:write_manifest", 1, SIGINT)
        stop(programs, tmp_path, saving, SIGINT, 2 * STEPS_PER_EPOCH)
        # The run is over before it can stop.
        change = partial(stop_at, "reports:write_results", 1, SIGTERM)
        programs.run(f"--workdir={tmp_path}", change=change)
        finish(programs, tmp_path, uninterrupted)

    def test_in_a_compilation(self, programs: Programs, tmp_path: Path, uninterrupted: Path) -> None:
        """Of which the cache holds a torn program, as a kill in the middle of its writing leaves it."""
        shutil.copytree(programs.cache, tmp_path / "cache")
        torn = list((tmp_path / "cache").glob("jit_create-*"))
        assert torn
        for path in torn:
            path.write_bytes(path.read_bytes()[:1000])
        cache, workdir = f"--compilation_cache={tmp_path / 'cache'}", tmp_path / "run"
        change = partial(stop_in_compilation, SIGKILL)
        ended = programs.run(f"--workdir={workdir}", cache, change=change, status=-SIGKILL)
        assert "in a compilation" in ended.stderr and "images/s" not in ended.stderr
        stop(programs, workdir, partial(stop_in_compilation, SIGTERM), SIGTERM, 1, cache)
        finish(programs, workdir, uninterrupted)

    def test_second_signal_stops_at_once(self, programs: Programs, tmp_path: Path) -> None:
        programs.run(f"--workdir={tmp_path}", change=_ask_twice, status=-SIGTERM)
        assert not saved_steps(tmp_path)


def _ask_twice() -> None:
    stop_at(STEP, 3, SIGTERM)
    stop_at("checkpoints:Checkpoints.save", 1, SIGTERM)


def test_much_is_damaged(programs: Programs, tmp_path: Path, uninterrupted: Path) -> None:
    """The newest checkpoints and the metrics; XLA has other flags. Each kind: tests/training/test_integrity.py."""
    flags = "--xla_force_host_platform_device_count=1"
    # Of a name that orbax takes for a pattern.
    tmp_path = tmp_path / "lr[0.1] a*b"
    stop(programs, tmp_path, partial(stop_at, STEP, 21, SIGTERM), SIGTERM, 21, XLA_FLAGS=flags)
    newest = tmp_path / "checkpoints" / "latest" / "21"
    data = max((path for path in newest.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = data.read_bytes()
    data.write_bytes(content[: len(content) // 2])
    (tmp_path / "checkpoints" / "latest" / "16" / "manifest.sha256").unlink()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_text("".join([lines[0], *lines]))
    printed = finish(programs, tmp_path, uninterrupted)
    for step in ("21", "16"):
        assert re.search(rf"skipped the damaged checkpoint .*latest/{step}: ", printed)
    # The best stands in for the latest.
    assert re.search(rf"going on at step (8|16) of {NUM_STEPS}", printed)
    assert re.search(r"metrics.jsonl: line 2.* of step 8.*; written anew from the checkpoint", printed)
    assert f"will be equal to rounding, not to the bit (xla_flags: {flags!r} then, '' now)" in printed


class TestOtherSettings:
    def test_saving_within_an_epoch(self, programs: Programs, tmp_path: Path, uninterrupted: Path) -> None:
        flag = "--config.save_every_steps=3"
        kill(programs, tmp_path, STEP, 5, flag)
        assert saved_steps(tmp_path) == {"3"}
        kill(programs, tmp_path, EVALUATION, 1, flag)
        assert saved_steps(tmp_path) == {"3", "6"}
        assert "going on at step 6" in finish(programs, tmp_path, uninterrupted, flag)

    def test_two_seeds_and_several_steps_a_call(self, programs: Programs, tmp_path: Path) -> None:
        """Calls of 5 steps end at 5, 8, 13, 16, ...; signals wait for their ends."""
        flags = ["--config.num_seeds=2", "--config.steps_per_call=5", "--config.save_every_epochs=2"]
        flags += ["--config.optimizer.schedule=one_cycle", "--config.optimizer.plateau.loss=train"]
        flags += ["--config.augmentation.flip=True", "--config.augmentation.alternate=True"]
        flags += ["--config.model.layer=conv", "--config.model.batch_statistics=batch"]
        whole, workdir = tmp_path / "whole", tmp_path / "run"
        programs.run(f"--workdir={whole}", *flags)
        assert saved_steps(whole) == {"16", "24"}
        stop(programs, workdir, partial(stop_at, STEP, 1, SIGTERM), SIGTERM, 5, *flags)
        # The first epoch is not saved, killed in the evaluation of the second: what follows step 5 is done again.
        kill(programs, workdir, EVALUATION, 4, *flags)
        assert saved_steps(workdir) == {"5"}
        finish(programs, workdir, whole, *flags)
