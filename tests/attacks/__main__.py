"""Attacks on a run and its files, counted: what ends right, what is refused in words, and what is wrong.

python -m tests.attacks [--kills=100 --flips=200 ... --minutes=60 --seed=0] [--record]
"""

import argparse
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import jax

from docs import attacks as tables
from tests.attacks.damages import DAMAGES, hostile_data, hostile_workdirs
from tests.attacks.growth import growth
from tests.attacks.kills import kills
from tests.attacks.laboratory import Laboratory, Verdict, judge
from tests.attacks.power import cuts
from tests.compilation import compile_as

COUNTS = {"kills": 100, "power": 60, "flips": 200, "cuts": 40, "zeros": 40, "lost": 40, "lines": 20, "hostile": 42}
# So many shapes, and epochs, of each kind; a verdict a kind.
GROWTH = 60
ROWS = dict(zip(("flips", "cuts", "zeros", "lost", "lines"), DAMAGES, strict=True))


def damaged(laboratory: Laboratory, name: str, count: int, rng: random.Random) -> Iterator[Verdict]:
    """Of three attacks two on a run that was stopped, and one on a run that is done."""
    for number in range(count):
        base = laboratory.whole if number % 3 == 2 else laboratory.stopped
        damage = partial(DAMAGES[ROWS[name]], rng=rng)
        yield laboratory.attack(base, damage, evaluated=base == laboratory.stopped)


def hostile(laboratory: Laboratory, count: int) -> Iterator[Verdict]:
    """Wrong, too, if code has run."""
    mark = laboratory.folder / "mark"

    def checked(verdict: Verdict) -> Verdict:
        if mark.exists():
            mark.rmdir()
            return Verdict("wrong", f"{verdict.why}: code has run")
        return verdict

    for what, read in list(hostile_data(laboratory.folder / "hostile", mark))[:count]:
        # To be read at all is wrong.
        yield checked(judge(what, lambda read=read: read() is None))
        count -= 1
    for damage in list(hostile_workdirs(mark))[:count]:
        yield checked(laboratory.attack(laboratory.stopped, damage))


def attacks(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Iterable[Verdict]]]:
    """Kind by kind; each has a random sequence of its own, so that it can be repeated alone."""

    def rng(name: str) -> random.Random:
        return random.Random(f"{options.seed} {name}")

    if options.kills:
        half = time.monotonic() + 30 * options.minutes
        found = kills(folder / "programs", options.kills, rng("kills"))
        yield "kills", takewhile(lambda _: time.monotonic() < half, found)
    compile_as("quick")
    laboratory = Laboratory(folder / "laboratory")
    yield "power cuts", cuts(laboratory, options.power, rng("power"))
    for name, row in ROWS.items():
        yield row, damaged(laboratory, name, getattr(options, name), rng(name))
    yield "hostile files", hostile(laboratory, options.hostile)
    if options.growth:
        # Half of the time for all eight kinds.
        yield "growth", growth(options.growth, options.minutes / 16)


def count(kinds: Iterable[tuple[str, Iterable[Verdict]]], seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Counts verdicts by kind, until the time is over, and the places of kills; says what is wrong at once."""
    started, kinds_found, struck = time.monotonic(), {}, Counter[str]()
    for kind, verdicts in kinds:
        row = kinds_found[kind] = dict.fromkeys(tables.WORDS, 0)
        for verdict in verdicts:
            row[verdict.word] += 1
            struck.update([verdict.place] if verdict.place else [])
            if verdict.word == "wrong":
                say(f"WRONG: {kind}: {verdict.why}")
            if time.monotonic() > started + seconds:
                say(f"the time is over in: {kind}")
                break
        say(f"{kind}: {sum(row.values())} tried, {row}, {time.monotonic() - started:.0f} s")
    return {"kinds": kinds_found, "struck": dict(sorted(struck.items()))}


def main() -> int:
    """Runs the attacks; the status is 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in COUNTS.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"how many (default {default})")
    parser.add_argument("--growth", type=int, default=GROWTH, help=f"shapes of each kind (default {GROWTH})")
    parser.add_argument("--minutes", type=float, default=60, help="no new attack after so long (default 60)")
    parser.add_argument("--seed", type=int, default=0, help="of the random places (default 0)")
    parser.add_argument("--record", type=Path, nargs="?", const=tables.ATTACKS, help="keep the counts (make pages)")
    options = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="attacks-") as folder:
        found = count(attacks(options, Path(folder)), 60 * options.minutes, lambda line: print(line, flush=True))
    command = " ".join(["python -m tests.attacks", *(a for a in sys.argv[1:] if not a.startswith("--record"))])
    record = {**tables.source(command), **found}
    print(tables.attacks_table(record))
    if options.record:
        tables.write(options.record, record)
    return int(any(row["wrong"] for row in found["kinds"].values()))


if __name__ == "__main__":
    sys.exit(main())
