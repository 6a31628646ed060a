"""What back-propagation costs (paper, figure 2 and 1): CNN, and CNMF by each gradient, with and without 1x1.

python main.py --config=configs/experiments/cost.py --workdir=runs/cost [--config.data_dir=...]

Memory: bytes of the arrays that `jax.vjp` keeps between forward and backward, and the compiler's temporary bytes of
both together. Time: of the forward that keeps them, and of the backward alone, in turns. Error: of trainings.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deepnmf_jax.core.checks import check_choice, check_integer
from deepnmf_jax.experiments.budgets import check_budget, recipe, train
from deepnmf_jax.experiments.cells import Cell, Record, run_cells
from deepnmf_jax.experiments.tables import table
from deepnmf_jax.models import Network
from deepnmf_jax.plotting import BLACK, BLUE, GREEN, ORANGE, WIDTH, decades, styled
from deepnmf_jax.training.losses import training_loss

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
PARTS = ("training", "memory", "time")


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


def run(config: Any, workdir: str | Path) -> Record:
    """Measures what the config asks for; results.json, cost.md and pictures. The config: configs/experiments/cost.py.

    Raises:
        ValueError: settings outside what they allow, or a workdir of other settings.
        FileNotFoundError: the images are not there.
    """
    for network in config.networks:
        check_choice("networks", network, tuple(NETWORKS))
    for part in config.parts:
        check_choice("parts", part, PARTS)
    for gradient in config.gradients:
        check_choice("gradients", gradient, tuple(GRADIENTS))
    for name in ("iterations", "seeds"):
        for value in config[name]:
            check_integer(name, value, int(name == "iterations"))
    for name in ("shown", "batch_size", "rounds", "side"):
        check_integer(name, config[name], 1)
    check_budget(config)
    selecting = ("networks", "gradients", "iterations", "seeds", "parts")
    return run_cells(config, workdir, list_cells(config, workdir), cost_table, draw_cost, selecting)


def list_cells(config: Any, workdir: str | Path) -> list[Cell]:
    """A training, the memory of one program or the times at one number of iterations is a cell."""
    listed, parts = programs(config), {}
    parts["training"] = [
        Cell(f"training/{p.label}/{seed}", partial(_train, config, workdir, p, seed), 40 if p.gradient else 10)
        for seed in config.seeds
        for p in listed
    ]
    parts["memory"] = [
        Cell(f"memory/{p.label}/{n}", partial(_memory, p, n, config), 4 if n == config.shown else 1)
        for n in _counts(config)
        for p in _compared(config, n)
    ]
    parts["time"] = [
        Cell(f"time/{n}", partial(times, _compared(config, n), n, config), 10 + n) for n in _counts(config)
    ]
    return [cell for part in PARTS if part in config.parts for cell in parts[part]]


def _counts(config: Mapping[str, Any]) -> list[int]:
    return sorted({config["shown"], *config["iterations"]})


def _compared(config: Mapping[str, Any], num_iters: int) -> list[Program]:
    """All programs at the iterations shown; at the others, for the second panel, those without 1x1."""
    listed = programs(config)
    return listed if num_iters == config["shown"] else [p for p in listed if "+" not in p.network]


def _train(config: Any, workdir: str | Path, program: Program, seed: int) -> dict[str, Any]:
    changes: dict[str, Any] = {"seed": seed}
    if program.gradient:
        changes |= {"model.gradient": program.gradient, "model.num_iters": config.shown}
    name = f"{program.label.replace(', ', '-').replace(' ', '_')}-seed{seed}"
    settings = recipe(f"fast/{NETWORKS[program.network][1]}", config, workdir, changes)
    return train(settings, Path(workdir) / "training" / name)


Loss = Callable[[Any, Any], jax.Array]


def _problem(program: Program, num_iters: int, config: Any) -> tuple[Loss, Any]:
    """The loss of a batch as a function of the network's parameters and of images; the shapes of the parameters."""
    model = program.model(num_iters)
    labels = jnp.arange(config.batch_size) % model.num_classes
    variables = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(_shape(config), jnp.float32))
    statistics = variables.get("batch_stats", {})

    def loss(params: Any, images: jax.Array) -> jax.Array:
        state = {"params": params, "batch_stats": jax.tree.map(lambda s: jnp.ones(s.shape), statistics)}
        logits: Any = model.apply(state, images, train=True, mutable=["batch_stats"])[0]
        return training_loss(logits, labels)

    return loss, variables["params"]


def _shape(config: Any) -> tuple[int, ...]:
    return config.batch_size, config.side, config.side, 3


def _memory(program: Program, num_iters: int, config: Any) -> dict[str, int]:
    """Bytes kept between forward and backward; at the iterations shown, the compiler's temporary ones too."""
    loss, params = _problem(program, num_iters, config)
    images = jax.ShapeDtypeStruct(_shape(config), jnp.float32)
    found = {"kept": kept_bytes(loss, params, images)}
    if num_iters == config.shown:
        found["temporary"] = temporary_bytes(jax.grad(loss), params, images)
    return found


def kept_bytes(function: Callable[..., Any], params: Any, *rest: Any) -> int:
    """Bytes of the arrays that `jax.vjp` keeps between forward and backward for the gradient of `params`."""
    pull = jax.eval_shape(lambda p, *r: jax.vjp(lambda p: function(p, *r), p)[1], params, *rest)
    return sum(r.size * r.dtype.itemsize for r in jax.tree.leaves(pull))


def temporary_bytes(function: Callable[..., Any], *inputs: Any) -> int:
    """Bytes that the compiled function needs at once besides its inputs (arrays or their shapes) and results."""
    analysis: Any = jax.jit(function).lower(*inputs).compile().memory_analysis()
    return analysis.temp_size_in_bytes


def times(listed: Sequence[Program], num_iters: int, config: Any) -> dict[str, dict[str, list[float]]]:
    """Seconds of forward and backward of each program: least, quarter, median and three-quarter of the turns."""
    images = jnp.asarray(np.random.default_rng(0).random(_shape(config), np.float32))
    run = {p.label: _timed(*_problem(p, num_iters, config), images) for p in listed}
    samples: dict[str, list[tuple[float, float]]] = {label: [] for label in run}
    # The turns go backwards in every second round: what a program does to the caches is paid by its successor.
    for number in range(-1, config.rounds):
        for label in list(run)[:: -1 if number % 2 else 1]:
            sample = run[label]()
            if number >= 0:  # the first round compiles
                samples[label].append(sample)
    return {
        label: {
            part: [float(q) for q in np.quantile([s[i] for s in found], (0, 0.25, 0.5, 0.75))]
            for i, part in enumerate(("forward", "backward"))
        }
        for label, found in samples.items()
    }


def _timed(loss: Loss, shapes: Any, images: jax.Array) -> Callable[[], tuple[float, float]]:
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda s: jnp.asarray(rng.random(s.shape), s.dtype), shapes)
    forward = jax.jit(lambda p, i: jax.vjp(lambda p: loss(p, i), p))
    backward = jax.jit(lambda pull: pull(jnp.ones(())))

    def once() -> tuple[float, float]:
        start = time.perf_counter()
        _, pull = jax.block_until_ready(forward(params, images))
        between = time.perf_counter()
        jax.block_until_ready(backward(pull))
        return between - start, time.perf_counter() - between

    return once


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
        error = "not run"
        if own.errors:
            error = f"{100 * np.mean(own.errors):.1f}"
            error += f" ± {100 * np.std(own.errors, ddof=1):.1f}" if len(own.errors) > 1 else ""
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
