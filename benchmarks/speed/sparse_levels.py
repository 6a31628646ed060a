"""Whole fits of a sparse matrix: error against seconds of `NMF.fit` beside scikit-learn's three solvers.

python -m benchmarks.speed.sparse_levels [--rounds 2]

As benchmarks/speed/factorization.py has it for dense data, of what users call alone: scikit-learn's fit ends with the
codes of its last sweep, ours with codes solved for the dictionary.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import argument_parser, write
from benchmarks.speed.factorization import GRID, firsts, levels_of, levels_table, measure
from benchmarks.speed.programs.factorizers import relative_error
from benchmarks.speed.sparse import words
from deepnmf_jax.programs import run

METHODS = ("ours: NMF.fit", "scikit-learn: cd", "scikit-learn: mu", "scikit-learn: mini-batch")
LONGEST = 5.0


def sparse_levels_table(result: Mapping[str, Any]) -> str:
    """A few error levels, and at how many ours is there first."""
    n, p, entries, k = result["sizes"]
    levels = firsts(result["levels"])
    sooner = sum(ours < others for ours, others in levels)
    return (
        f"{n:,} x {p:,}, {entries:,} entries, {k} concepts: `NMF.fit` is there sooner than scikit-learn's fastest at "
        f"{sooner} of {len(levels)} error levels.\n\n{levels_table(result)}"
    )


def main() -> None:
    """Measures, prints the table, writes sparse_levels.json."""
    parser = argument_parser(__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=2, help="repetitions")
    args = parser.parse_args()
    n, p, entries, k = (200, 80, 1500, 4) if args.quick else (20_000, 5_000, 1_000_000, 20)
    a, rng = words(n, p, entries), np.random.default_rng(1)
    size = np.sqrt(a.mean() / k)
    z, d = (size * np.abs(rng.standard_normal(shape, np.float32)) for shape in ((n, k), (k, p)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "problem.npz"
        np.savez(path, data=a.data, indices=a.indices, indptr=a.indptr, z=z, d=d)
        curves = measure(path, LONGEST, args.rounds, GRID[:4] if args.quick else GRID, True, METHODS)
    levels = levels_of(curves, relative_error(a, z, d))
    pairs = firsts(levels)
    ratios = {"share of levels with ours sooner": sum(ours < others for ours, others in pairs) / max(len(pairs), 1)}
    result = {"sizes": (n, p, entries, k), "curves": curves, "levels": levels, "ratios": ratios}
    print("\n" + sparse_levels_table(result))
    write("sparse_levels", result, args.out)


if __name__ == "__main__":
    run(main)
