"""Trains the paper's four networks by its own recipe, five seeds of each at once, in slices of some minutes.

python -m deepnmf_jax.experiments.paper --dataset=cifar10.pack --runs=runs/gpu --minutes=9 [--config.KEY=VALUE ...]

Networks that have a results.json are done, the next goes on from its newest checkpoint: call it again until it says
that all are done. Every run is one of main.py, and needs jax, flax, optax, orbax, chex, numpy, pillow, ml_collections,
and no other package. With --archive=FILE the records and the newest checkpoint of the unfinished run are kept in one
file, from which a later call on another machine goes on (benchmarks/gpu/session.sh).
"""

import argparse
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

from deepnmf_jax.core.checks import check_integer, check_number
from deepnmf_jax.experiments.tables import ROOT
from deepnmf_jax.experiments.trials import settings_of
from deepnmf_jax.files import write_atomically
from deepnmf_jax.programs import check_settings, check_target, home, run
from deepnmf_jax.training.locks import locked, make_workdir

NETWORKS = ("cnmf_1x1", "cnn_1x1", "cnmf", "cnn")
# Seconds that a run gets to end its program and save, once it is asked to stop.
GRACE = 45.0
# A run that could not even compile is not worth starting.
LEAST = 30.0
# How main.py ends when it was asked to stop and has saved.
STOPPED = 128 + signal.SIGTERM


def command(options: argparse.Namespace, network: str) -> list[str]:
    """What trains a network."""
    return [
        sys.executable,
        str(ROOT / "main.py"),
        f"--config={ROOT}/configs/{network}.py",
        f"--workdir={folder_of(options, network)}",
        f"--compilation_cache={options.runs.absolute() / 'compiled'}",
        f"--config.dataset={options.dataset}",
        f"--config.num_seeds={options.seeds}",
        f"--config.steps_per_call={options.steps_per_call}",
        # An epoch takes seconds, a checkpoint of five seeds tenths of them.
        "--config.save_every_epochs=10",
        *options.flags,
    ]


def folder_of(options: argparse.Namespace, network: str) -> Path:
    """The workdir of a run."""
    return options.runs / f"paper-{network}"


class Stopped(Exception):
    """This process was asked to stop."""


def supervise(command: Sequence[str], seconds: float, grace: float = GRACE) -> int:
    """Runs a program for so long; then SIGTERM, and SIGKILL after the grace. Returns its exit status.

    Raises:
        Stopped: after the program has ended, if this process got SIGTERM or SIGINT meanwhile.
    """
    asked: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: asked.append(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    # In a session of its own: Ctrl-C reaches it through this process alone.
    process = subprocess.Popen(command, start_new_session=True)
    try:
        deadline = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < deadline and not asked:
            time.sleep(0.1)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            print(f"it did not end within {grace:.0f} s and is killed; its last checkpoint stays", flush=True)
    finally:
        process.kill()
        process.wait()
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        raise Stopped
    return process.returncode


def archive(options: argparse.Namespace) -> None:
    """Keeps the records of all runs, and the newest checkpoint of an unfinished one, in one file."""
    write_atomically(options.archive, partial(_write_archive, options))


def _write_archive(options: argparse.Namespace, file: BinaryIO) -> None:
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as tar:
        for network in NETWORKS:
            folder = folder_of(options, network)
            names = [folder / name for name in ("config.json", "metrics.jsonl", "results.json")]
            saved = [path for path in folder.glob("checkpoints/latest/*") if path.name.isdecimal()]
            if saved and not names[-1].exists():
                names.append(max(saved, key=lambda path: int(path.name)))
            for path in names:
                if path.exists():
                    tar.add(path, path.relative_to(options.runs))


def restore(options: argparse.Namespace) -> None:
    """Unpacks the archive where there are no runs yet."""
    if options.archive.exists() and not any(folder_of(options, network).exists() for network in NETWORKS):
        options.runs.mkdir(parents=True, exist_ok=True)
        with tarfile.open(options.archive) as tar:
            tar.extractall(options.runs, filter="data")
        print(f"going on with the runs of {options.archive}", flush=True)


def work(options: argparse.Namespace) -> list[str]:
    """Trains what is not done until the time is over; the networks that still are not done."""
    deadline = time.monotonic() + 60 * options.minutes - GRACE
    for network in options.networks:
        if (folder_of(options, network) / "results.json").exists():
            continue
        left = deadline - time.monotonic()
        if left < LEAST:
            break
        print(f"\n## {network}, {left / 60:.1f} minutes left", flush=True)
        status = supervise(command(options, network), left)
        # A program that was killed although there is time left ran out of memory, or worse.
        if status not in (0, STOPPED) and (status > 0 or time.monotonic() < deadline):
            raise SystemExit(f"{network} failed with exit status {status}, see above")
    return [n for n in options.networks if not (folder_of(options, n) / "results.json").exists()]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="cifar10.pack", help="as --config.dataset of main.py")
    parser.add_argument("--runs", type=home, default=Path("runs/gpu"), help="folder of the runs")
    parser.add_argument("--archive", type=home, help="one file with all that is needed to go on elsewhere")
    parser.add_argument("--minutes", type=float, default=1e6, help="after which it saves and ends")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--seeds", type=int, default=5, help="trained at once, as one program")
    parser.add_argument("--steps_per_call", type=int, default=300, help="in one program; an epoch has 900")
    options, flags = parser.parse_known_args(arguments)
    options.flags = flags
    if others := [flag for flag in flags if not flag.startswith("--config.")]:
        parser.error(f"unknown: {' '.join(others)}; beside the flags above, --config.NAME=VALUE goes to main.py")
    check_settings(flags, list(settings_of("base")), "configs/base.py")
    check_integer("--seeds", options.seeds, 1)
    check_integer("--steps_per_call", options.steps_per_call, 1)
    check_number("--minutes", options.minutes, 0, above=True)
    if options.archive:
        check_target(options.archive)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = parse(arguments)
    if options.archive:
        restore(options)
    with locked(make_workdir(options.runs)):
        try:
            missing = work(options)
        except Stopped:
            return STOPPED
        finally:
            if options.archive:
                archive(options)
    print(f"\nnot done yet: {', '.join(missing)}; call again" if missing else "\nall networks are trained", flush=True)
    return 0


if __name__ == "__main__":
    run(main)
