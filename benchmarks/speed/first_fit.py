"""How long does the first `NMF.fit` of a process take, compilation and all, beside scikit-learn's?

python -m benchmarks.speed.first_fit [--faces orl.npz]
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import ROOT, argument_parser, write
from benchmarks.speed.factorization import digits, faces
from deepnmf_jax.experiments.tables import table
from deepnmf_jax.programs import home, run

PROGRAM = "benchmarks.speed.programs.first_fit"
COLD, WARM, OTHER = "ours, first start", "ours, programs on disk", "scikit-learn"


def fits(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What one fresh process says."""
    command = [sys.executable, "-m", PROGRAM, json.dumps(spec)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def measure(problems: Mapping[str, tuple[np.ndarray, int]], rounds: int) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Of each problem and each way to start what so many processes say, in turns."""
    samples: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for name, (a, k) in problems.items():
        found: dict[str, list[dict[str, Any]]] = {COLD: [], WARM: [], OTHER: []}
        with tempfile.TemporaryDirectory() as folder:
            path, cache = Path(folder) / "a.npy", Path(folder) / "cache"
            np.save(path, a)
            spec = {"library": "ours", "problem": str(path), "k": k, "cache": str(cache)}
            fits(spec)  # fills the cache
            for _ in range(rounds):
                found[COLD].append(fits(spec | {"cache": None}))
                found[WARM].append(fits(spec))
                found[OTHER].append(fits(spec | {"library": "scikit-learn"}))
        samples[name] = found
    return samples


def first_fit_table(result: Mapping[str, Any]) -> str:
    """The least seconds of the first and of a later fit, those of all threads together, and the error reached."""
    rows = []
    for name, found in result["samples"].items():
        for start, told in found.items():
            first, later = (min(each["fits"][i] for each in told) for i in (0, -1))
            cpu = min(each["cpu"][0] for each in told)
            rows.append((name, start, f"{first:.2f}", f"{cpu:.2f}", f"{later:.3f}", f"{told[0]['error']:.4f}"))
    columns = ("data", "start", "first fit, s", "of the processor, s", "third fit, s", "relative error")
    return table(rows, columns)


def main() -> None:
    """Measures, prints the table, writes first_fit.json."""
    parser = argument_parser(main.__doc__ or "")
    parser.add_argument("--faces", type=home, help='.npz with 8-bit images in "x" (ORL, 400 x 1024)')
    args = parser.parse_args()
    problems = {"digits, 16 concepts": (digits(100 if args.quick else None), 16)}
    if args.faces:
        problems["faces, 40 concepts"] = (faces(args.faces), 40)
    samples = measure(problems, 1 if args.quick else 3)
    ratios = {}
    for name, found in samples.items():
        # Of the processor: what else runs on the machine changes these less.
        first = {start: min(each["cpu"][0] for each in told) for start, told in found.items()}
        ratios |= {f"{name}: {start} / {OTHER}": first[start] / first[OTHER] for start in (COLD, WARM)}
    result = {"samples": samples, "ratios": ratios}
    print(first_fit_table(result))
    write("first_fit", result, args.out)


if __name__ == "__main__":
    run(main)
