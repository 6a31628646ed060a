"""Trains the networks of the accuracy tables (accuracy_rows.py), keeps each run's record and has the pages written.

make table, or: python -m deepnmf_jax.experiments.accuracy [--tables=fast,beyond]

Runs that have a record in docs/results/accuracy/ are done; others go on from their checkpoints in --workdir, in the
order of accuracy_rows.py. Each record, results.json and metrics.jsonl, is kept as soon as its run ends; of one that is
stopped, the epochs so far. --workers trains so many rows side by side, on a CPU each on cores of its own. For a GPU:
--together trains the seeds of a row as one program, --packs reads the data from the files of `make pack`, and further
flags are those of main.py.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from queue import SimpleQueue
from typing import Any

from deepnmf_jax.core.checks import check_integer
from deepnmf_jax.experiments import jpeg_quality, run_records
from deepnmf_jax.experiments.accuracy_figure import run
from deepnmf_jax.experiments.accuracy_rows import ROWS, Row, tables
from deepnmf_jax.experiments.tables import ROOT
from deepnmf_jax.experiments.trials import settings_of
from deepnmf_jax.programs import check_settings, home
from deepnmf_jax.programs import run as run_program
from deepnmf_jax.training.environment import COMMIT, git_commit

# `run` draws figure 5 from these records: configs/experiments/accuracy.py.
__all__ = ["main", "missing", "run", "train", "write_pages"]


def train(row: Row, seeds: Sequence[int], options: argparse.Namespace) -> None:
    """One run, of several seeds at once if there are several, from its last checkpoint if it has one; its record.

    Raises:
        subprocess.CalledProcessError: the run failed; with several workers its output is in a file beside its workdir.
    """
    workdir = options.workdir / f"{row.name}-seed{'-'.join(map(str, seeds))}"
    command = [sys.executable, "main.py", *row.flags(seeds[0]), f"--workdir={workdir}", *options.flags]
    if len(seeds) > 1:
        command.append(f"--config.num_seeds={len(seeds)}")
    jpeg_quality.provide(row.source)
    if options.packs and not row.source.endswith(".npz"):
        command.append(f"--config.dataset={options.packs / row.dataset}.pack")
    try:
        if options.workers == 1:
            subprocess.run(command, cwd=ROOT, check=True, env=options.environment)
        else:
            workdir.parent.mkdir(parents=True, exist_ok=True)
            with workdir.with_name(f"{workdir.name}.log").open("a") as log:
                streams: dict[str, Any] = {"stdout": log, "stderr": subprocess.STDOUT}
                subprocess.run(command, cwd=ROOT, check=True, env=options.environment, **streams)
    except subprocess.CalledProcessError:
        if len(seeds) == 1:
            run_records.keep_epochs(workdir, row.folder(seeds[0]))
        raise
    for seed, record in zip(seeds, run_records.read(workdir), strict=True):
        record.write(row.folder(seed))


def main(arguments: Sequence[str] | None = None) -> int:
    """Does the missing runs and has the pages written after each; returns the exit status, 1 if a run failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=home, default=ROOT / "runs" / "accuracy")
    parser.add_argument("--tables", default=",".join(tables(ROWS)), help="which, separated by commas; default: all")
    parser.add_argument("--commands", action="store_true", help="print what trains each run, and train nothing")
    parser.add_argument("--together", action="store_true", help="the missing seeds of a row as one program")
    parser.add_argument("--workers", type=int, default=1, help="runs side by side")
    parser.add_argument("--packs", type=home, help="folder of cifar10.pack and fashion_mnist.pack")
    options, flags = parser.parse_known_args(arguments)
    options.flags = flags
    if others := [flag for flag in flags if not flag.startswith("--config.")]:
        parser.error(f"unknown: {' '.join(others)}; beside the flags above, --config.NAME=VALUE goes to main.py")
    check_settings(flags, list(settings_of("base")), "configs/base.py")
    check_integer("--workers", options.workers, 1)
    names = options.tables.split(",")
    if others := sorted(set(names) - tables(ROWS).keys()):
        parser.error(f"there is no table {', '.join(others)}; there are {', '.join(tables(ROWS))}")
    if options.commands:
        found = {row.name: row.command for row in ROWS if row.table in names}
        print("\n".join(f"{name}: {command}" for name, command in found.items()))
        return 0
    runs = missing(names, options.together)
    if options.packs:
        packs = {options.packs / f"{row.dataset}.pack" for row, _ in runs if not row.source.endswith(".npz")}
        if absent := sorted(str(path) for path in packs if not path.is_file()):
            parser.error(f"there is no {' and no '.join(absent)}; make pack DATASET=... writes one")
    # Told to the runs, because the pages that are written after one would make the next a run of changed files.
    options.environment = {COMMIT: git_commit(ROOT) or ""} | os.environ
    failed = False
    with ThreadPoolExecutor(options.workers, initializer=_bind, initargs=(_shares(options.workers),)) as threads:
        running = {threads.submit(train, row, seeds, options): row for row, seeds in runs}
        try:
            for done in as_completed(running):
                if error := done.exception():
                    failed = True
                    print(f"{running[done].name} failed: {error}", file=sys.stderr, flush=True)
                else:
                    print(f"{running[done].name} is done", flush=True)
                    write_pages()
        except KeyboardInterrupt:
            # The runs that it reached save and end; no other is begun.
            threads.shutdown(cancel_futures=True)
            raise
    return int(failed)


def _shares(workers: int) -> SimpleQueue[list[int]]:
    """Cores for each worker; none where there are fewer cores than workers or processes cannot be bound to them."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    shares: SimpleQueue[list[int]] = SimpleQueue()
    for worker in range(workers):
        shares.put(cores[worker::workers] if workers <= len(cores) else [])
    return shares


def _bind(shares: SimpleQueue[list[int]]) -> None:
    """Binds the calling thread, and with it the runs that it starts: two programs with threads on all cores would
    wait for one another."""
    if share := shares.get():
        os.sched_setaffinity(0, share)


def missing(names: Sequence[str], together: bool) -> list[tuple[Row, tuple[int, ...]]]:
    """The runs of these tables that have no record: rows, and the seeds of each run."""
    found: dict[str, tuple[Row, tuple[int, ...]]] = {}
    for row in ROWS:
        seeds = tuple(seed for seed in row.seeds if not (row.folder(seed) / "results.json").exists())
        # Tables share rows: the one with more seeds stands for all.
        if row.table in names and len(seeds) > len(found.get(row.name, (row, ()))[1]):
            found[row.name] = (row, seeds)
    return [
        (row, run)
        for row, seeds in found.values()
        # One program trains consecutive seeds.
        for run in ([seeds] if together and seeds[-1] - seeds[0] == len(seeds) - 1 else [(seed,) for seed in seeds])
    ]


def write_pages() -> None:
    """Writes the pages that hold the tables."""
    subprocess.run([sys.executable, "docs/pages.py"], cwd=ROOT, check=True)


if __name__ == "__main__":
    run_program(main)
