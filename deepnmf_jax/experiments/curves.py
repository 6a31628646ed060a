"""Draws validation and training accuracy of the long runs, from their records: against minutes and against epochs.

python -m deepnmf_jax.experiments.curves
"""

import json
from pathlib import Path

from matplotlib.figure import Figure

from deepnmf_jax.experiments.accuracy_rows import ROWS
from deepnmf_jax.experiments.tables import ROOT

PICTURE = ROOT / "docs" / "pictures" / "fifty_epochs.png"
# The time that the paper's accuracy was asked in.
BUDGET = 74.0
# The run that had two cores to itself.
TIMED = "cnmf_1x1-fifty"


def draw(path: Path = PICTURE) -> None:
    """Writes the picture."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    in_time, in_epochs = figure.subplots(1, 2, sharey=True)
    for row in (row for row in ROWS if row.table == "long" and row.results()):
        metrics = [json.loads(line) for line in (row.folder(0) / "metrics.jsonl").read_text().splitlines()]
        validation, train = ([100 * m[f"{part}_accuracy"] for m in metrics] for part in ("validation", "train"))
        (line,) = in_epochs.plot([m["epoch"] for m in metrics], validation, label=row.label)
        in_epochs.plot([m["epoch"] for m in metrics], train, "--", color=line.get_color(), lw=1)
        if row.name == TIMED:
            minutes = [m["seconds"] / 60 for m in metrics]
            in_time.plot(minutes, validation, color=line.get_color(), label=f"{row.label}, validation")
            in_time.plot(minutes, train, "--", color=line.get_color(), lw=1, label="augmented training images")
    in_time.axvline(BUDGET, color="grey", lw=0.8)
    in_time.set(xlabel="minutes on two cores", ylabel="accuracy, %", xlim=(0, BUDGET + 2), ylim=(40, 90))
    in_epochs.set(xlabel="epochs")
    for axes in (in_time, in_epochs):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    draw()
