"""Time and memory of Dn2MFGL against the numbers of samples and features, beside plain numpy loops of its rules.

python -m benchmarks.speed.dn2mfgl

Every program runs in a process of its own on the same data and start; they take turns. A sweep of ours includes the
objective. The seconds of a sweep are those of `SWEEPS` of them, divided; the first call, with compilation, is beside.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.harness import Worker, arguments, best, write
from benchmarks.speed.programs.dn2mfgl import PROGRAMS
from deepnmf_jax.experiments.tables import table

MODULE = "benchmarks.speed.programs.dn2mfgl"
SWEEPS, SIZES = 5, (100, 20)
# Above this many samples the n x n matrices of the dense loop are left out.
DENSE_LIMIT = 5000
GRID = (*((n, 256) for n in (1000, 2500, 5000, 10_000, 20_000)), *((2000, m) for m in (64, 256, 1024, 4096)))
QUICK = ((60, 20), (120, 20))


def measure(n: int, m: int, sizes: Sequence[int], rounds: int) -> dict[str, dict[str, Any]]:
    """By program: "seconds" of one sweep (of one sweep of a fit of `SWEEPS` for the whole fit: of all of it), "made"
    and "first" call in seconds, "memory" bytes at most above what the data took."""
    names = [name for name in PROGRAMS if n <= DENSE_LIMIT or "dense" not in name]
    workers: dict[str, Worker] = {}
    found: dict[str, dict[str, Any]] = {}
    try:
        for name in names:
            workers[name] = Worker({"program": name, "n": n, "m": m, "sizes": list(sizes)}, MODULE, greeting="{")
            found[name] = {"seconds": [], **json.loads(workers[name].greeting)}
        for _ in range(rounds):
            for name in names:
                answer = json.loads(workers[name].ask(str(SWEEPS)))
                sweeps = 1 if name == "ours, whole fit" else SWEEPS
                found[name]["seconds"].append(answer["seconds"] / sweeps)
                found[name]["memory"] = answer["memory"] - found[name]["before"]
    finally:
        for worker in workers.values():
            worker.stop()
    return found


def summary(problems: Mapping[str, Any]) -> str:
    """Milliseconds a sweep and megabytes of every program, a line a problem, as Markdown."""
    rows = []
    for title, found in problems.items():
        cells = []
        for name in PROGRAMS:
            if name not in found:
                cells.append("not run")
                continue
            seconds = best(found[name]["seconds"])
            time = f"{seconds:.1f} s" if name == "ours, whole fit" else f"{1e3 * seconds:.1f} ms"
            cells.append(f"{time}, {found[name]['memory'] / 1e6:.0f} MB")
        rows.append((title, *cells))
    return table(rows, ("samples x features", *PROGRAMS))


def main() -> None:
    """Measures, prints the table, writes dn2mfgl.json."""
    args: argparse.Namespace = arguments(__doc__.splitlines()[0] if __doc__ else "")
    sizes, rounds = ((6, 3), 2) if args.quick else (SIZES, 5)
    problems: dict[str, Any] = {}
    ratios = {}
    for n, m in QUICK if args.quick else GRID:
        title = f"{n} x {m}"
        found = problems[title] = measure(n, m, sizes, rounds)
        print(title, {name: f"{best(f['seconds']):.4f} s" for name, f in found.items()}, flush=True)
        ours = best(found["ours, released rules"]["seconds"])
        ratios[f"{title}: numpy sparse / ours, released rules"] = best(found["numpy, sparse"]["seconds"]) / ours
    print("\n" + summary(problems))
    write("dn2mfgl", {"problems": problems, "sizes": sizes, "rounds": rounds, "ratios": ratios}, args.out)


if __name__ == "__main__":
    main()
