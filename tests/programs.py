"""Runs of main.py for the tests, each in a process of its own, on a data set of a few tiny images."""

import atexit
import contextlib
import functools
import importlib
import itertools
import json
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.compilation import compile_as, known_options

ROOT = Path(__file__).resolve().parents[1]
NUM_TRAIN, NUM_VALIDATION, NUM_TEST, NUM_CLASSES = 64, 16, 22, 3
# Of the validation and test images a part is left over for a smaller last batch.
BATCH_SIZE, EVAL_BATCH_SIZE = 8, 12
NUM_EPOCHS, STEPS_PER_EPOCH = 3, NUM_TRAIN // BATCH_SIZE
NUM_STEPS = NUM_EPOCHS * STEPS_PER_EPOCH

SETTINGS = {
    "num_validation": NUM_VALIDATION,
    "batch_size": BATCH_SIZE,
    "eval_batch_size": EVAL_BATCH_SIZE,
    "num_epochs": NUM_EPOCHS,
    "augmentation.crop": 10,
    "augmentation.brightness": 0.2,
    "model.num_iters": 2,
    "model.width": 0.25,
    "seed": 6,
    # Rates so high that the best epoch is not the last.
    "optimizer.learning_rate.nmf": 0.1,
    "optimizer.schedule": "plateau",
    "optimizer.plateau.factor": 0.5,
    "optimizer.plateau.patience": 0,
    "optimizer.plateau.threshold": 0.5,
}
# What main.py is run with: most of a tiny run's time is the tracing of its blocks.
TWO_BLOCKS = {**SETTINGS, "model.features": (32,), "model.kernels": (5, 0)}
# What the metrics and the results of two otherwise equal runs may differ in.
CLOCKS = ("seconds", "images_per_second", "peak_memory", "date", "commit")
LONGEST_RUN = 300.0

# A server that has imported the package forks each program: it starts in no time, as a process of its own all the
# same, with no device or thread inherited.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(
    [__name__, "deepnmf_jax.training.loop", "matplotlib.figure", "matplotlib.backends.backend_agg"]
)


class Finished(NamedTuple):
    """How a program ended: its exit status (negative: the signal that killed it) and what it printed."""

    status: int
    stdout: str
    stderr: str


class Program:
    """A function (of no arguments) in a process of its own, compiled as `kind` says (tests/compilation.py)."""

    def __init__(self, function: Callable[[], None], output: Path, environment: dict[str, str], kind: str):
        self.stdout, self.stderr = output.with_suffix(".out"), output.with_suffix(".err")
        # To look for the options takes a device, which a program is to create itself.
        arguments = (function, (self.stdout, self.stderr), environment, kind, known_options())
        self.process = _processes.Process(target=_call, args=arguments)
        self.process.start()

    def wait_for(self, text: str, times: int = 1) -> None:
        """Returns as soon as stderr holds `text`."""
        started = time.monotonic()
        while not self.stderr.exists() or self.stderr.read_text().count(text) < times:
            assert self.process.is_alive(), f"ended without {text!r}: {self.stderr.read_text()}"
            assert time.monotonic() < started + LONGEST_RUN
            time.sleep(0.005)

    def send(self, number: int) -> None:
        assert self.process.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def end(self, status: int) -> Finished:
        """Waits for the end of the program, which must be with this status."""
        self.process.join(LONGEST_RUN)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        assert self.process.exitcode is not None
        ended = Finished(self.process.exitcode, self.stdout.read_text(), self.stderr.read_text())
        assert ended.status == status, ended
        return ended


def _call(
    function: Callable[[], None],
    files: tuple[Path, Path],
    environment: dict[str, str],
    kind: str,
    options: dict[str, Any],
) -> None:
    for descriptor, path in enumerate(files, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.chdir(ROOT)
    # The server has the settings of the first test that needed it.
    os.environ.update({"XLA_FLAGS": "", **environment})
    import jax

    jax.config.update("jax_platforms", "cpu")
    compile_as(kind, options)
    try:
        function()
    finally:
        # A forked process leaves them out; jax says goodbye to the other processes of a run in one of them.
        atexit._run_exitfuncs()


def _run_main(arguments: list[str], change: Callable[[], None] | None, pictures: bool) -> None:
    sys.path.insert(0, str(ROOT))
    sys.argv = arguments
    if not pictures:
        from deepnmf_jax.training import reports

        reports._draw = lambda *_: None
    if change is not None:
        change()
    runpy.run_path("main.py", run_name="__main__")


class Programs:
    """Starts main.py with the quick start's config on tiny images. All share their compiled programs.

    These are compiled as `kind` says (tests/compilation.py), but for those of `run_from_scratch`.
    """

    def __init__(self, factory: pytest.TempPathFactory, kind: str):
        self.kind = kind
        # With several workers each has a folder in that of the whole test session.
        session = factory.getbasetemp().parent if os.environ.get("PYTEST_XDIST_WORKER") else factory.getbasetemp()
        self.cache = session / "compiled"
        self.folder = factory.mktemp("programs")
        self.images = write_images(session / "images.npz")
        self._outputs = (self.folder / f"output{i}" for i in itertools.count())

    def arguments(self, *flags: str, config: str | None = None) -> list[str]:
        """A command line; `config` stands in place of the tiny run's."""
        settings = {"dataset": self.images, **TWO_BLOCKS} if config is None else {}
        overrides = [f"--config.{name}={value}" for name, value in settings.items()]
        first = f"--config={config or 'configs/quickstart.py'}"
        return ["main.py", first, *overrides, f"--compilation_cache={self.cache}", *flags]

    def start(
        self,
        *flags: str,
        config: str | None = None,
        change: Callable[[], None] | None = None,
        pictures: bool = False,
        **environment: str,
    ) -> Program:
        """Starts main.py with these flags; `change` is called in its process first. Drawing `pictures` takes a third of
        a tiny run's time."""
        run = functools.partial(_run_main, self.arguments(*flags, config=config), change, pictures)
        return self.call(run, **environment)

    def call(self, function: Callable[[], None], **environment: str) -> Program:
        """Starts a function in a process of its own."""
        return Program(function, next(self._outputs), environment, self.kind)

    def run(self, *flags: str, status: int = 0, **options: Any) -> Finished:
        """A run to its end, which must be with this status; for the options see `start`."""
        return self.start(*flags, **options).end(status)

    def evaluate(self, checkpoint: Path, *flags: str) -> dict[str, Any]:
        """What main.py prints of a checkpoint."""
        found = json.loads(self.run("--mode=evaluate", f"--checkpoint={checkpoint}", *flags).stdout)
        assert isinstance(found, dict)
        return found

    def run_from_scratch(self, *flags: str, **environment: str) -> Finished:
        """A run by a Python of its own, as a user starts it."""
        ended = subprocess.run(
            [sys.executable, *self.arguments(*flags)],
            cwd=ROOT,
            env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
            capture_output=True,
            text=True,
            timeout=LONGEST_RUN,
            check=False,
        )
        return Finished(ended.returncode, ended.stdout, ended.stderr)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port: int = probe.getsockname()[1]
        return port


def write_images(path: Path, **changes: np.ndarray) -> Path:
    """A data set of one bright bar in noise; its row is the class."""
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for part, count in (("train", NUM_TRAIN + NUM_VALIDATION), ("test", NUM_TEST)):
        labels = np.arange(count) % NUM_CLASSES
        images = rng.integers(0, 130, (count, 12, 12, 1), np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[3 * label + 2 : 3 * label + 4] += 60
        arrays |= {f"x_{part}": images, f"y_{part}": labels}
    temporary = path.with_name(f"{os.getpid()}.npz")
    np.savez(temporary, **(arrays | changes))
    return temporary.replace(path)


def found_at(place: str) -> tuple[Any, str]:
    """The owner and the name of a function ("module:Class.name") of the training."""
    module, _, path = place.partition(":")
    *parents, name = path.split(".")
    return functools.reduce(getattr, parents, importlib.import_module(f"deepnmf_jax.training.{module}")), name


def stop_at(place: str, call: int, number: int | Exception, after: bool = False) -> None:
    """Makes a function send its process a signal, or raise an error, before (or after) its `call`-th call."""
    owner, name = found_at(place)
    function, calls = getattr(owner, name), itertools.count(1)

    def stop() -> None:
        if isinstance(number, Exception):
            raise number
        os.kill(os.getpid(), number)

    def stopping(*arguments: Any, **options: Any) -> Any:
        now = next(calls) == call
        if now and not after:
            stop()
        result = function(*arguments, **options)
        if now and after:
            stop()
        return result

    setattr(owner, name, stopping)


def stop_in_compilation(number: int) -> None:
    """Makes a process send itself a signal in the first compilation that takes more than 0.3 s."""
    import jax

    def watch(event: str, duration: float, **_: Any) -> None:
        if event.endswith("/jaxpr_to_mlir_module_duration") and not sent:
            timers.append(threading.Timer(0.3, stop))
            timers[-1].start()
        elif event.endswith("/backend_compile_duration"):
            while timers:
                timers.pop().cancel()

    def stop() -> None:
        sent.append(number)
        print("in a compilation", file=sys.stderr, flush=True)
        os.kill(os.getpid(), number)

    timers: list[threading.Timer] = []
    sent: list[int] = []
    jax.monitoring.register_event_duration_secs_listener(watch)


def metrics(workdir: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without clock fields."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in CLOCKS} for line in lines]


def results(workdir: Path) -> dict[str, Any]:
    """results.json without clock fields."""
    content = json.loads((workdir / "results.json").read_text())
    return {k: v for k, v in content.items() if k not in CLOCKS}


def tensorboard_scalars(workdir: Path) -> dict[str, dict[int, float]]:
    """The scalars as TensorBoard shows them: tag -> step -> value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        shown = EventAccumulator(str(workdir / "tensorboard")).Reload()
        return {tag: {e.step: e.value for e in shown.Scalars(tag)} for tag in shown.Tags()["scalars"]}


def saved_state(workdir: Path, kind: str = "latest") -> dict[str, np.ndarray]:
    """The arrays of the newest checkpoint, by name."""
    import jax
    import orbax.checkpoint as ocp

    newest = max((workdir / "checkpoints" / kind).iterdir(), key=lambda folder: int(folder.name))
    with ocp.StandardCheckpointer() as checkpointer:
        tree = checkpointer.restore(newest / "state")
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(tree)}
