"""Timing of programs side by side, and the files that keep the samples."""

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepnmf_jax.experiments.tables import ROOT

TRAINING = "benchmarks.speed.programs.training"
RESULTS = ROOT / "benchmarks" / "results"


class Worker:
    """A process that has built one program of speed/programs/training.py and runs it once for each `seconds()`.

    Each program has a process of its own, so that neither library's threads or memory are in the other's way. Another
    `module` answers each line with a line (`ask`); `greeting` is what its first line begins with.
    """

    def __init__(self, spec: Mapping[str, Any], module: str = TRAINING, greeting: str = "ready"):
        # A file, because a pipe that nobody reads blocks a process that says much.
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            cwd=ROOT,
        )
        self.greeting = self._read()
        if not self.greeting.startswith(greeting):
            self.stop()
            self.errors.seek(0)
            raise RuntimeError(f"{spec} did not start: {self.greeting} {self.errors.read()[-2000:]}")

    def seconds(self) -> float:
        """Runs the program once; its wall time."""
        return float(self.ask(""))

    def ask(self, line: str) -> str:
        """Sends a line; the line that comes back."""
        assert self.process.stdin
        print(line, file=self.process.stdin, flush=True)
        return self._read()

    def stop(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait()

    def _read(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()


def interleave(specs: Mapping[str, Mapping[str, Any]], rounds: int, processes: int = 1) -> dict[str, list[float]]:
    """Seconds of each program, in turns: what slows the machine for a while slows all of them.

    With several `processes`, each program is started that often, `rounds` samples each: one process can be a fifth
    slower than the next for as long as it lives. The turns go backwards in every second one, because what a program
    does to the caches is paid by its successor.
    """
    samples: dict[str, list[float]] = {name: [] for name in specs}
    for process in range(processes):
        workers = {}
        try:
            for name, spec in specs.items():
                workers[name] = Worker(spec)
            turns = list(workers.items())[:: -1 if process % 2 else 1]
            for _ in range(rounds):
                for name, worker in turns:
                    samples[name].append(worker.seconds())
        finally:
            for worker in workers.values():
                worker.stop()
    return samples


def best(samples: Sequence[float]) -> float:
    """The smallest sample: the machine's disturbances only ever add."""
    return float(min(samples))


def machine() -> dict[str, Any]:
    """What the numbers depend on: processor, cores, versions, commit."""
    import jax
    import jaxlib

    from deepnmf_jax.training.environment import usable_cores

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0] if names else cpu
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT)
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--", "deepnmf_jax", "benchmarks/*.py"],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": str(jax.devices()[0].device_kind),
        "cpu": cpu,
        "cores": usable_cores(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "numpy": np.__version__,
        "torch": importlib.metadata.version("torch") if importlib.util.find_spec("torch") else None,
        "commit": commit.stdout.strip() + ("+changes" if changed.stdout.strip() else ""),
    }


def write(question: str, result: Mapping[str, Any], out: Path = RESULTS) -> None:
    """Keeps a result as JSON: the machine, every sample, and under "ratios" what later runs are compared with."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{question}.json"
    path.write_text(json.dumps({"machine": machine(), **result}, indent=1) + "\n")
    print(f"\nwritten: {path}\n")


def argument_parser(description: str) -> argparse.ArgumentParser:
    """The flags that all benchmarks share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON files")
    parser.add_argument("--quick", action="store_true", help="small and few: to see that it runs, not to measure")
    return parser


def arguments(description: str) -> argparse.Namespace:
    """The values of these flags, for a benchmark that has no others."""
    return argument_parser(description).parse_args()
