"""Where does a training step's time go? The program's own operations, summed by what they belong to.

python -m benchmarks.profile

JAX's profiler writes how long each compiled operation ran; the operation's name in the source (`op_name` of the
compiled program) says what it is part of. Operations that run side by side count each: the sum is above the step.
"""

import argparse
import collections
import gzip
import json
import re
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from benchmarks.harness import arguments, table, write
from benchmarks.step import ACCELERATED
from benchmarks.workers import compile_train_step
from deepnmf_jax.training.devices import keep_freed_memory

BATCH, TRACED = 50, 10
STEPS: dict[str, dict[str, Any]] = {
    "20 iterations": {},
    "4 power": ACCELERATED,
    "1 iteration": {"num_iters": 1},
    "CNN": {"layer": "conv"},
}
# The first pattern that an operation's name holds says what it is part of.
PARTS = {
    "iterations: products": r"while/body.*dot_general",
    "iterations: the rest": r"while/body",
    "gradient of the inference": r"transpose.*infer_unchecked",
    "inference outside the loop": r"infer_unchecked.*(dot_general|/div|concatenate)",
    "sum 1 of patches": r"infer_unchecked|nmf\.activity|/conv/(div|row_sums)",
    "patches": r"/(nmf|conv)/(slice|concatenate|max|pad|add_any|transpose|reshape|copy|jit|select)",
    "convolution": r"/conv/",
    "1x1": r"/mix/",
    "batch norm": r"/bn_",
    "pooling": r"_pool",
    "augmentation": r"vmap",
}
OTHERS = "loss, Adam, others"


def part_of(name: str) -> str:
    """What an operation of the step belongs to, by its name in the source."""
    return next((part for part, pattern in PARTS.items() if re.search(pattern, name)), OTHERS)


def names_of(program: str) -> dict[str, str]:
    """Names in the source by names in a compiled program, given as its text. Loops are left out: their bodies count."""
    found = re.findall(r'^\s*(?:ROOT )?%([\w.\-]+) = .*?metadata=\{op_name="([^"]*)"', program, re.M)
    return {operation: name for operation, name in found if not operation.startswith("while")}


def seconds_by_part(trace: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, float]:
    """Seconds of a profiler's trace (Chrome's format) by part, the longest first."""
    total: collections.Counter[str] = collections.Counter()
    for event in trace["traceEvents"]:
        if event.get("ph") == "X" and event["name"] in names:
            total[part_of(names[event["name"]])] += event["dur"] / 1e6
    return dict(total.most_common())


def profile(batch: int, traced: int, **settings: Any) -> dict[str, Any]:
    """Seconds of one step, and of its parts."""
    step, (state, *data) = compile_train_step(batch, **settings)
    for _ in range(3):
        state = step(state, *data)
    jax.block_until_ready(state)
    walls = []
    for _ in range(traced):
        started = time.perf_counter()
        state = jax.block_until_ready(step(state, *data))
        walls.append(time.perf_counter() - started)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(traced):
                state = jax.block_until_ready(step(state, *data))
        (path,) = Path(folder).rglob("*.trace.json.gz")
        trace = json.loads(gzip.decompress(path.read_bytes()))
    parts = seconds_by_part(trace, names_of(step.as_text()))
    return {"samples": walls, "parts": {part: seconds / traced for part, seconds in parts.items()}}


def summary(steps: Mapping[str, Any]) -> str:
    """Milliseconds of each part, a column a step."""
    parts = [*PARTS, OTHERS]
    rows = [[part, *(f"{1e3 * step['parts'].get(part, 0):.1f}" for step in steps.values())] for part in parts]
    rows.append(["sum", *(f"{1e3 * sum(step['parts'].values()):.1f}" for step in steps.values())])
    rows.append(["step, least", *(f"{1e3 * min(step['samples']):.1f}" for step in steps.values())])
    return table(rows, ["ms", *steps])


def main() -> None:
    """Measures, prints the table, writes profile.json."""
    args: argparse.Namespace = arguments(__doc__.splitlines()[0] if __doc__ else "")
    keep_freed_memory()
    batch, traced = (2, 2) if args.quick else (BATCH, TRACED)
    tiny: dict[str, Any] = {"width": 0.25, "side": 12} if args.quick else {}
    steps = {name: profile(batch, traced, **settings, **tiny) for name, settings in STEPS.items()}
    print(summary(steps))
    ratios = {
        f"{name}: sum / products of the iterations": sum(step["parts"].values()) / step["parts"]["iterations: products"]
        for name, step in steps.items()
        if "iterations: products" in step["parts"]
    }
    write("profile", {"batch": batch, "steps": steps, "ratios": ratios}, args.out)


if __name__ == "__main__":
    main()
