"""What the record of the cost of back-propagation says: the programs that are compared, a table and a picture."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deepnmf_jax.experiments.tables import mean_and_deviation, table
from deepnmf_jax.models import Network
from deepnmf_jax.plotting import BLACK, BLUE, GREEN, ORANGE, WIDTH, decades, styled

# Fields of the networks, and the name of their config in configs/fast.
NETWORKS: dict[str, tuple[dict[str, Any], str]] = {
    "CNN": ({"layer": "conv", "mixing": False}, "cnn"),
    "CNN+1x1": ({"layer": "conv", "mixing": True}, "cnn_1x1"),
    "CNMF": ({"layer": "nmf", "mixing": False}, "cnmf"),
    "CNMF+1x1": ({"layer": "nmf", "mixing": True}, "cnmf_1x1"),
}
GRADIENTS = {"unrolled": "autodiff", "approximate": "one step", "implicit": "implicit"}
COLOURS = {"unrolled": ORANGE, "approximate": BLUE, "implicit": GREEN, "": BLACK}
# The one-step gradient is so many times faster than autodiff in figure 2.
PAPER_FACTOR = 29


class Program(NamedTuple):
    """A network with a gradient, "" for a CNN, which has no choice."""

    network: str
    gradient: str

    @property
    def label(self) -> str:
        """Its name in the record, the table and the picture."""
        return f"{self.network}, {GRADIENTS[self.gradient]}" if self.gradient else self.network

    @property
    def twin(self) -> str:
        """The CNN that it is held against."""
        return self.network.replace("CNMF", "CNN")

    def model(self, num_iters: int) -> Network:
        """The network, for ten classes."""
        own: dict[str, Any] = {"gradient": self.gradient, "num_iters": num_iters} if self.gradient else {}
        return Network(**NETWORKS[self.network][0], **own)


def programs(config: Mapping[str, Any]) -> list[Program]:
    """What is compared: each CNN once, each CNMF by each gradient."""
    return [
        Program(network, gradient)
        for network in config["networks"]
        for gradient in ([""] if NETWORKS[network][0]["layer"] == "conv" else config["gradients"])
    ]


class Numbers(NamedTuple):
    """Of a program at a number of iterations; the factors are over the CNN of its kind. None: not measured."""

    kept: float | None
    temporary: float | None
    forward: float | None
    backward: float | None
    least: float | None  # of the backward
    errors: list[float]


def numbers(record: Mapping[str, Any], program: Program, num_iters: int) -> Numbers:
    """Bytes, median seconds (and the least), and the test error of each seed as a share."""
    cells = record["cells"]
    kept = cells.get(f"memory/{program.label}/{num_iters}", {})
    seconds = cells.get(f"time/{num_iters}", {}).get(program.label, {})
    trained = [cells.get(f"training/{program.label}/{seed}") for seed in record["config"]["seeds"]]
    return Numbers(
        kept.get("kept"),
        kept.get("temporary"),
        seconds["forward"][2] if seconds else None,
        seconds["backward"][2] if seconds else None,
        seconds["backward"][0] if seconds else None,
        [1 - t["test_accuracy"] for t in trained if t],
    )


def over(one: float | None, other: float | None, digits: int = 2) -> str:
    """A quotient for a table; "not run" where a part of it was not measured."""
    return f"{one / other:.{digits}f}" if one and other else "not run"


def one_step_against_autodiff(record: Mapping[str, Any], network: str = "CNMF") -> dict[str, float | None]:
    """How many times less is kept, and how many times faster the backward is (by medians, and by the least of the
    turns, which others on the machine disturb least), at the iterations shown; and what is kept over the CNN's."""
    shown = record["config"]["shown"]
    one, full = (numbers(record, Program(network, g), shown) for g in ("approximate", "unrolled"))
    twin = numbers(record, Program(Program(network, "approximate").twin, ""), shown)

    def quotient(a: float | None, b: float | None) -> float | None:
        return a / b if a and b else None

    return {
        "kept": quotient(full.kept, one.kept),
        "backward": quotient(full.backward, one.backward),
        "least backward": quotient(full.least, one.least),
        "over CNN": quotient(one.kept, twin.kept),
    }


def cost_table(record: Mapping[str, Any]) -> str:
    """The programs at the iterations shown, beside their CNN; then memory and backward against the iterations."""
    config, listed = record["config"], programs(record["config"])
    shown, rows = config["shown"], []
    for program in listed:
        own, twin = (numbers(record, p, shown) for p in (program, Program(program.twin, "")))
        seconds = record["cells"].get(f"time/{shown}", {}).get(program.label)
        spread = "not run"
        if seconds:
            least, low, middle, high = (1e3 * s for s in seconds["backward"])
            spread = f"{middle:.0f} ({low:.0f} to {high:.0f}), {least:.0f}"
        error = mean_and_deviation(100 * np.array(own.errors)) if own.errors else "not run"
        rows.append((
            program.label,
            f"{own.kept / 1e6:.1f}" if own.kept else "not run", over(own.kept, twin.kept),
            over(own.temporary, twin.temporary),
            over(own.forward, twin.forward, 1), spread, over(own.backward, twin.backward, 1), error,
        ))  # fmt: skip
    head: tuple[str, ...] = ("network and gradient", "kept, MB", "kept / CNN", "temporary / CNN", "forward / CNN",
            "backward, ms: median (half of the turns), least", "backward / CNN", "test error, %")  # fmt: skip
    parts = [f"{shown} iterations:\n\n{table(rows, head)}"]
    deep = [p for p in listed if p.gradient and "+" not in p.network]  # as in `_compared`
    rows = []
    for n in config["iterations"]:
        found = [numbers(record, p, n) for p in deep]
        twins = [numbers(record, Program(p.twin, ""), n) for p in deep]
        rows.append((
            n, *(over(o.kept, t.kept) for o, t in zip(found, twins, strict=True)),
            *(over(o.backward, t.backward, 1) for o, t in zip(found, twins, strict=True)),
        ))  # fmt: skip
    names = [GRADIENTS[p.gradient] for p in deep]
    head = ("iterations", *(f"kept, {n}" for n in names), *(f"backward, {n}" for n in names))
    if rows and deep:
        parts.append(f"CNMF over the CNN, against the iterations:\n\n{table(rows, head)}")
    return "\n\n".join(parts)


@styled
def draw_cost(record: Mapping[str, Any]) -> Figure:
    """Above: memory, time of the backward and error, over the CNN of the kind. Below: both costs against iterations."""
    config = record["config"]
    figure = Figure(figsize=(0.9 * WIDTH, 4.6), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=(1, 1))
    above, below = halves
    above.suptitle(f"{config['shown']} iterations, beside the CNN of the kind")
    for axes, (name, title) in zip(
        above.subplots(1, 3),
        (("kept", "memory kept / CNN's"), ("backward", "backward / CNN's"), ("error", "test error / CNN's")),
        strict=True,
    ):
        _bars(axes, record, name)
        axes.set_title(title)
    for axes, (name, title) in zip(
        below.subplots(1, 2), (("kept", "memory kept / CNN's"), ("backward", "backward / CNN's")), strict=True
    ):
        for program in programs(config):
            if not program.gradient or "+" in program.network:
                continue
            found = [(n, _factor(record, program, n, name)) for n in config["iterations"]]
            points = [(n, value) for n, value in found if value]
            if points:
                colour = COLOURS[program.gradient]
                line = "--" if program.gradient == "implicit" else "-"  # it may lie on the one-step gradient's
                axes.plot(*zip(*points, strict=True), ls=line, marker="o", ms=4, label=program.label, color=colour)
        axes.set(xscale="log", yscale="log", xlabel="iterations", title=title)
        axes.set_xticks(config["iterations"], [str(n) for n in config["iterations"]], minor=False)
        axes.minorticks_off()
        decades(axes.yaxis)
    below.legend(*below.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _factor(record: Mapping[str, Any], program: Program, num_iters: int, name: str) -> float | None:
    own, twin = (numbers(record, p, num_iters) for p in (program, Program(program.twin, "")))
    if name == "error":
        return float(np.mean(own.errors) / np.mean(twin.errors)) if own.errors and twin.errors else None
    one, other = getattr(own, name), getattr(twin, name)
    return one / other if one and other else None


def _bars(axes: Axes, record: Mapping[str, Any], name: str) -> None:
    listed = programs(record["config"])
    factors = [_factor(record, p, record["config"]["shown"], name) or 0.0 for p in listed]
    colours = [COLOURS[p.gradient] for p in listed]
    axes.barh(range(len(listed)), factors, color=colours, height=0.7)
    for place, factor in enumerate(factors):
        text = f" {factor:.2f}" if factor < 10 else f" {factor:.0f}"
        axes.text(factor, place, text if factor else " not run", va="center", fontsize=8)
    axes.set_yticks(range(len(listed)), [p.label for p in listed] if name == "kept" else [""] * len(listed))
    axes.set(xlim=(0, 1.25 * max([*factors, 1.0])))
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
