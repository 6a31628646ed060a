"""Time and memory of Dn2MFGL against the numbers of samples and features, beside plain numpy loops of its rules.

python -m benchmarks.speed.dn2mfgl

Every program runs in a process of its own on the same data and start; they take turns. A sweep of ours includes the
objective. The seconds of a sweep are those of `SWEEPS` of them, divided; the first call, with compilation, is beside.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.harness import Worker, arguments, best, write
from benchmarks.speed.programs.dn2mfgl import PROGRAMS
from deepnmf_jax.experiments.tables import table
from deepnmf_jax.programs import run

MODULE = "benchmarks.speed.programs.dn2mfgl"
SWEEPS, SIZES = 5, (100, 20)
FIT = "ours, whole fit"
# Above this many samples the n x n matrices of the dense loop are left out.
DENSE_LIMIT = 5000
GRID = (*((n, 256) for n in (1000, 2500, 5000, 10_000, 20_000)), *((2000, m) for m in (64, 256, 1024, 4096)))
QUICK = ((60, 20),)


def measure(n: int, m: int, sizes: Sequence[int], rounds: int) -> dict[str, dict[str, Any]]:
    """By program: "seconds" of one sweep (of the whole fit: of all `SWEEPS` of it), "made" and "first" call in seconds,
    "memory" bytes at most above what the data took."""
    workers: dict[str, Worker] = {}
    found: dict[str, dict[str, Any]] = {}
    try:
        for name in (name for name in PROGRAMS if n <= DENSE_LIMIT or "dense" not in name):
            workers[name] = Worker({"program": name, "n": n, "m": m, "sizes": list(sizes)}, MODULE, greeting="{")
            found[name] = {"seconds": [], **json.loads(workers[name].greeting)}
        for _ in range(rounds):
            for name, worker in workers.items():
                answer = json.loads(worker.ask(str(SWEEPS)))
                found[name]["seconds"].append(answer["seconds"] / (1 if name == FIT else SWEEPS))
                found[name]["memory"] = answer["memory"] - found[name]["before"]
    finally:
        for worker in workers.values():
            worker.stop()
    return found


def summary(problems: Mapping[str, Any]) -> str:
    """Milliseconds a sweep and megabytes of every program, a line a problem, as Markdown."""

    def cell(name: str, found: Mapping[str, Any]) -> str:
        if name not in found:
            return "not run"
        seconds = best(found[name]["seconds"])
        shown = f"{seconds:.1f} s" if name == FIT else f"{1e3 * seconds:.1f} ms"
        return f"{shown}, {found[name]['memory'] / 1e6:.0f} MB"

    rows = [(title, *(cell(name, found) for name in PROGRAMS)) for title, found in problems.items()]
    return table(rows, ("samples x features", *PROGRAMS))


def main() -> None:
    """Measures, prints the table, writes dn2mfgl.json."""
    args = arguments(__doc__.splitlines()[0] if __doc__ else "")
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
    run(main)
