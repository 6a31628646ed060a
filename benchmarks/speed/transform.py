"""Codes of new data for a dictionary that is known: `NMF.encode` beside scikit-learn's `NMF.transform`.

python -m benchmarks.speed.transform [--faces orl.npz]

Both get the same new data and the same dictionary, found by ours in other data of the kind. Each ends by its own test
at its default tolerance, so the error says whose codes are nearer to the optimum.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import ROOT, argument_parser, best, write
from benchmarks.speed.factorization import digits, faces, parts
from benchmarks.speed.sparse import words
from deepnmf_jax.experiments.tables import table
from deepnmf_jax.programs import home, run

PROGRAM = "benchmarks.speed.programs.transform"
OURS, OTHER = "ours", "scikit-learn"
KL = {"solver": "mu", "beta_loss": "kullback-leibler"}


class Problem(NamedTuple):
    """A matrix of which the first rows are fitted, and the others are new."""

    a: Any  # (n, p), an array or sparse
    k: int
    known: int
    how: Mapping[str, Any] = {}


def problems_of(quick: bool, orl: Path | None) -> dict[str, Problem]:
    """By name; a small dense and a small sparse one where it is to be quick."""
    if quick:
        return {"digits": Problem(digits(100), 6, 60), "sparse words": Problem(words(200, 80, 1500), 4, 100, KL)}
    found = {"digits": Problem(digits(None), 16, 1000)}
    if orl:
        found["faces"] = Problem(faces(orl), 40, 300)
    found["synthetic"] = Problem(parts(10_000, 512, 256), 256, 8_000)
    counts = words(20_000, 5_000, 1_000_000)
    found["sparse words"] = Problem(counts, 20, 10_000)
    found["sparse words, Kullback-Leibler"] = Problem(counts, 20, 10_000, KL)
    return found


def measure(problem: Problem, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """What so many processes of each library say, in turns."""
    from scipy.sparse import csr_array, issparse, save_npz

    samples: dict[str, list[dict[str, Any]]] = {OURS: [], OTHER: []}
    with tempfile.TemporaryDirectory() as folder:
        a = csr_array(problem.a)
        for name, part in (("known", a[: problem.known]), ("new", a[problem.known :])):
            save_npz(Path(folder) / f"{name}.npz", part, compressed=False)
        spec = {"problem": folder, "dense": not issparse(problem.a), "k": problem.k, "how": dict(problem.how)}
        for _ in range(rounds):
            for library, told in samples.items():
                command = [sys.executable, "-m", PROGRAM, json.dumps(spec | {"library": library})]
                done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
                told.append(json.loads(done.stdout))
    return samples


def transform_table(result: Mapping[str, Any]) -> str:
    """The least seconds of the first and of a later call, and the error."""
    rows = []
    for name, (n, p) in result["shapes"].items():
        for library, told in result["samples"][name].items():
            first = best([each["seconds"][0] for each in told])
            label = f"{name}, {n:,} x {p:,}, {result['k'][name]} concepts"
            rows.append((label, library, f"{first:.3g}", f"{later(told):.3g}", f"{told[0]['error']:.5f}"))
    return table(rows, ("new data", "library", "first call, s", "later call, s", "relative error"))


def later(told: list[dict[str, Any]]) -> float:
    """The least seconds of a call that is not the first of its process."""
    return best([seconds for each in told for seconds in each["seconds"][1:]])


def main() -> None:
    """Measures, prints the table, writes transform.json."""
    parser = argument_parser(__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--faces", type=home, help='.npz with 8-bit images in "x" (ORL, 400 x 1024)')
    args = parser.parse_args()
    problems = problems_of(args.quick, args.faces)
    samples = {}
    for name, problem in problems.items():
        samples[name] = measure(problem, 1 if args.quick else 2)
        print(f"{name} is measured", flush=True)
    result = {
        "shapes": {name: (p.a.shape[0] - p.known, p.a.shape[1]) for name, p in problems.items()},
        "k": {name: p.k for name, p in problems.items()},
        "samples": samples,
        "ratios": {f"{name}: {OTHER} / {OURS}": later(s[OTHER]) / later(s[OURS]) for name, s in samples.items()},
    }
    print(transform_table(result))
    write("transform", result, args.out)


if __name__ == "__main__":
    run(main)
