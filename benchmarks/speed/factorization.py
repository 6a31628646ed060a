"""Error against seconds of NMF: our solvers, scikit-learn's, a PyTorch port of overcomplete's; and 10,000 concepts.

python -m benchmarks.speed.factorization [--faces orl.npz]

Every method starts from the same factors, made to fit the scale of the data (our mini-batch steps make their own), and
runs in a process of its own; for each number of sweeps they take turns. Time to compile is beside, not in the seconds.
Ours is called sooner at an error level if the first of our methods reaches it before the first of the others. Levels
are the errors that the others were seen at, so that the others are timed exactly and ours never too early.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import RESULTS, ROOT, Worker, best, write
from benchmarks.speed.programs.factorizers import METHODS
from deepnmf_jax.experiments.tables import table

MODULE = "benchmarks.speed.programs.factorizers"
GRID = tuple(sorted({round(1.4**i) for i in range(24)}))

Curve = Mapping[str, Sequence[Any]]


def digits(rows: int | None) -> np.ndarray:
    """The 8 x 8 digits of scikit-learn, (1797, 64), in [0, 1]."""
    from sklearn.datasets import load_digits

    return (load_digits().data[:rows] / 16).astype(np.float32)


def faces(path: Path) -> np.ndarray:
    """Grey images from an .npz file with "x", 8-bit, one row an image, in [0, 1]."""
    with np.load(path, allow_pickle=False) as file:
        images = file["x"]
    return (images.reshape(len(images), -1) / np.float32(255)).astype(np.float32)


def parts(n: int, p: int, k: int) -> np.ndarray:
    """Sparse non-negative factors (10 % and 20 % filled) multiplied, of mean 1, plus 0.1 |N(0, 1)|: (n, p)."""
    rng = np.random.default_rng(0)
    z, d = (rng.random(s, np.float32) * (rng.random(s) < fill) for s, fill in (((n, k), 0.1), ((k, p), 0.2)))
    a = (z @ d).astype(np.float32)
    return a / a.mean() + np.float32(0.1) * np.abs(rng.standard_normal((n, p), np.float32))


def start(a: np.ndarray, k: int, init: str) -> tuple[np.ndarray, np.ndarray]:
    """Z (n, k) and D (k, p) that all methods start from."""
    import jax

    from deepnmf_jax.decomposition.updates.starts import init_factors

    zt, d = jax.jit(init_factors, static_argnums=(2, 3))(jax.random.key(0), a, k, init)
    return np.ascontiguousarray(np.asarray(zt).T), np.array(d)


def first_time(curve: Curve, level: float) -> float:
    """Least seconds after which a method was at `level` or below; infinite if it never was."""
    times = [best(s) for s, error in zip(curve["seconds"], curve["error"], strict=True) if error <= level]
    return min(times, default=float("inf"))


def levels_of(curves: Mapping[str, Curve], beginning: float) -> list[dict[str, Any]]:
    """For every error that one of the others was seen at, below the start's: seconds of each method to get there.

    Returns:
        One record a level, the largest first: "error", "seconds" by method (infinite: never), "ours" and "others" the
        first of each, "sooner" whether ours is before.
    """
    others = {name: curve for name, curve in curves.items() if not name.startswith("ours")}
    seen = sorted({e for curve in others.values() for e in curve["error"] if e < beginning}, reverse=True)
    records = []
    for level in seen:
        seconds = {name: first_time(curve, level) for name, curve in curves.items()}
        ours = min((s for name, s in seconds.items() if name not in others), default=float("inf"))
        them = min(seconds[name] for name in others)
        records.append({"error": level, "seconds": seconds, "ours": ours, "others": them, "sooner": ours < them})
    return records


def measure(problem: Path, names: Sequence[str], longest: float, rounds: int, grid: Sequence[int], anew: bool) -> dict:
    """Curves of all methods on one problem.

    Args:
        problem: file with a, z, d.
        names: of the methods.
        longest: a method that took more seconds than this for a number of sweeps is not asked for more.
        rounds: repetitions.
        grid: numbers of sweeps.
        anew: whether each number of sweeps is a run of its own; else it goes on from the one before.

    Returns:
        By method: "sweeps", "seconds" (a list of samples for each), "error", "compile_seconds", "memory_before",
        "memory".
    """
    workers: dict[str, Worker] = {}
    curves: dict[str, dict[str, Any]] = {}
    try:
        for name in names:
            workers[name] = Worker({"problem": str(problem), "method": name}, MODULE, greeting="{")
            curves[name] = {"sweeps": [], "seconds": [], "error": [], **json.loads(workers[name].greeting)}
        for turn in range(rounds):
            running = set(names)
            for i, sweeps in enumerate(grid):
                for name in (name for name in names if name in running):
                    curve = curves[name]
                    answer = json.loads(workers[name].ask(json.dumps({"sweeps": sweeps, "again": anew or i == 0})))
                    if turn == 0:
                        curve["sweeps"].append(sweeps)
                        curve["seconds"].append([])
                        curve["error"].append(answer["error"])
                    curve["seconds"][i].append(answer["seconds"])
                    curve["memory"] = answer["memory"]
                    # Every repetition asks for the numbers of sweeps of the first one.
                    if answer["seconds"] > longest if turn == 0 else i + 1 == len(curve["sweeps"]):
                        running.discard(name)
            print(f"  round {turn + 1} of {rounds}", flush=True)
        return curves
    finally:
        for worker in workers.values():
            worker.stop()


def many(sizes: Sequence[int]) -> dict[str, float]:
    """One sweep with many concepts (n, p, k), in a process of its own."""
    spec = json.dumps({"many": list(sizes)})
    done = subprocess.run([sys.executable, "-m", MODULE, spec], capture_output=True, text=True, cwd=ROOT, check=True)
    return json.loads(done.stdout)


def summary(found: Mapping[str, Any]) -> str:
    """A few levels of one problem as a Markdown table: least seconds of each method."""
    levels = found["levels"]
    picked = [levels[i] for i in sorted({round(x) for x in np.linspace(0, len(levels) - 1, min(6, len(levels)))})]
    rows = [
        (name, *("" if level["seconds"][name] is None else f"{level['seconds'][name]:.3g}" for level in picked))
        for name in found["curves"]
    ]
    return table(rows, ("seconds to the relative error", *(f"{level['error']:.4f}" for level in picked)))


def arguments() -> argparse.Namespace:
    """The flags of this benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON file")
    parser.add_argument("--quick", action="store_true", help="small and few: to see that it runs, not to measure")
    parser.add_argument("--faces", type=Path, help='.npz with 8-bit images in "x" (ORL, 400 x 1024, for the figures)')
    parser.add_argument("--sizes", type=int, nargs=3, metavar=("N", "P", "K"), help="of the synthetic data")
    parser.add_argument("--many", type=int, nargs=3, metavar=("N", "P", "K"), help="of the sweep with many concepts")
    parser.add_argument("--rounds", type=int, help="repetitions")
    parser.add_argument("--longest", type=float, help="seconds after which a method is asked for no more")
    return parser.parse_args()


def problems_of(args: argparse.Namespace) -> dict[str, tuple[np.ndarray, int, str, float, bool]]:
    """By name: A, k, start, longest run in seconds, whether each number of sweeps is a run of its own."""
    n, p, k = args.sizes or ((200, 40, 6) if args.quick else (20_000, 512, 256))
    rows = 200 if args.quick else None
    found = {
        f"digits, {init}": (digits(rows), 16, init, 1.5, True)
        for init in ("nndsvda", "random")[: 1 if args.quick else 2]
    }
    if args.faces and args.faces.exists():
        found["faces, nndsvda"] = (faces(args.faces), 40, "nndsvda", 3.0, True)
    else:
        print(f"no faces ({'--faces is not given' if args.faces is None else f'{args.faces} is not there'}): left out")
    # Runs of this one are so long that what a call costs beside its sweeps does not show.
    found[f"synthetic {n} x {p}, nndsvda"] = (parts(n, p, k), k, "nndsvda", 20.0, False)
    return found


def main() -> None:
    """Measures, prints the tables, writes factorization.json."""
    args = arguments()
    rounds = args.rounds or (2 if args.quick else 5)
    grid = GRID[:4] if args.quick else GRID
    problems: dict[str, Any] = {}
    ratios = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (a, k, init, longest, anew) in problems_of(args).items():
            print(f"\n{name}: {a.shape}, {k} concepts", flush=True)
            z, d = start(a, k, init)
            path = Path(folder) / "problem.npz"
            np.savez(path, a=a, z=z, d=d)
            curves = measure(path, list(METHODS), args.longest or longest, rounds, grid, anew)
            beginning = float(np.linalg.norm(a - z @ d) / np.linalg.norm(a))
            levels = levels_of(curves, beginning)
            for record in levels:
                # JSON has no infinity.
                record["seconds"] = {m: s if np.isfinite(s) else None for m, s in record["seconds"].items()}
                record["ours"] = record["ours"] if np.isfinite(record["ours"]) else None
            problems[name] = {"shape": a.shape, "k": k, "start": beginning, "curves": curves, "levels": levels}
            sooner = sum(record["sooner"] for record in levels)
            print(f"ours is there sooner at {sooner} of {len(levels)} levels\n\n{summary(problems[name])}")
            if levels:
                ratios[f"{name}: share of levels with ours sooner"] = sooner / len(levels)
                # A level never reached by ours counts as a ratio near 0, so that it cannot hide.
                worst = min(r["others"] / r["ours"] if r["ours"] else 1e-3 for r in levels)
                ratios[f"{name}: others / ours, least over levels"] = worst
    concepts = many(args.many or ((100, 30, 300) if args.quick else (20_000, 512, 10_000)))
    print(
        f"\n{concepts['k']:,} concepts: {concepts['seconds']:.2f} s a sweep, {concepts['memory'] / 1e9:.2f} GB at most"
    )
    versions = {name: __import__(name).__version__ for name in ("sklearn", "torch")}
    write(
        "factorization",
        {"problems": problems, "many": concepts, "rounds": rounds, "versions": versions, "ratios": ratios},
        args.out,
    )


if __name__ == "__main__":
    main()
