"""Kills: programs of their own are killed in all phases, and the next one goes on with what they leave."""

import random
import shutil
import time
from functools import partial
from pathlib import Path
from signal import SIGKILL

from tests.attacks.laboratory import Verdict
from tests.programs import Programs, metrics, results, saved_state, stop_at

PLACES = (
    "records:write_atomically",
    "setup:Run.initial_state",
    "loop:Training._after_step",
    "loop:Training._after_step",
    "evaluation:place",
    "records:MetricsLog.append",
    "records:TensorBoard.write",
    "checkpoints:Checkpoints.save",
    "orbax_io:write",
    "orbax_io:read",
    "orbax_io:sync_tree",
    "orbax_io:write_manifest",
    "checkpoints:_copy",
    "checkpoints:_put_in_place",
    "checkpoints:_remove",
    "reports:write_results",
)
ATTEMPTS = 6


class Factory:
    """Folders for `Programs` without pytest."""

    def __init__(self, folder: Path):
        self.folder = folder

    def getbasetemp(self) -> Path:
        return self.folder

    def mktemp(self, name: str) -> Path:
        (self.folder / name).mkdir(parents=True)
        return self.folder / name


def kills(folder: Path, count: int, rng: random.Random, minutes: float) -> list[Verdict]:
    """Kills until `count` have struck: at named places, every third one at a random time; six at most for a run."""
    programs = Programs(Factory(folder), "quick")  # type: ignore[arg-type]
    whole = folder / "whole"
    started = time.monotonic()
    programs.start(f"--workdir={whole}").process.join()
    longest = time.monotonic() - started
    verdicts: list[Verdict] = []
    struck: list[str] = []
    workdir = folder / "killed"
    places: list[str] = []
    while len(verdicts) < count and time.monotonic() < started + 60 * minutes:
        places = places or rng.sample(PLACES, len(PLACES))
        last = len(struck) >= min(ATTEMPTS, count - len(verdicts))
        ended, what = _attempt(programs, workdir, rng, longest, None if last else places.pop())
        if ended == -SIGKILL:
            struck.append(what)
        elif ended != 0:
            verdicts += [Verdict("wrong", f"killed {', '.join(struck)}; then status {ended}")] * max(len(struck), 1)
        else:
            right = _outcome(workdir) == _outcome(whole)
            verdicts += [Verdict("right" if right else "wrong", f"killed {', '.join(struck)}")] * len(struck)
        if ended != -SIGKILL:
            struck = []
            shutil.rmtree(workdir, ignore_errors=True)
    return verdicts


def _attempt(
    programs: Programs, workdir: Path, rng: random.Random, longest: float, place: str | None
) -> tuple[int, str]:
    """Starts the run, to be killed at a place, or (every third time) at a random moment; its status and where."""
    call, after = rng.randrange(1, 5), rng.random() < 0.5
    timed = place is not None and rng.random() < 1 / 3
    change = partial(stop_at, place, call, SIGKILL, after) if place and not timed else None
    program = programs.start(f"--workdir={workdir}", change=change)
    what = f"{'after' if after else 'before'} call {call} of {place}"
    if timed:
        moment = rng.uniform(0, longest)
        what = f"after {moment:.1f} s"
        program.process.join(moment)
        program.send(SIGKILL)
    program.process.join()
    assert program.process.exitcode is not None
    return program.process.exitcode, what


def _outcome(workdir: Path) -> tuple[object, ...]:
    states = [
        {name: (leaf.dtype.name, leaf.tobytes()) for name, leaf in saved_state(workdir, kind).items()}
        for kind in ("latest", "best")
    ]
    return metrics(workdir), results(workdir), *states
