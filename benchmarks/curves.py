"""Draws validation and training accuracy against minutes of the fifty-epoch runs, from their records.

python -m benchmarks.curves
"""

import json
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.accuracy_rows import ROWS
from benchmarks.harness import ROOT

PICTURE = ROOT / "docs" / "pictures" / "fifty_epochs.png"
# The time that the paper's accuracy was asked in.
BUDGET = 74.0


def draw(path: Path = PICTURE) -> None:
    """Writes the picture."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    for row in (row for row in ROWS if row.table == "long" and row.results()):
        lines = (row.folder(0) / "metrics.jsonl").read_text().splitlines()
        metrics = [json.loads(line) for line in lines]
        minutes = [m["seconds"] / 60 for m in metrics]
        validation, train = ([100 * m[f"{part}_accuracy"] for m in metrics] for part in ("validation", "train"))
        (line,) = axes.plot(minutes, validation, label=f"{row.label}, validation")
        axes.plot(minutes, train, "--", color=line.get_color(), lw=1, label=f"{row.label}, augmented training images")
    axes.axvline(BUDGET, color="grey", lw=0.8)
    axes.set(xlabel="minutes on two cores", ylabel="accuracy, %", xlim=(0, BUDGET + 2), ylim=(40, 90))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    draw()
