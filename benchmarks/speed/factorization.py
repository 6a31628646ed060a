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

from benchmarks.harness import ROOT, argument_parser, best, started, write
from benchmarks.speed.programs.factorizers import METHODS
from deepnmf_jax.experiments.tables import table
from deepnmf_jax.programs import home, run

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


def levels_of(curves: Mapping[str, Curve], beginning: float) -> dict[str, Any]:
    """For every error that one of the others was seen at, below the start's: seconds of each method to get there.

    Returns:
        "error": the levels, the largest first; "seconds": of each method, one a level (None: never).
    """
    others = [curve for name, curve in curves.items() if not name.startswith("ours")]
    seen = sorted({e for curve in others for e in curve["error"] if e < beginning}, reverse=True)
    seconds = {name: [_finite(first_time(curve, level)) for level in seen] for name, curve in curves.items()}
    return {"error": seen, "seconds": seconds}


def firsts(levels: Mapping[str, Any]) -> list[tuple[float, float]]:
    """At each of `levels_of` the seconds of our first method and of the first of the others; infinite: never."""
    ours, others = (
        [times for name, times in levels["seconds"].items() if name.startswith("ours") is mine]
        for mine in (True, False)
    )

    def first(methods: list[list[float | None]], level: int) -> float:
        return min((t for times in methods if (t := times[level]) is not None), default=float("inf"))

    return [(first(ours, level), first(others, level)) for level in range(len(levels["error"]))]


def _finite(seconds: float) -> float | None:
    """None in place of infinity, which JSON does not have."""
    return seconds if np.isfinite(seconds) else None


def measure(
    problem: Path, longest: float, rounds: int, grid: Sequence[int], anew: bool, methods: Sequence[str] = tuple(METHODS)
) -> dict[str, dict[str, Any]]:
    """Curves of the methods on one problem.

    Args:
        problem: file with a (of a sparse matrix data, indices and indptr in its place), z, d.
        longest: a method that took more seconds than this for a number of sweeps is not asked for more.
        rounds: repetitions.
        grid: numbers of sweeps.
        anew: whether each number of sweeps is a run of its own; else it goes on from the one before.
        methods: which; all.

    Returns:
        By method: "sweeps", "seconds" (a list of samples for each), "error", "compile_seconds", "memory_before",
        "memory".
    """
    specs = {name: {"problem": str(problem), "method": name} for name in methods}
    curves: dict[str, dict[str, Any]] = {}
    with started(specs, MODULE, greeting="{") as workers:
        for name, worker in workers.items():
            curves[name] = {"sweeps": [], "seconds": [], "error": [], **json.loads(worker.greeting)}
        for turn in range(rounds):
            running = dict(workers)
            for i, sweeps in enumerate(grid):
                for name, worker in list(running.items()):
                    curve = curves[name]
                    answer = json.loads(worker.ask(json.dumps({"sweeps": sweeps, "again": anew or i == 0})))
                    if turn == 0:
                        curve["sweeps"].append(sweeps)
                        curve["seconds"].append([])
                        curve["error"].append(answer["error"])
                    curve["seconds"][i].append(answer["seconds"])
                    curve["memory"] = answer["memory"]
                    # Every repetition asks for the numbers of sweeps of the first one.
                    if answer["seconds"] > longest if turn == 0 else i + 1 == len(curve["sweeps"]):
                        del running[name]
            print(f"  round {turn + 1} of {rounds}", flush=True)
    return curves


def many(sizes: Sequence[int]) -> dict[str, float]:
    """One sweep with many concepts (n, p, k), in a process of its own."""
    spec = json.dumps({"many": list(sizes)})
    done = subprocess.run([sys.executable, "-m", MODULE, spec], capture_output=True, text=True, cwd=ROOT, check=True)
    return json.loads(done.stdout)


def levels_table(found: Mapping[str, Any]) -> str:
    """A few levels of one problem as a Markdown table: least seconds of each method."""
    errors, seconds = found["levels"]["error"], found["levels"]["seconds"]
    picked = sorted({round(x) for x in np.linspace(0, len(errors) - 1, min(6, len(errors)))})
    rows = [
        (name, *("" if seconds[name][level] is None else f"{seconds[name][level]:.3g}" for level in picked))
        for name in found["curves"]
    ]
    return table(rows, ("seconds to the relative error", *(f"{errors[level]:.4f}" for level in picked)))


def factorization_table(result: Mapping[str, Any]) -> str:
    """Error against seconds of the factorizations, their compile time and memory, and the sweep with many concepts."""
    parts = []
    for name, found in result["problems"].items():
        levels = firsts(found["levels"])
        sooner = sum(ours < others for ours, others in levels)
        parts.append(
            f"{name}, {' x '.join(map(str, found['shape']))}, {found['k']} concepts: ours is there sooner at "
            f"{sooner} of {len(levels)} error levels.\n\n{levels_table(found)}"
        )
    last = list(result["problems"].values())[-1]
    rows = [
        (name, f"{c['compile_seconds']:.1f}", f"{(c['memory'] - c['memory_before']) / 1e6:.0f}")
        for name, c in last["curves"].items()
    ]
    compilation, peak = "first call - second call (compilation), s", "peak memory over that at the start, MB"
    many = result["many"]
    parts += [
        table(rows, ("method, last problem", compilation, peak)),
        f"{many['k']:,} concepts on {many['n']:,} x {many['p']}: {many['seconds']:.1f} s a sweep, "
        f"{many['memory'] / 1e9:.1f} GB at most, of which A, Z and D are {many['arrays'] / 1e9:.1f} GB; "
        f"{many['compile_seconds']:.1f} s to compile.",
    ]
    return "\n\n".join(parts)


def arguments() -> argparse.Namespace:
    """The flags of this benchmark."""
    parser = argument_parser(__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--faces", type=home, help='.npz with 8-bit images in "x" (ORL, 400 x 1024, for the figures)')
    parser.add_argument("--rounds", type=int, help="repetitions")
    return parser.parse_args()


def problems_of(args: argparse.Namespace) -> dict[str, tuple[np.ndarray, int, str, float, bool]]:
    """By name: A, k, start, longest run in seconds, whether each number of sweeps is a run of its own."""
    n, p, k = (200, 40, 6) if args.quick else (20_000, 512, 256)
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
            curves = measure(path, longest, rounds, grid, anew)
            beginning = float(np.linalg.norm(a - z @ d) / np.linalg.norm(a))
            levels = levels_of(curves, beginning)
            problems[name] = {"shape": a.shape, "k": k, "start": beginning, "curves": curves, "levels": levels}
            if pairs := firsts(levels):
                ratios[f"{name}: share of levels with ours sooner"] = sum(a < b for a, b in pairs) / len(pairs)
                # A level never reached by ours has the ratio 0, so that it cannot hide.
                ratios[f"{name}: others / ours, least over levels"] = min(b / a for a, b in pairs)
    concepts = many((100, 30, 300) if args.quick else (20_000, 512, 10_000))
    versions = {name: __import__(name).__version__ for name in ("sklearn", "torch")}
    result = {"problems": problems, "many": concepts, "rounds": rounds, "versions": versions, "ratios": ratios}
    print("\n" + factorization_table(result))
    write("factorization", result, args.out)


if __name__ == "__main__":
    run(main)
