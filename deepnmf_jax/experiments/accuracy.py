"""Trains the networks of the accuracy tables, keeps each run's record and writes the tables from them.

make table, or: python -m deepnmf_jax.experiments.accuracy [--tables=fast,beyond] [--write_only]

Runs that have a record in docs/results/accuracy/ are done; others go on from their checkpoints in --workdir, in the
order of accuracy_rows.py. Each record, results.json and metrics.jsonl, is kept as soon as its run ends. A row without
its runs says "not run". --workers trains so many rows side by side, on a CPU each on cores of its own. For a GPU:
--together trains the seeds of a row as one program, --packs reads the data from the files of `make pack`, and further
flags are those of main.py (docs/gpu.md).
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from deepnmf_jax.experiments import jpeg_quality, run_records
from deepnmf_jax.experiments.accuracy_rows import ROWS, Row
from deepnmf_jax.experiments.tables import ROOT, render, table
from deepnmf_jax.experiments.trials import groups, trials
from deepnmf_jax.training.environment import COMMIT, git_commit

PAGES = (ROOT / "README.md", ROOT / "docs" / "recipe.md")


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
    if options.workers == 1:
        subprocess.run(command, cwd=ROOT, check=True, env=options.environment)
    else:
        workdir.parent.mkdir(parents=True, exist_ok=True)
        with workdir.with_name(f"{workdir.name}.log").open("a") as log:
            subprocess.run(command, cwd=ROOT, check=True, env=options.environment, stdout=log, stderr=subprocess.STDOUT)
    for seed, record in zip(seeds, run_records.read(workdir), strict=True):
        record.write(row.folder(seed))


def _percent(values: Sequence[float]) -> str:
    mean = f"{100 * np.mean(values):.2f}"
    return f"{mean} ± {100 * np.std(values, ddof=1):.2f}" if len(values) > 1 else mean


def accuracy_table(rows: Sequence[Row]) -> str:
    """Mean and deviation over seeds of validation and test accuracy, with what each run cost."""
    lines = []
    mixed = len({_device(r) for row in rows for r in row.results()}) > 1
    for row in rows:
        results = row.results()
        command = f"`{row.command}`"
        paper = "" if row.paper is None else f"{row.paper:.1f}"
        if not results:
            lines.append([row.label, "", "not run", "", "", "", "", "", paper, command])
            continue
        memory = [r["peak_memory"] for r in results if r.get("peak_memory")]
        lines.append(
            [
                row.label,
                f"{results[0]['parameters']:,}",
                _percent([r["test_accuracy"] for r in results]),
                _percent([r["validation_accuracy"] for r in results]),
                ", ".join(str(r["seed"]) for r in results),
                f"{results[0]['epochs']}",
                _minutes(results) + (f" ({_device(results[0])})" if mixed else ""),
                f"{max(memory) / 1e9:.1f}" if memory else "",
                paper,
                command,
            ]
        )
    head = ["network", "parameters", "test, %", "validation, %", "seeds", "epochs", "min a run", "memory, GB"]
    head += ["paper, %", "command"]
    column = head.index("memory, GB")
    if not any(line[column] for line in lines):
        for line in (head, *lines):
            del line[column]
    return _conditions(rows) + table(lines, head)


def _minutes(results: Sequence[dict[str, Any]]) -> str:
    """Of a run; of several seeds at once, of their program over their number."""
    return f"{np.median([r['seconds'] / len(r.get('seeds_at_once', [r['seed']])) for r in results]) / 60:.1f}"


def _conditions(rows: Sequence[Row]) -> str:
    results = [r for row in rows for r in row.results()]
    if not results:
        return ""
    devices = sorted({_device(r) for r in results})
    dates = sorted({r["date"][:10] for r in results})
    versions = sorted({f"jax {r['versions']['jax']}" for r in results})
    return f"{'; '.join(devices)}; {', '.join(versions)}; {' to '.join(sorted({dates[0], dates[-1]}))}.\n\n"


def _device(results: dict[str, Any]) -> str:
    if results["device_backend"] == "gpu":
        return results["device"] + (", the seeds at once" if "seeds_at_once" in results else "")
    return f"{results['cpu_count']} core{'s' * (results['cpu_count'] > 1)}, {results['device_backend']}"


TRIALS = {f"trials_{group}": partial(trials, group) for group in groups()}


def tables(rows: Sequence[Row]) -> dict[str, Callable[[], str]]:
    """The writer of each table."""
    names = dict.fromkeys(row.table for row in rows)
    return {name: partial(accuracy_table, [r for r in rows if r.table == name]) for name in names}


def main(arguments: Sequence[str] | None = None) -> int:
    """Does the missing runs and writes the tables after each; returns the exit status, 1 if a run failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, default=ROOT / "runs" / "accuracy")
    parser.add_argument("--tables", default=",".join(tables(ROWS)), help="which, separated by commas; default: all")
    parser.add_argument("--write_only", action="store_true", help="train nothing")
    parser.add_argument("--together", action="store_true", help="the missing seeds of a row as one program")
    parser.add_argument("--workers", type=int, default=1, help="runs side by side")
    parser.add_argument("--packs", type=Path, help="folder of cifar10.pack and fashion_mnist.pack")
    options, flags = parser.parse_known_args(arguments)
    options.flags = flags
    if others := [flag for flag in options.flags if not flag.startswith("--config.")]:
        parser.error(f"unknown: {' '.join(others)}; beside the flags above, --config.NAME=VALUE goes to main.py")
    if others := sorted(set(options.tables.split(",")) - tables(ROWS).keys()):
        parser.error(f"there is no table {', '.join(others)}; there are {', '.join(tables(ROWS))}")
    # Told to the runs, because the pages that are written after one would make the next a run of changed files.
    options.environment = {COMMIT: git_commit(ROOT) or ""} | os.environ
    runs = [] if options.write_only else missing(options.tables.split(","), options.together)
    failed = False
    with ThreadPoolExecutor(options.workers, initializer=_bind, initargs=(_shares(options.workers),)) as threads:
        running = {threads.submit(train, row, seeds, options): row for row, seeds in runs}
        for run in as_completed(running):
            if error := run.exception():
                failed = True
                print(f"{running[run].name} failed: {error}", file=sys.stderr, flush=True)
            else:
                print(f"{running[run].name} is done", flush=True)
                write_pages()
    write_pages()
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
    """Renders the pages that hold the tables."""
    for page in PAGES:
        page.write_text(render(page.read_text(), tables(ROWS) | TRIALS))


if __name__ == "__main__":
    sys.exit(main())
