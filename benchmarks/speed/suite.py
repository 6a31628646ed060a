"""Runs the suite and says which ratios got worse than the committed ones.

make bench          python -m benchmarks.speed.suite [--only step layer ...]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import REMOVED, ROOT, record
from deepnmf_jax.programs import run

SUITE = ("step", "port", "inference", "layer", "growth", "startup")
# Repetitions of one run on a shared machine differ by this much.
NOISE = 0.15
# Ratios of which less is better; of the others more is.
LESS = ("ours / our CNN", "data and augmentation / ours", "second start", "memory,")
# Ratios that tell of the port alone, or of what is no more, or that need a clone of the authors' code.
NOT_OURS = ("port / port's CNN", REMOVED, "authors")


def worse(old: dict[str, float], new: dict[str, float], noise: float = NOISE) -> list[str]:
    """One line for each ratio of `old` that is worse in `new` by more than `noise` of its value, or is missing."""
    lines = []
    for name, before in old.items():
        if any(part in name for part in NOT_OURS):
            continue
        if name not in new:
            lines.append(f"{name}: {before:.2f} before, not measured now")
            continue
        change = new[name] / before - 1
        if any(part in name for part in LESS):
            change = -change
        if change < -noise:
            lines.append(f"{name}: {before:.2f} before, {new[name]:.2f} now")
    return lines


def main() -> None:
    """Runs the benchmarks into a folder of their own; exit status 1 if anything got slower."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=SUITE, default=SUITE)
    parser.add_argument("--quick", action="store_true", help="only see that all run; nothing is compared")
    args = parser.parse_args()
    slower: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for question in args.only:
            print(f"\n## {question}\n", flush=True)
            command = [sys.executable, "-m", f"benchmarks.speed.{question}", f"--out={folder}"]
            subprocess.run(command + ["--quick"] * args.quick, cwd=ROOT, check=True)
            new = json.loads((Path(folder) / f"{question}.json").read_text())["ratios"]
            if not args.quick:
                slower += worse(record(question)["ratios"], new)
    if args.quick:
        return
    print("\nslower than the committed results:" if slower else "\nnothing is slower than the committed results")
    for line in slower:
        print(" ", line)
    sys.exit(bool(slower))


if __name__ == "__main__":
    run(main)
