"""Timing of programs side by side, and the files that keep the samples."""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax

from deepnmf_jax.experiments.tables import ROOT, as_json
from deepnmf_jax.files import write_atomically
from deepnmf_jax.programs import home
from deepnmf_jax.training.environment import environment

TRAINING = "benchmarks.speed.programs.training"
RESULTS = ROOT / "benchmarks" / "results"
# Of the programs in the records, those of an acceleration that is no more: the records stay whole, no table has them.
REMOVED = "power"

Sampler = Callable[[], float]
"""Runs a program once; its seconds."""


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
        return float(self.ask('{"do": "run"}'))

    def ask(self, line: str) -> str:
        """Sends a line; the line that comes back. RuntimeError: it says what failed, or the process has ended."""
        assert self.process.stdin
        print(line, file=self.process.stdin, flush=True)
        answer = self._read()
        if not answer:
            self.stop()
        if not answer or answer.startswith("failed: "):
            raise RuntimeError(answer.removeprefix("failed: ") or "the process has ended")
        return answer

    def stop(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait()

    def _read(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()


@contextlib.contextmanager
def started(
    specs: Mapping[str, Mapping[str, Any]], module: str = TRAINING, greeting: str = "ready"
) -> Iterator[dict[str, Worker]]:
    """A process for each spec; all end with the block, or when one does not start."""
    workers: dict[str, Worker] = {}
    try:
        for name, spec in specs.items():
            workers[name] = Worker(spec, module, greeting)
        yield workers
    finally:
        for worker in workers.values():
            worker.stop()


@contextlib.contextmanager
def compiled_once() -> Iterator[None]:
    """Within the block the second and third process of a program start without compiling."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = cache
        try:
            yield
        finally:
            del os.environ["JAX_COMPILATION_CACHE_DIR"]


def interleave(specs: Mapping[str, Mapping[str, Any]], rounds: int, processes: int = 1) -> dict[str, list[float]]:
    """Seconds of each program, in turns: what slows the machine for a while slows all of them.

    With several `processes`, each program is started that often, `rounds` samples each: one process can be a fifth
    slower than the next for as long as it lives. The turns go backwards in every second one, because what a program
    does to the caches is paid by its successor.
    """
    samples: dict[str, list[float]] = {name: [] for name in specs}
    for process in range(processes):
        with started(specs) as workers:
            for _ in range(rounds):
                for name in list(workers)[:: -1 if process % 2 else 1]:
                    samples[name].append(workers[name].seconds())
    return samples


def in_turns(
    programs: Mapping[str, Sampler], rounds: int, failed: dict[str, str] | None = None
) -> dict[str, list[float]]:
    """Samples of programs of this process, one after the other in each round, like `interleave`.

    The first that fails ends all; but with `failed` its reason is kept there, and the others go on.
    """
    samples: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name in list(samples):
            try:
                samples[name].append(programs[name]())
            except Exception as error:
                if failed is None:
                    raise
                failed[name] = short(error)
                del samples[name]
    return samples


def timed(run: Callable[[], Any], seconds: float = 0.0) -> Sampler:
    """Seconds of one run to the end of its results, after one that is not counted.

    With `seconds` a sample is the mean over so many runs in a row as take about that long, 200 at most.
    """

    def sample(repeat: int) -> float:
        start = time.perf_counter()
        for _ in range(repeat):
            last = run()
        jax.block_until_ready(last)
        return (time.perf_counter() - start) / repeat

    sample(1)
    return partial(sample, min(max(int(seconds / sample(1)), 1), 200) if seconds else 1)


def short(error: Exception) -> str:
    """A reason in one line."""
    text = f"{type(error).__name__}: {error}"
    if "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower():
        return "out of memory"
    return " ".join(text.split())[-300:]


def best(samples: Sequence[float]) -> float:
    """The smallest sample: the machine's disturbances only ever add."""
    return float(min(samples))


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    return environment("torch")


def provenance(command: str, machine: Mapping[str, Any]) -> str:
    """Where numbers are from, in a line: `python -m benchmarks.COMMAND`, the device, versions, commit, day.

    Older records have the versions and the cores beside the other facts.
    """
    versions, cores = machine.get("versions", machine), machine.get("cpu_count") or machine["cores"]
    where = f"{machine['cpu']}, {cores} cores" if machine["device"] == "cpu" else machine["device"]
    commit, *changes = (machine["commit"] or "unknown").partition("+")
    return "; ".join([
        f"`python -m benchmarks.{command}`",
        f"{where}, Python {versions['python']}, jax {versions['jax']}",
        f"commit {commit[:7]}{' with changes' * any(changes)}",
        *([machine["date"][:10]] if "date" in machine else []),
    ])  # fmt: skip


def record(question: str) -> dict[str, Any]:
    """The committed result of a question."""
    return json.loads((RESULTS / f"{question}.json").read_text())


def write(question: str, result: Mapping[str, Any], out: Path = RESULTS) -> None:
    """Keeps a result as JSON: the machine, every sample, and under "ratios" what later runs are compared with."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{question}.json"
    write_atomically(path, as_json({"machine": machine(), **result}, digits=6))
    print(f"\nwritten: {path}\n")


def argument_parser(description: str) -> argparse.ArgumentParser:
    """The flags that all benchmarks share.

    Raises:
        RuntimeError: JAX has no device of the kind that JAX_PLATFORMS names.
    """
    _check_device()
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=home, default=RESULTS, help="folder of the JSON files")
    parser.add_argument("--quick", action="store_true", help="small and few: to see that it runs, not to measure")
    return parser


def _check_device() -> None:
    if os.environ.get("JAX_PLATFORMS", "cpu") in ("", "cpu"):
        return
    # In a process of its own: this one would take a GPU's memory from those that are timed.
    script = (
        "from deepnmf_jax.programs import run; from deepnmf_jax.training.devices import backend\n"
        "run(lambda: backend() and 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().removeprefix("RuntimeError: "))


def arguments(description: str) -> argparse.Namespace:
    """The values of these flags, for a benchmark that has no others."""
    return argument_parser(description).parse_args()
