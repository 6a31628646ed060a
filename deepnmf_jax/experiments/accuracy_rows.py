"""The lines of the accuracy tables: which network is trained how, and where the records of its runs are kept."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from deepnmf_jax.experiments import jpeg_quality
from deepnmf_jax.experiments.tables import ROOT

RECORDS = ROOT / "docs" / "results" / "accuracy"


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


SEEDS = (0, 1, 2)
BEYOND = ("on_off", "whitening", "blocks", "split", "nmf_pooling", "wide", "fine", "deep")
TWIN = (("model.layer", "conv"),)
FASHION = (("dataset", "fashion_mnist"), ("augmentation.crop", "24"), ("augmentation.flip", "False"))
LOCAL = (("model.local_learning", "kl"),)
TWENTY = (("num_epochs", "20"),)
BORDER = (("augmentation.pad", "2"), ("augmentation.cutout", "8"))
REGULARIZED = (("num_epochs", "40"), *BORDER)
LARGE = (
    ("batch_size", "128"),
    ("optimizer.learning_rate.nmf", "0.06"),
    ("optimizer.learning_rate.mixing", "0.012"),
    ("optimizer.learning_rate.batch_norm", "0.012"),
)
SCALED = (("model.gradient", "scaled"),)
RATES = ("0.004", "0.01", "0.04")
FIFTY = (("num_epochs", "50"),)
SIXTY = (("num_epochs", "60"),)


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
    FOUR[0]._replace(table="long", label="CNMF+1x1, border and cutout", settings=(*SIXTY, *BORDER, *LARGE)),
    *FOUR,
    Row("gradients", "approximate", "fast/cnmf_1x1"),
    Row("gradients", "unrolled", "fast/cnmf_1x1", settings=(("model.gradient", "unrolled"),)),
    Row(
        "gradients",
        "implicit, 2 steps",
        "fast/cnmf_1x1",
        settings=(("model.gradient", "implicit"), ("model.cg_steps", "2")),
    ),
    Row("gradients", "blocks, approximate", "beyond/blocks"),
    Row("gradients", "blocks, scaled", "beyond/blocks", settings=SCALED),
    Row("gradients", "local, KL", "fast/cnmf", settings=LOCAL, paper=32),
    Row("gradients", "local, KL, with 1x1", "fast/cnmf_1x1", settings=LOCAL),
    Row("iterations", "5 plain", "fast/cnmf_1x1"),
    *(
        Row("iterations", f"4 power, exponent {exponent}", "fast/cnmf_1x1", settings=_power(exponent))
        for exponent in ("4.0", "6.0")
    ),
    Row("iterations", "20 plain, twenty epochs", "fast/cnmf_1x1", settings=(*TWENTY, ("model.num_iters", "20"))),
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
    Row("best", "residual: CNMF+1x1", "beyond/residual", seeds=(0, 1)),
    Row("best", "residual: CNN+1x1", "beyond/residual", settings=TWIN),
    Row("best", "blocks: CNMF+1x1", "beyond/blocks", settings=TWENTY),
    Row("best", "blocks: CNN+1x1", "beyond/blocks", settings=(*TWIN, *TWENTY)),
    Row("best", "blocks: CNMF+1x1, border and cutout", "beyond/blocks", settings=REGULARIZED),
    Row("best", "blocks: CNN+1x1, border and cutout", "beyond/blocks", settings=(*TWIN, *REGULARIZED)),
    Row("best", "fine: CNMF+1x1, border and cutout", "beyond/fine", settings=(*TWENTY, *BORDER, *LARGE)),
    Row("best", "fine: CNN+1x1, border and cutout", "beyond/fine", settings=(*TWIN, *TWENTY, *BORDER, *LARGE)),
    *(
        row._replace(table="best", label=f"{row.label}, border and cutout", settings=(*TWENTY, *BORDER))
        for row in FOUR[:2]
    ),
    *(row._replace(table="fashion", seeds=SEEDS, settings=FASHION, paper=None) for row in FOUR),
    Row("fashion", "blocks: CNMF+1x1", "beyond/blocks", SEEDS, FASHION),
    *(row._replace(table="twenty", seeds=SEEDS, settings=TWENTY) for row in FOUR),
    Row("quality", "75 (the copy)", "fast/cnmf_1x1"),
    *(
        Row("quality", str(quality), "fast/cnmf_1x1", settings=(("dataset", str(jpeg_quality.path_of(quality))),))
        for quality in jpeg_quality.QUALITIES
    ),
)
