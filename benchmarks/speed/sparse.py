"""Kullback-Leibler divergence on a large sparse matrix: seconds and memory of NMF beside scikit-learn's.

python -m benchmarks.speed.sparse [--rows 100000 --columns 20000 --entries 20000000]

Both make the same multiplicative sweeps from the same factors, each library in a process of its own. A fit of ours ends
with a solve for the codes, which `encode` makes again and which is timed there. A sweep costs what the longer fit takes
beyond the shorter one, without those solves, divided by the sweeps between. The first fit of a process compiles too.
Seconds are the processor's, of all threads: what else runs on the machine changes these less.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import ROOT, argument_parser, record, write
from deepnmf_jax.experiments.tables import table
from deepnmf_jax.programs import run

PROGRAM = "benchmarks.speed.programs.sparse"
OURS, OTHER = "ours", "scikit-learn"
K = 20
# Numbers of sweeps of the first fit, of the same again, and of a longer one.
SWEEPS = (2, 2, 12)


def words(n: int, p: int, entries: int, topics: int = K) -> Any:
    """Counts of p words in n documents, a `csr_array` in float32 with so many entries above 0.

    Each document has two topics, and each topic all words in an order of its own, of probability ~ rank^-0.7.
    """
    from scipy.sparse import coo_array

    rng = np.random.default_rng(0)
    draws = -(-entries * 5 // (4 * n))
    cumulated = np.cumsum(np.arange(1, p + 1) ** -0.7)
    ranks = np.searchsorted(cumulated, rng.random((n, draws)) * cumulated[-1]).astype(np.int32)
    order = np.stack([rng.permutation(p) for _ in range(topics)]).astype(np.int32)
    two = rng.integers(0, topics, (n, 2))
    which = np.where(rng.random((n, draws)) < 0.7, two[:, :1], two[:, 1:])
    columns = order[which, np.minimum(ranks, p - 1)]
    rows = np.repeat(np.arange(n, dtype=np.int32), draws)
    a = coo_array((np.ones(n * draws, np.float32), (rows, columns.ravel())), shape=(n, p)).tocsr().tocoo()
    if a.nnz < entries:
        raise ValueError(f"{n} x {p} words have {a.nnz} entries above 0, fewer than {entries}; ask for fewer")
    kept = np.sort(rng.permutation(a.nnz)[:entries])
    return coo_array((a.data[kept], (a.row[kept], a.col[kept])), shape=(n, p)).tocsr()


def measure(n: int, p: int, entries: int, libraries: Sequence[str]) -> dict[str, Any]:
    """What each library's process says."""
    from scipy.sparse import save_npz

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        a, rng = words(n, p, entries), np.random.default_rng(1)
        size = np.sqrt(a.mean() / K)
        save_npz(Path(folder) / "a.npz", a, compressed=False)
        for name, shape in (("z", (n, K)), ("d", (K, p))):
            np.save(Path(folder) / f"{name}.npy", size * np.abs(rng.standard_normal(shape, np.float32)))
        del a
        for library in libraries:
            spec = json.dumps({"library": library, "problem": folder, "sweeps": SWEEPS})
            done = subprocess.run(
                [sys.executable, "-m", PROGRAM, spec], cwd=ROOT, check=True, capture_output=True, text=True
            )
            found[library] = json.loads(done.stdout)
            print(f"{library}: {found[library]}", flush=True)
    return found


def codes_of(told: Mapping[str, Any]) -> list[float]:
    """Seconds of the solve for codes at the end of each fit; scikit-learn's has none."""
    return told.get("codes", [0.0] * len(SWEEPS))


def per_sweep(told: Mapping[str, Any]) -> float:
    """Seconds of a sweep."""
    _, short, long = (fit - codes for fit, codes in zip(told["cpu"], codes_of(told), strict=True))
    return (long - short) / (SWEEPS[2] - SWEEPS[1])


def sparse_table(result: Mapping[str, Any]) -> str:
    """Seconds of a sweep and of a fit, memory, and the error reached."""
    n, p, entries = result["sizes"]
    rows = [
        (
            library,
            f"{per_sweep(told):.2f}",
            f"{told['cpu'][2]:.0f}",
            f"{codes_of(told)[2]:.0f}",
            f"{max(told['cpu'][0] - told['cpu'][1], 0):.0f}",
            f"{(told['memory'] - told['memory_before']) / 1e9:.2f}",
            f"{told['error'][2]:.1f}",
        )
        for library, told in result["samples"].items()
    ]
    columns = (
        f"{n:,} x {p:,}, {entries:,} entries, {K} concepts",
        "a sweep, s",
        f"fit of {SWEEPS[2]} sweeps, s",
        "of that the last solve for codes, s",
        "first fit - second fit (compilation), s",
        "peak memory beside the matrix, GB",
        "root of twice the divergence",
    )
    return table(rows, columns)


def main() -> None:
    """Measures, prints the table, writes sparse.json."""
    parser = argument_parser(main.__doc__ or "")
    parser.add_argument("--rows", type=int, default=100_000, help="documents")
    parser.add_argument("--columns", type=int, default=20_000, help="words")
    parser.add_argument("--entries", type=int, default=20_000_000, help="counts above 0")
    parser.add_argument("--only", choices=(OURS, OTHER), help="measure this one anew; of the other the record is kept")
    args = parser.parse_args()
    sizes = (500, 200, 5000) if args.quick else (args.rows, args.columns, args.entries)
    samples = record("sparse")["samples"] if args.only else {}
    samples |= measure(*sizes, (args.only,) if args.only else (OURS, OTHER))
    sweep, memory = (
        [of(samples[library]) for library in (OURS, OTHER)]
        for of in (per_sweep, lambda told: told["memory"] - told["memory_before"])
    )
    ratios = {
        f"a sweep: {OTHER} / {OURS}": sweep[1] / sweep[0],
        f"memory, {OURS} / {OTHER}": memory[0] / max(memory[1], 1),
    }
    result = {"sizes": sizes, "sweeps": SWEEPS, "samples": samples, "ratios": ratios}
    print(sparse_table(result))
    write("sparse", result, args.out)


if __name__ == "__main__":
    run(main)
