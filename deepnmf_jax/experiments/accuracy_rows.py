"""The accuracy tables: which network is trained how, where the records of its runs are kept, what its line shows."""

import json
import shlex
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepnmf_jax.experiments import jpeg_quality, run_records
from deepnmf_jax.experiments.acceleration import BY_BLOCK
from deepnmf_jax.experiments.tables import ROOT, cores, loss_and_accuracy, mean_and_deviation, table

RECORDS = ROOT / "docs" / "results" / "accuracy"

Settings = tuple[tuple[str, str], ...]


class Row(NamedTuple):
    """One line of a table: a config of configs/, changed by `settings`, trained once for each of `seeds`.

    `name` is of the folders of its runs, network-recipe; the same runs have the same name in every table. `paper` is
    the accuracy that the paper reports, in %, for the same network on the original images.
    """

    table: str
    name: str
    label: str
    config: str
    seeds: tuple[int, ...] = (0,)
    settings: Settings = ()
    paper: float | None = None

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
        return f"python main.py {shlex.join(self.flags(self.seeds[0])[:-1])} --workdir=runs/{self.name}"

    @property
    def source(self) -> str:
        """The data set as main.py is told it."""
        return dict(self.settings).get("dataset", "cifar10")

    @property
    def dataset(self) -> str:
        """The data set's name, of a file that without its suffix."""
        return Path(self.source).name.removesuffix(".npz")

    def results(self) -> list[dict[str, Any]]:
        """The records there are."""
        files = [self.folder(seed) / "results.json" for seed in self.seeds]
        return [json.loads(file.read_text()) for file in files if file.exists()]

    def curves(self) -> list[list[dict[str, Any]]]:
        """The epochs of the runs there are, ended or not."""
        return [epochs for seed in self.seeds if (epochs := run_records.epochs_of(self.folder(seed)))]


SEEDS = (0, 1, 2)
TWIN = (("model.layer", "conv"),)
FASHION = (("dataset", "fashion_mnist"), ("augmentation.crop", "24"), ("augmentation.flip", "False"))
LOCAL = (("model.local_learning", "kl"),)
TWENTY = (("num_epochs", "20"),)
BORDER = (("augmentation.pad", "2"), ("augmentation.cutout", "8"))
LARGE = (
    ("batch_size", "128"),
    ("optimizer.learning_rate.nmf", "0.06"),
    ("optimizer.learning_rate.mixing", "0.012"),
    ("optimizer.learning_rate.batch_norm", "0.012"),
)
# The networks of the paper, and the test accuracy that it reports.
PAPER = {"cnmf_1x1": ("CNMF+1x1", 83.7), "cnn_1x1": ("CNN+1x1", 82.8), "cnmf": ("CNMF", 81.5), "cnn": ("CNN", 81.0)}


def _paper(table: str, network: str, recipe: str, settings: Settings = (), label: str = "{}", **of_row: Any) -> Row:
    """A network of the paper, by the fast recipe with other settings; `label` with {} for the network."""
    name, accuracy = PAPER[network]
    row = Row(table, f"{network}-{recipe}", label.format(name), f"fast/{network}", settings=settings, paper=accuracy)
    return row._replace(**of_row)


def _beyond(table: str, network: str, recipe: str, settings: Settings = (), label: str = "{}") -> tuple[Row, Row]:
    """A network of configs/beyond and its CNN twin."""
    titles = [label.format(f"{network}: {layer}+1x1") for layer in ("CNMF", "CNN")]
    config = f"beyond/{network}"
    return (
        Row(table, f"{network}-{recipe}", titles[0], config, settings=settings),
        Row(table, f"{network}_cnn-{recipe}", titles[1], config, settings=TWIN + settings),
    )


# They train as 20 plain iterations do, in half the time. A shell takes them in single quotes, so they have none.
MULTISTEP = (("model.block_settings", str(BY_BLOCK).replace(" ", "").replace("'", '"')),)
CUTOUT = "{}, border and cutout"
_FAST = _paper("gradients", "cnmf_1x1", "fast", paper=None)
# In the order in which they are trained.
ROWS = (
    *(_paper("long", network, "fifty", (("num_epochs", "50"),)) for network in ("cnmf_1x1", "cnn_1x1")),
    _paper("long", "cnmf_1x1", "sixty_cutout", (("num_epochs", "60"), *BORDER, *LARGE), CUTOUT),
    *(_paper("fast", network, "fast") for network in PAPER),
    _FAST._replace(label="approximate"),
    _FAST._replace(name="cnmf_1x1-unrolled", label="unrolled", settings=(("model.gradient", "unrolled"),)),
    _FAST._replace(
        name="cnmf_1x1-implicit",
        label="implicit, 2 steps",
        settings=(("model.gradient", "implicit"), ("model.cg_steps", "2")),
    ),
    Row("gradients", "blocks-fast", "blocks, approximate", "beyond/blocks"),
    Row("gradients", "blocks-scaled", "blocks, scaled", "beyond/blocks", settings=(("model.gradient", "scaled"),)),
    _paper("gradients", "cnmf", "local", LOCAL, "local, KL", paper=32),
    _paper("gradients", "cnmf_1x1", "local", LOCAL, "local, KL, with 1x1", paper=None),
    _FAST._replace(table="iterations", label="5 plain"),
    _FAST._replace(
        table="iterations",
        name="cnmf_1x1-twenty_iterations20",
        label="20 plain, twenty epochs",
        settings=(*TWENTY, ("model.num_iters", "20")),
    ),
    *(
        row
        for network in ("cnn_1x1", "cnn")
        for row in (
            _paper("learning_rates", network, "rate_0.004", (("optimizer.learning_rate.nmf", "0.004"),), "{}, 0.004"),
            _paper("learning_rates", network, "rate_0.01", (("optimizer.learning_rate.nmf", "0.01"),), "{}, 0.01"),
            _paper("learning_rates", network, "fast", label="{}, 0.04"),
        )
    ),
    *(
        row
        for network in ("on_off", "whitening", "blocks", "split", "nmf_pooling", "wide", "fine", "deep")
        for row in _beyond("beyond", network, "fast")
    ),
    _beyond("best", "residual", "seventy")[0]._replace(seeds=(0, 1)),
    _beyond("best", "residual", "seventy")[1],
    *_beyond("best", "blocks", "twenty", TWENTY),
    *_beyond("best", "blocks", "forty_cutout", (("num_epochs", "40"), *BORDER), CUTOUT),
    *_beyond("best", "fine", "twenty_cutout", (*TWENTY, *BORDER, *LARGE), CUTOUT),
    *(_paper("best", network, "twenty_cutout", (*TWENTY, *BORDER), CUTOUT) for network in ("cnmf_1x1", "cnn_1x1")),
    *(_paper("fashion", network, "fashion", FASHION, seeds=SEEDS, paper=None) for network in PAPER),
    Row("fashion", "blocks-fashion", "blocks: CNMF+1x1", "beyond/blocks", SEEDS, FASHION),
    *(_paper("twenty", network, "twenty", TWENTY, seeds=SEEDS) for network in PAPER),
    _FAST._replace(table="quality", label="75 (the copy)"),
    *(
        _FAST._replace(
            table="quality",
            name=f"cnmf_1x1-jpeg{quality}",
            label=str(quality),
            settings=(("dataset", str(jpeg_quality.path_of(quality))),),
        )
        for quality in jpeg_quality.QUALITIES
    ),
    *(
        Row("plateau", f"{network}-plateau", label, network, settings=MULTISTEP * ("cnmf" in network), paper=accuracy)
        for network, (label, accuracy) in PAPER.items()
    ),
)


# Columns of a table between the network and the paper's accuracy.
NAMES = ("parameters", "test, %", "validation, %", "seeds", "epochs", "min a run", "memory, GB")
# Which epochs of the paper's recipe are shown.
EPOCHS = (1, 2, 5, 10, 20, 30, 40, 50, 60, 80, 100, 120, 150, 200, 300, 400, 500)
# How README's short table names the best network and its twin.
BEST = {"residual-seventy": "`residual`, five NMF blocks", "residual_cnn-seventy": "the same with convolutions"}


def tables(rows: Sequence[Row] = ROWS) -> dict[str, Callable[[], str]]:
    """The writer of each table."""
    names = dict.fromkeys(row.table for row in rows)
    return {name: partial(accuracy_table, [r for r in rows if r.table == name]) for name in names}


def results_table() -> str:
    """README's short table: the paper's four networks, and the best network beside its twin of convolutions."""
    lines = []
    for row in (*(r for r in ROWS if r.table == "twenty"), *(r for r in ROWS if r.name in BEST)):
        results = row.results()
        accuracy = _percent([r["test_accuracy"] for r in results], digits=1)
        parameters, epochs = f"{results[0]['parameters']:,}", results[0]["epochs"]
        name = BEST.get(row.name, row.label)
        lines.append((name, parameters, accuracy, len(results), epochs, row.paper or ""))
    return table(lines, ("network", "parameters", "test accuracy, %", "seeds", "epochs", "paper, %"))


def accuracy_table(rows: Sequence[Row]) -> str:
    """Mean and deviation over seeds of validation and test accuracy, with what each run cost."""
    mixed = len({_device(r) for row in rows for r in row.results()}) > 1
    columns: dict[str, list[str]] = {}
    for row in rows:
        results = row.results()
        shown = {"network": row.label, **(_numbers(results, mixed) if results else _so_far(row))}
        shown["paper, %"] = "" if row.paper is None else f"{row.paper:.1f}"
        shown["run"] = f"`{row.name}`"
        for name, text in shown.items():
            columns.setdefault(name, []).append(text)
    if not any(columns["memory, GB"]):
        del columns["memory, GB"]
    return _conditions(rows) + table(list(zip(*columns.values(), strict=True)), list(columns))


def _numbers(results: Sequence[dict[str, Any]], with_device: bool) -> dict[str, str]:
    """What the records of one row say, by column."""
    # Of several seeds at once, the time of their program over their number.
    minutes = np.median([r["seconds"] / len(r.get("seeds_at_once", [r["seed"]])) for r in results]) / 60
    memory = [r["peak_memory"] for r in results if r.get("peak_memory")]
    values = (
        f"{results[0]['parameters']:,}",
        _percent([r["test_accuracy"] for r in results]),
        _percent([r["validation_accuracy"] for r in results]),
        ", ".join(str(r["seed"]) for r in results),
        f"{results[0]['epochs']}",
        f"{minutes:.1f}" + (f" ({_device(results[0])})" if with_device else ""),
        f"{max(memory) / 1e9:.1f}" if memory else "",
    )
    return dict(zip(NAMES, values, strict=True))


def _so_far(row: Row) -> dict[str, str]:
    """What is known of a row none of whose runs has ended."""
    shown = dict.fromkeys(NAMES, "") | {"test, %": "not run"}
    if curves := row.curves():
        best = [max(line["validation_accuracy"] for line in lines) for lines in curves]
        shown |= {"test, %": "not ended", "validation, %": _percent(best), "epochs": f"{max(map(len, curves))} so far"}
    return shown


def epochs_table() -> str:
    """The runs of the paper's recipe epoch by epoch: loss on the augmented training images, validation accuracy."""
    runs = {row.label: curves[0] for row in ROWS if row.table == "plateau" and (curves := row.curves())}
    last = max(map(len, runs.values()), default=0)
    lines = []
    for epoch in (e for e in EPOCHS if e <= last):
        lines.append([str(epoch), *(_at(run, epoch) for run in runs.values())])
    return table(lines, ("epoch", *runs))


def _at(run: Sequence[dict[str, Any]], epoch: int) -> str:
    if len(run) < epoch:
        return ""
    return loss_and_accuracy(run[epoch - 1])


def _percent(values: Sequence[float], digits: int = 2) -> str:
    return mean_and_deviation(100 * np.array(values), digits)


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
    return f"{cores(results['cpu_count'])}, {results['device_backend']}"
