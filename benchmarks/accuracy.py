"""Trains the networks of the accuracy tables, keeps each run's record and writes the tables from them.

make table, or: python -m benchmarks.accuracy [--tables=fast,beyond] [--write_only]

Runs that have a record in docs/results/accuracy/ are done; others go on from their checkpoints in --workdir, in the
order of ROWS. Each record, results.json and metrics.jsonl, is kept as soon as its run ends. A row without its runs
says "not run". --workers trains so many rows side by side, on a CPU each on cores of its own. For a GPU: --together
trains the seeds of a row as one program, --packs reads the data from the files of `make pack`, and further flags are
those of main.py (docs/gpu.md).
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np

from benchmarks import jpeg_quality, run_records
from benchmarks.harness import ROOT, table
from benchmarks.report import render
from benchmarks.trials import groups, trials
from deepnmf_jax.training.environment import COMMIT, git_commit

RECORDS = ROOT / "docs" / "results" / "accuracy"
PAGES = (ROOT / "README.md", ROOT / "docs" / "recipe.md")


class Row(NamedTuple):
    """One line of a table: a config of configs/, changed by `settings`, trained once for each of `seeds`.

    `paper` is the accuracy that the paper reports, in %, for the same network on the original images.
    """

    table: str
    label: str
    config: str
    seeds: tuple[int, ...] = (0,)
    settings: tuple[tuple[str, str], ...] = ()
    paper: float | None = None

    @property
    def name(self) -> str:
        """Of the row's folders: what distinguishes it."""
        parts = [self.config.replace("/", "-"), *(f"{k.split('.')[-1]}-{_label(v)}" for k, v in self.settings)]
        return "-".join(parts)

    def folder(self, seed: int) -> Path:
        """Where the record of one run is kept."""
        return RECORDS / f"{self.name}-seed{seed}"

    def flags(self, seed: int) -> list[str]:
        """The command line of one run, without its workdir."""
        return [
            f"--config=configs/{self.config}.py",
            *(f"--config.{key}={value}" for key, value in self.settings),
            f"--config.seed={seed}",
        ]

    @property
    def command(self) -> str:
        """What trains the row's first seed."""
        return f"python main.py {' '.join(self.flags(self.seeds[0])[:-1])} --workdir=runs/{self.name}"

    @property
    def dataset(self) -> str:
        """The data set's name, of a file that without its suffix."""
        return _label(self.source)

    @property
    def source(self) -> str:
        """The data set as main.py is told it."""
        return dict(self.settings).get("dataset", "cifar10")

    def results(self) -> list[dict[str, Any]]:
        """The records there are."""
        files = [self.folder(seed) / "results.json" for seed in self.seeds]
        return [json.loads(file.read_text()) for file in files if file.exists()]


def _label(value: str) -> str:
    """A setting's value, of a file the name."""
    return Path(value).name.removesuffix(".npz")


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
        with workdir.with_suffix(".log").open("a") as log:
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
SEEDS = (0, 1, 2)
BEYOND = ("on_off", "whitening", "blocks", "split", "nmf_pooling", "wide")
TWIN = (("model.layer", "conv"),)
FASHION = (("dataset", "fashion_mnist"), ("augmentation.crop", "24"), ("augmentation.flip", "False"))
TWENTY = (("num_epochs", "20"),)
RATES = ("0.004", "0.01", "0.04")
FIFTY = (("num_epochs", "50"),)


def _power(exponent: str) -> tuple[tuple[str, str], ...]:
    return (("model.acceleration", "power"), ("model.num_iters", "4"), ("model.exponent", exponent))


def _rate(value: str) -> tuple[tuple[str, str], ...]:
    return (("optimizer.learning_rate.nmf", value),)


FOUR = (
    Row("fast", "CNMF+1x1", "fast/cnmf_1x1", paper=83.7),
    Row("fast", "CNN+1x1", "fast/cnn_1x1", paper=82.8),
    Row("fast", "CNMF", "fast/cnmf", paper=81.5),
    Row("fast", "CNN", "fast/cnn", paper=81.0),
)
# In the order in which they are trained.
ROWS = (
    *(row._replace(table="long", settings=FIFTY) for row in FOUR[:2]),
    *FOUR,
    Row("gradients", "approximate", "fast/cnmf_1x1"),
    Row("gradients", "unrolled", "fast/cnmf_1x1", settings=(("model.gradient", "unrolled"),)),
    Row(
        "gradients",
        "implicit, 2 steps",
        "fast/cnmf_1x1",
        settings=(("model.gradient", "implicit"), ("model.cg_steps", "2")),
    ),
    Row("gradients", "local, KL", "fast/cnmf", settings=(("model.local_learning", "kl"),), paper=32),
    Row("iterations", "5 plain", "fast/cnmf_1x1"),
    *(
        Row("iterations", f"4 power, exponent {exponent}", "fast/cnmf_1x1", settings=_power(exponent))
        for exponent in ("4.0", "6.0")
    ),
    *(
        row._replace(table="rates", label=f"{row.label}, {rate}", settings=() if rate == RATES[-1] else _rate(rate))
        for row in (FOUR[1], FOUR[3])
        for rate in RATES
    ),
    *(
        row
        for name in BEYOND
        for row in (
            Row("beyond", f"{name}: CNMF+1x1", f"beyond/{name}"),
            Row("beyond", f"{name}: CNN+1x1", f"beyond/{name}", settings=TWIN),
        )
    ),
    *(row._replace(table="fashion", seeds=SEEDS, settings=FASHION, paper=None) for row in FOUR),
    *(row._replace(table="twenty", seeds=SEEDS, settings=TWENTY) for row in FOUR),
    Row("quality", "75 (the copy)", "fast/cnmf_1x1"),
    *(
        Row("quality", str(quality), "fast/cnmf_1x1", settings=(("dataset", str(jpeg_quality.path_of(quality))),))
        for quality in jpeg_quality.QUALITIES
    ),
)


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
    options, options.flags = parser.parse_known_args(arguments)
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
