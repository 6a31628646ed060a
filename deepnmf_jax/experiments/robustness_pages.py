"""What the record of accuracy in noise says, as a table and a picture, and which network of a pair is ahead."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deepnmf_jax.experiments.cells import stored
from deepnmf_jax.experiments.claims import EVEN, HOLDS, IN_PART, NOT, NOT_RUN, Finding
from deepnmf_jax.experiments.tables import mean_and_deviation, table
from deepnmf_jax.plotting import GREEN, NETWORKS, PURPLE, WIDTH, styled

LABELS = {
    "cnn": "CNN",
    "cnmf": "CNMF",
    "cnn_1x1": "CNN+1x1",
    "cnmf_1x1": "CNMF+1x1",
    "residual": "`residual`",
    "residual_cnn": "`residual`, convolutions",
}
COLOURS = {name: NETWORKS.get(label, GREEN if name == "residual" else PURPLE) for name, label in LABELS.items()}
# A network with NMF layers and the one with convolutions in their place.
TWINS = {"cnmf": "cnn", "cnmf_1x1": "cnn_1x1", "residual": "residual_cnn"}


class Curves(NamedTuple):
    """One network, as it was trained and is tested: accuracies (levels, seeds), shares of the test images."""

    origin: str  # "package", or "trained, " and the noise in training
    network: str
    statistics: str  # of batch norm in testing
    clean: np.ndarray  # (seeds,)
    kinds: dict[str, tuple[np.ndarray, np.ndarray]]  # levels from 0 on, accuracies

    def area(self, kind: str) -> np.ndarray:
        """Area under the curve of each seed over the range of the levels: the mean accuracy over the levels."""
        levels, accuracies = self.kinds[kind]
        return np.trapezoid(accuracies, levels, axis=0) / levels[-1]

    def kept(self, kind: str) -> np.ndarray:
        """The area as a share of the accuracy on clean images; 0 of a network that is never right."""
        return self.area(kind) / np.where(self.clean > 0, self.clean, np.inf)


def curves_of(record: Mapping[str, Any]) -> list[Curves]:
    """What has been measured, without networks whose clean images have not."""
    found: dict[tuple[str, str, str], dict[str, np.ndarray]] = {}
    for name, cell in record["cells"].items():
        origin, network, *rest = name.split("/")
        if len(rest) == 2:
            found.setdefault((origin, network, rest[0]), {})[rest[1]] = np.array(cell)
    curves = []
    for (origin, network, statistics), measured in found.items():
        if "clean" in measured:
            clean = measured.pop("clean")
            kinds = {
                kind: (np.array([0, *record["config"]["levels"][kind]]), np.concatenate([clean, accuracies]))
                for kind, accuracies in measured.items()
            }
            curves.append(Curves(origin, network, statistics, clean[0], kinds))
    return curves


def robustness_table(record: Mapping[str, Any]) -> str:
    """Mean accuracy over the levels of each kind, and which network of a pair is ahead in it."""
    curves, kinds = curves_of(record), list(record["config"]["levels"])
    rows = [
        (
            LABELS[c.network], _told(c), len(c.clean), _percent(c.clean),
            *(_percent(c.area(kind)) if kind in c.kinds else "" for kind in kinds),
        )
        for c in curves
    ]  # fmt: skip
    head = ("network", "training", "seeds", "clean", *kinds)
    parts = [f"Accuracy in %, its mean over the levels of each noise:\n\n{table(rows, head)}"]
    rows = []
    for ours, theirs in _pairs(curves):
        for label, value in (("accuracy", Curves.area), ("share kept", Curves.kept)):
            verdicts = [_verdict(ours, theirs, kind, value) for kind in kinds]
            rows.append((f"{LABELS[ours.network]} against {LABELS[theirs.network]}", _told(ours), label, *verdicts))
    if rows:
        parts.append(
            "NMF minus convolutions in points, where the seeds of the two do not overlap; the share kept is the mean "
            "over the levels divided by the accuracy on clean images:\n\n"
            f"{table(rows, ('pair', 'training', 'of', *kinds))}"
        )
    return "\n\n".join(parts)


def _pairs(curves: Sequence[Curves]) -> list[tuple[Curves, Curves]]:
    """Twins trained and tested alike, of which both have several seeds."""
    known = {c[:3]: c for c in curves}
    found = []
    for ours in curves:
        theirs = known.get((ours.origin, TWINS.get(ours.network, ""), ours.statistics))
        if theirs is not None and min(len(ours.clean), len(theirs.clean)) > 1:
            found.append((ours, theirs))
    return found


def _verdict(ours: Curves, theirs: Curves, kind: str, value: Any) -> str:
    if kind not in ours.kinds or kind not in theirs.kinds:
        return ""
    a, b = value(ours, kind), value(theirs, kind)
    if a.max() >= b.min() and b.max() >= a.min():
        return EVEN
    return f"{100 * (a.mean() - b.mean()):+.1f}"


def _told(curves: Curves) -> str:
    training = {"package": "of the package", "trained, none": "here"}.get(curves.origin)
    training = training or f"here, {curves.origin.removeprefix('trained, ')} noise"
    return training if curves.statistics == "running" else f"{training}; test-batch statistics"


def _percent(values: np.ndarray) -> str:
    return mean_and_deviation(100 * values)


@styled
def draw_robustness(record: Mapping[str, Any]) -> Figure:
    """Accuracy against the level, a column each kind; networks of the package above, those trained for this below."""
    kinds = list(record["config"]["levels"])
    curves = [c for c in curves_of(record) if c.statistics == record["config"]["statistics"][0]]
    rows = [[c for c in curves if (c.origin == "package") == package] for package in (True, False)]
    rows = [row for row in rows if row]
    figure = Figure(figsize=(WIDTH, 0.8 + 1.15 * len(rows)), layout="constrained")
    panels = figure.subplots(max(len(rows), 1), len(kinds), sharey=True, squeeze=False)
    for row, axes_of_row in zip(rows, panels, strict=False):
        for axes, kind in zip(axes_of_row, kinds, strict=True):
            for c in row:
                if kind in c.kinds:
                    _draw_curve(axes, c, kind)
            axes.set(ylim=(0, 100), xlim=(0, record["config"]["levels"][kind][-1]))
            axes.tick_params(labelsize=7)
            axes.grid(visible=False)
        origin = "of the package" if row[0].origin == "package" else "trained for this"
        axes_of_row[0].set_ylabel(f"{origin}:\ntest accuracy, %", fontsize=8)
    for axes, kind in zip(panels[0], kinds, strict=True):
        axes.set_title("FGSM" if kind == "fgsm" else kind, fontsize=8)
    lines = {line.get_label(): line for panel in panels.ravel() for line in panel.lines}
    figure.legend(lines.values(), lines.keys(), loc="outside upper center", ncols=4, fontsize=7)
    figure.supxlabel("level of the noise", fontsize=8)
    return figure


def _draw_curve(axes: Axes, curves: Curves, kind: str) -> None:
    levels, accuracies = curves.kinds[kind]
    with_noise = curves.origin not in ("package", "trained, none")
    label = LABELS[curves.network].replace("`", "") + (", trained in noise" if with_noise else "")
    colour, percent = COLOURS[curves.network], 100 * accuracies
    axes.plot(levels, percent.mean(1), color=colour, ls="--" if with_noise else "-", lw=1.2, label=label)
    axes.fill_between(levels, percent.min(1), percent.max(1), color=colour, alpha=0.2, lw=0)


def claim(record: Mapping[str, Any]) -> Finding:
    """For the table of claims: in which noise CNMF+1x1 keeps more of its accuracy than its twin, trained without noise.

    What is kept is compared, because of two networks the one that has learned more is ahead in noise too.
    """
    digits = stored("robustness/digits")
    for name, some in (("CIFAR-10", record), *([("digits", digits)] if digits else [])):
        pairs = [p for p in _pairs(curves_of(some)) if p[0].origin == "trained, none" and p[0].network == "cnmf_1x1"]
        for ours, theirs in pairs:
            verdicts = {kind: _verdict(ours, theirs, kind, Curves.kept) for kind in ours.kinds}
            ahead = [kind for kind, verdict in verdicts.items() if verdict.startswith("+")]
            behind = [kind for kind, verdict in verdicts.items() if verdict.startswith("-")]
            even = [kind for kind in verdicts if kind not in (*ahead, *behind)]
            parts = (("more in", ahead), ("less in", behind), ("not told apart in", even))
            told = "; ".join(
                f"{label} {'all kinds of noise' if len(kinds) == len(verdicts) else ', '.join(kinds)}"
                for label, kinds in parts
                if kinds
            )
            verdict = HOLDS if len(ahead) == len(verdicts) else IN_PART if ahead else NOT if behind else EVEN
            return f"{name}, {len(ours.clean)} seeds, accuracy that CNMF+1x1 keeps against CNN+1x1: {told}", verdict
    return "one seed each: see the table", NOT_RUN
