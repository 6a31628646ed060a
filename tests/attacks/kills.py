"""Kills: programs of their own are killed in all phases, and the next one goes on with what they leave."""

import random
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from signal import SIGKILL

from tests.attacks.laboratory import Verdict
from tests.programs import Programs, metrics, results, saved_state, stop_at

# Functions from the first file to the last, and how often a run calls each (or this often and more).
PLACES = {
    "records:write_atomically": 2,
    "setup:Run.initial_state": 1,
    "loop:Training._after_step": 8,
    "evaluation:place": 4,
    "records:MetricsLog.append": 3,
    "tensorboard:TensorBoard.write": 3,
    "checkpoints:Checkpoints.save": 3,
    "orbax_io:write": 3,
    "orbax_io:read": 3,
    "orbax_io:sync_tree": 3,
    "orbax_io:write_manifest": 3,
    "checkpoints:_copy": 2,
    "checkpoints:_put_in_place": 4,
    "checkpoints:_remove": 4,
    "reports:write_results": 1,
}
MOMENT = "a random moment"
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


def kills(folder: Path, count: int, rng: random.Random) -> Iterator[Verdict]:
    """Kills until `count` have struck, six of a run at most: a third at random moments, the others at each place in
    turn. The verdicts of a run's kills come when it has ended."""
    programs = Programs(Factory(folder), "quick")  # type: ignore[arg-type]
    whole, workdir = folder / "whole", folder / "killed"
    # The second one finds all programs compiled, as those that are killed do.
    for _ in range(2):
        shutil.rmtree(whole, ignore_errors=True)
        started = time.monotonic()
        programs.start(f"--workdir={whole}").end(0)
    longest = time.monotonic() - started
    right = _outcome(whole)
    struck: list[tuple[str, str]] = []
    deck: list[str] = []
    while count:
        if not deck:
            deck = [*PLACES, *[MOMENT] * (len(PLACES) // 2)]
            rng.shuffle(deck)
        place = None if len(struck) == min(ATTEMPTS, count) else deck.pop()
        ended, what = _attempt(programs, workdir, rng, longest, place)
        if place and ended == -SIGKILL:
            struck.append((place, what))
            continue
        why = f"killed {', '.join(what for _, what in struck)}; then status {ended}"
        word = "right" if ended == 0 and _outcome(workdir) == right else "wrong"
        # A run that fails without having been killed counts, too.
        places = [place for place, _ in struck] or [str(place)] * (word == "wrong")
        yield from (Verdict(word, why, place) for place in places)
        count -= len(places)
        struck = []
        shutil.rmtree(workdir, ignore_errors=True)


def _attempt(
    programs: Programs, workdir: Path, rng: random.Random, longest: float, place: str | None
) -> tuple[int, str]:
    """Starts the run, to be killed at a place or a moment, or (None) not at all; its status, and where."""
    call, after = rng.randint(1, PLACES.get(place or "", 1)), rng.random() < 0.5
    change = partial(stop_at, place, call, SIGKILL, after) if place in PLACES else None
    program = programs.start(f"--workdir={workdir}", change=change)
    what = f"{'after' if after else 'before'} call {call} of {place}"
    if place == MOMENT:
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
