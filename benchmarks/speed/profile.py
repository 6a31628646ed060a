"""Where does a training step's time go? The program's own operations, summed by what they belong to.

python -m benchmarks.speed.profile

JAX's profiler writes how long each compiled operation ran; the operation's name in the source (`op_name` of the
compiled program) says what it is part of. Operations that run side by side count each: the sum is above the step.
"""

import collections
import gzip
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.harness import REMOVED, arguments, timed, write
from benchmarks.speed.programs.training import TINY, compile_train_step, repeated_step
from benchmarks.speed.step import BY_BLOCK
from deepnmf_jax.experiments.tables import table
from deepnmf_jax.programs import run
from deepnmf_jax.training.devices import keep_freed_memory

BATCHES, ROUNDS = (50, 128), 15
STEPS: dict[str, dict[str, Any]] = {
    "20 iterations": {},
    "multistep by block": BY_BLOCK,
    "1 iteration": {"num_iters": 1},
    "CNN": {"layer": "conv"},
}
# The first pattern that an operation's name holds says what it is part of.
PARTS = {
    "iterations: products": r"while/body(?!.*row_sums).*dot_general",
    "iterations: the rest": r"while/body",
    "gradient of the inference": r"transpose.*infer_unchecked",
    "inference outside the loop": r"infer_unchecked",
    "sum 1 of patches": r"nmf\.activity|/conv/(div|row_sums)",
    "patches": r"/(nmf|conv)/(slice|concatenate|max|pad|add_any|transpose|reshape|copy|jit|select)",
    "convolution": r"/conv/",
    "1x1": r"/mix/",
    "batch norm": r"/bn_",
    "pooling": r"_pool|/block\d+/(reduce_window|div|mul)",
    "augmentation": r"vmap",
}
OTHERS = "loss, Adam, others"
BACKWARD = "of it the backward"


def part_of(name: str) -> str:
    """What an operation of the step belongs to, by its name in the source."""
    return next((part for part, pattern in PARTS.items() if re.search(pattern, name)), OTHERS)


def names_of(program: str) -> dict[str, str]:
    """Names in the source by names in a compiled program, given as its text. Loops are left out: their bodies count."""
    found = re.findall(r'^\s*(?:ROOT )?%([\w.\-]+) = .*?metadata=\{op_name="([^"]*)"', program, re.M)
    return {operation: name for operation, name in found if not operation.startswith("while")}


def seconds_by_part(trace: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, float]:
    """Seconds of a profiler's trace (Chrome's format) by part, the longest first; BACKWARD is not a part, but what of
    them is the backward's."""
    total: collections.Counter[str] = collections.Counter()
    for event in trace["traceEvents"]:
        if event.get("ph") == "X" and event["name"] in names:
            name, seconds = names[event["name"]], event["dur"] / 1e6
            total[part_of(name)] += seconds
            if "transpose(" in name:
                total[BACKWARD] += seconds
    return dict(total.most_common())


class Step:
    """A compiled step that is timed and traced."""

    def __init__(self, batch: int, **settings: Any):
        program, arguments = compile_train_step(batch, **settings)
        self.names = names_of(program.as_text())
        self.seconds = timed(repeated_step(program, *arguments))

    def trace(self) -> dict[str, float]:
        """One step; seconds of its parts."""
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder):
                self.seconds()
            (path,) = Path(folder).rglob("*.trace.json.gz")
            return seconds_by_part(json.loads(gzip.decompress(path.read_bytes())), self.names)


def profile(steps: Mapping[str, Step], rounds: int) -> dict[str, Any]:
    """Seconds of each step, and of its parts in each of as many others, in turns."""
    found: dict[str, Any] = {name: {"samples": [], "parts": collections.defaultdict(list)} for name in steps}
    for step in steps.values():
        for _ in range(2):
            step.seconds()
    for _ in range(rounds):
        for name, step in steps.items():
            found[name]["samples"].append(step.seconds())
            for part, seconds in step.trace().items():
                found[name]["parts"][part].append(seconds)
    return found


def medians(step: Mapping[str, Any]) -> dict[str, float]:
    """Of the seconds of each part, and their sum."""
    middle = {part: float(np.median(seconds)) for part, seconds in step["parts"].items()}
    return middle | {"sum": sum(seconds for part, seconds in middle.items() if part != BACKWARD)}


def profile_table(result: Mapping[str, Any]) -> str:
    """Median milliseconds of each part, a column a step and batch size."""
    steps = {
        f"{name}, {batch}": step
        for batch, found in result["batches"].items()
        for name, step in found.items()
        if REMOVED not in name
    }
    columns = {name: medians(step) for name, step in steps.items()}
    parts = [*PARTS, OTHERS, "sum", BACKWARD]
    rows = [[part, *(f"{1e3 * column.get(part, 0):.1f}" for column in columns.values())] for part in parts]
    rows.append(["the step itself", *(f"{1e3 * np.median(step['samples']):.1f}" for step in steps.values())])
    return table(rows, ["ms", *steps])


def main() -> None:
    """Measures, prints the table, writes profile.json."""
    args = arguments(__doc__.splitlines()[0] if __doc__ else "")
    keep_freed_memory()
    batches, rounds = ((2,), 2) if args.quick else (BATCHES, ROUNDS)
    chosen = ("1 iteration", "CNN") if args.quick else STEPS
    tiny = TINY if args.quick else {}
    result: dict[str, Any] = {"batches": {}, "ratios": {}}
    for batch in batches:
        steps = profile({name: Step(batch, **{**tiny, **STEPS[name]}) for name in chosen}, rounds)
        result["batches"][str(batch)] = steps
        for name, step in steps.items():
            parts = medians(step)
            result["ratios"][f"batch {batch}: {name}: backward / sum"] = parts[BACKWARD] / parts["sum"]
    print(profile_table(result))
    write("profile", result, args.out)


if __name__ == "__main__":
    run(main)
