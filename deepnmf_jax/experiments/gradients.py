"""Each gradient against the exact one of the loss: angle and length, layer by layer; and accuracy after training.

python main.py --config=configs/experiments/gradients.py --workdir=runs/gradients [--config.dataset=cifar10]

The exact gradient is autodiff through all iterations, of the loss of a batch by the raw weights of each NMF layer.
Every gradient sees the same activities. "phantom k" is autodiff through the last k iterations alone (Geng et al. 2021).
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from matplotlib.figure import Figure

from deepnmf_jax.core.checks import check_choice, check_integer, check_seed
from deepnmf_jax.core.gradients import at_result
from deepnmf_jax.core.iteration import uniform_start
from deepnmf_jax.core.updates import em_step
from deepnmf_jax.data.augmentation import center_crop
from deepnmf_jax.experiments.budgets import check_budget, check_listed, recipe, train, trained
from deepnmf_jax.experiments.cells import Cell, Record, run_cells
from deepnmf_jax.experiments.tables import table
from deepnmf_jax.plotting import WIDTH, styled
from deepnmf_jax.training.losses import training_loss
from deepnmf_jax.training.setup import prepare

STATES = ("untrained", "trained")
EXACT = "unrolled"
BLOCKS = 4
Code = Callable[[Array, Array], Array]  # x, w -> h


def run(config: Any, workdir: str | Path) -> Record:
    """Measures what the config asks for (configs/experiments/gradients.py); results.json, gradients.md and pictures.

    Raises:
        ValueError: settings outside what they allow, or a workdir of other settings.
        FileNotFoundError: the images are not there.
    """
    for name in ("implicit_steps", "phantom_steps", "iterations"):
        for value in config[name]:
            check_integer(name, value, 1)
    for name in ("batches", "batch_size", "trained_iterations", "shown"):
        check_integer(name, config[name], 1)
    for state in config.states:
        check_choice("states", state, STATES)
    for name in config.trainings:
        check_choice("trainings", name, (*names(config), EXACT))
    if not (config.states or config.trainings):
        raise ValueError("states and trainings are empty; give one value at least")
    check_listed(config, "iterations")
    check_choice("shown", config.shown, tuple(config.iterations))
    check_seed("seed", config.seed)
    check_budget(config)
    selecting = ("states", "trainings", "iterations", "shown")
    return run_cells(config, workdir, list_cells(config, workdir), gradients_table, draw_gradients, selecting)


def names(config: Mapping[str, Any]) -> list[str]:
    """The gradients that are held against the exact one."""
    implicit = [f"implicit {k}" for k in config["implicit_steps"]]
    return ["approximate", "scaled", *implicit, *(f"phantom {k}" for k in config["phantom_steps"])]


def list_cells(config: Any, workdir: str | Path) -> list[Cell]:
    """A training, or all gradients of one network at one number of iterations, is a cell."""
    angles = [
        Cell(f"angles/{state}/{n}", partial(_angles, config, workdir, state, n))
        for state in config.states
        for n in config.iterations
    ]
    costs = {EXACT: 12.0}
    trainings = [
        Cell(f"training/{name}", partial(_train, config, workdir, name), costs.get(name, 3.0))
        for name in config.trainings
    ]
    return [*angles, *trainings]


def _settings(config: Any, workdir: str | Path, name: str) -> Any:
    gradient, _, steps = name.partition(" ")
    changes: dict[str, Any] = {"seed": config.seed, "model.num_iters": config.trained_iterations}
    if gradient != "phantom":
        changes["model.gradient"] = gradient
    if gradient == "implicit":
        changes["model.cg_steps"] = int(steps)
    return recipe("fast/cnmf_1x1", config, workdir, changes)


def _folder(workdir: str | Path, name: str) -> Path:
    return Path(workdir) / "training" / name.replace(" ", "_")


def _train(config: Any, workdir: str | Path, name: str) -> dict[str, Any]:
    phantom = name.startswith("phantom")
    code = partial(coded, name=name, num_iters=config.trained_iterations)
    with coded_by(code) if phantom else contextlib.nullcontext():
        return train(_settings(config, workdir, name), _folder(workdir, name))


@contextlib.contextmanager
def coded_by(code: Code) -> Iterator[None]:
    """Inside, every NMF layer that is traced takes its activities, and their gradient, from this function."""

    def instead(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        return code(*args[:2]) if context.method_name == "_infer" else call(*args, **kwargs)

    with nn.intercept_methods(instead):
        yield


def coded(x: Array, w: Array, name: str, num_iters: Array | int, longest: int = 0) -> Array:
    """h after `num_iters` plain iterations, with a gradient by its name here. `infer` for a number that may be traced.

    x (..., n), w (k, n) -> h (..., k). `longest`: of "unrolled", the most iterations; the others need none.
    """

    def step(h: Array) -> Array:
        return em_step(x, w, h)

    start = uniform_start(x, w.shape[0])
    gradient, _, steps = name.partition(" ")
    if gradient == EXACT:
        # A loop whose length is traced has no reverse mode; one that holds still after num_iters has.
        def masked(h: Array, i: Array) -> tuple[Array, None]:
            return jnp.where(i < num_iters, step(h), h), None

        return jax.lax.scan(masked, start, jnp.arange(longest))[0]
    fixed = partial(em_step, jax.lax.stop_gradient(x), jax.lax.stop_gradient(w))
    last = int(steps) if gradient == "phantom" else 0
    h = jax.lax.fori_loop(0, num_iters - last, lambda _, h: fixed(h), start)
    if gradient == "phantom":
        h = jax.lax.stop_gradient(h)
        for _ in range(last):
            h = step(h)
        return h
    return at_result(h, x, w, gradient=gradient, cg_steps=int(steps or 0), steps=num_iters)


@cache
def _gradient(model: nn.Module, name: str, longest: int) -> Callable[..., list[Array]]:
    """A compiled function: variables, images, labels, iterations -> the gradient of the raw weights of each layer."""

    def loss(params: Any, batch_stats: Any, images: Array, labels: Array, num_iters: Array) -> Array:
        with coded_by(partial(coded, name=name, num_iters=num_iters, longest=longest)):
            variables = {"params": params, "batch_stats": batch_stats}
            logits: Any = model.apply(variables, images, train=True, mutable=["batch_stats"])[0]
        return training_loss(logits, labels)

    def gradient(params: Any, *rest: Any) -> list[Array]:
        found = jax.grad(loss)(params, *rest)
        return [found[block]["nmf"]["u"] for block in sorted(found)]

    return jax.jit(gradient)


def _angles(config: Any, workdir: str | Path, state: str, num_iters: int) -> dict[str, Any]:
    """Of each gradient, by layer: mean and deviation over batches of the angle to the exact one, degrees, and the mean
    of its length over the exact one's."""
    folder = _folder(workdir, "approximate")
    if state == "trained":
        train(_settings(config, workdir, "approximate"), folder)
        run, variables = trained(folder)
        params, batch_stats = variables["params"], variables["batch_stats"]
    else:
        run = prepare(_settings(config, workdir, "approximate"))
        fresh = run.initial_state()
        params, batch_stats = fresh.params, fresh.batch_stats
    count = config.batch_size * config.batches
    chosen = np.random.default_rng(config.seed).permutation(run.split.train)[:count]
    images = center_crop(jnp.asarray(run.dataset.train_images[chosen]), run.augmentation.crop)
    labels = jnp.asarray(run.dataset.train_labels[chosen])
    measured: dict[str, list[list[tuple[float, float]]]] = {name: [] for name in names(config)}
    for i in range(0, count, config.batch_size):
        batch = (params, batch_stats, images[i : i + config.batch_size], labels[i : i + config.batch_size], num_iters)
        exact = _gradient(run.model, EXACT, max(config.iterations))(*batch)
        for name, found in measured.items():
            own = _gradient(run.model, name, 0)(*batch)
            found.append([angle_and_length(a, b) for a, b in zip(own, exact, strict=True)])
    result = {}
    for name, found in measured.items():
        values = np.array(found)  # batch, layer, (angle, length)
        result[name] = {
            "angle": np.round(values[..., 0].mean(0), 2).tolist(),
            "angle_deviation": np.round(values[..., 0].std(0), 2).tolist(),
            "length": [float(f"{v:.4g}") for v in values[..., 1].mean(0)],
        }
    return result


def angle_and_length(a: Array, b: Array) -> tuple[float, float]:
    """The angle between two arrays, in degrees, and the length of the first over that of the second."""
    one, other = (np.asarray(v, np.float64).ravel() for v in (a, b))
    lengths = np.linalg.norm(one), np.linalg.norm(other)
    if not min(lengths) > 0:
        return float("nan"), float("nan")
    cosine = one @ other / (lengths[0] * lengths[1])
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))), float(lengths[0] / lengths[1])


def gradients_table(record: Mapping[str, Any]) -> str:
    """Angles and lengths at the iterations shown, the angle of all iterations, and accuracy after training."""
    config, cells, parts = record["config"], record["cells"], []
    head: tuple[Any, ...] = ("gradient", *(f"block {i + 1}" for i in range(BLOCKS)))
    for state in config["states"]:
        found = cells.get(f"angles/{state}/{config['shown']}")
        if found:
            rows = [
                (name, *(f"{a:.0f} ± {d:.0f}° ({_short(r)})" for a, d, r in zip(
                    own["angle"], own["angle_deviation"], own["length"], strict=True)))
                for name, own in found.items()
            ]  # fmt: skip
            title = f"{state} network, {config['shown']} iterations: angle to the exact gradient (length over its own)"
            parts.append(f"{title}:\n\n{table(rows, head)}")
    for state in config["states"]:
        counts = [n for n in config["iterations"] if f"angles/{state}/{n}" in cells]
        rows = [
            (name, *(f"{np.mean(cells[f'angles/{state}/{n}'][name]['angle']):.0f}°" for n in counts))
            for name in names(config)
        ]
        if counts:
            title = f"{state} network, mean angle of the four blocks against the iterations"
            parts.append(f"{title}:\n\n{table(rows, ('gradient', *counts))}")
    rows = []
    for name in config["trainings"]:
        own = cells.get(f"training/{name}")
        rows.append((name, f"{100 * own['test_accuracy']:.1f}" if own else "not run"))
    if rows:
        title = f"trained with {config['trained_iterations']} iterations on {config['dataset']}, one seed"
        parts.append(f"{title}:\n\n{table(rows, ('gradient', 'test accuracy, %'))}")
    return "\n\n".join(parts)


def _short(value: float) -> str:
    return f"{value:.2f}" if 0.01 <= value < 100 else f"{value:.0e}"


@styled
def draw_gradients(record: Mapping[str, Any]) -> Figure:
    """Angle (above) and length (below) against the iterations, one panel a block; untrained networks dashed."""
    config, cells = record["config"], record["cells"]
    figure = Figure(figsize=(0.85 * WIDTH, 3.7), layout="constrained")
    panels = figure.subplots(2, BLOCKS, sharex=True, sharey="row")
    for state, line in zip(STATES, ("--", "-"), strict=True):
        counts = [n for n in config["iterations"] if f"angles/{state}/{n}" in cells]
        for number, name in enumerate(names(config)):
            for row, quantity in zip(panels, ("angle", "length"), strict=True):
                for block, axes in enumerate(row):
                    values = [cells[f"angles/{state}/{n}"][name][quantity][block] for n in counts]
                    label = name if state == "trained" else f"_{name}"
                    axes.plot(counts, values, ls=line, color=f"C{number % 6}", marker="os^"[number // 6], ms=3,
                              lw=1.1, label=label)  # fmt: skip
    for block, (above, below) in enumerate(panels.T):
        above.set_title(f"block {block + 1}")
        below.set(xscale="log", yscale="log", xlabel="iterations")
        below.set_xticks(config["iterations"], [str(n) for n in config["iterations"]])
        below.minorticks_off()
    panels[0, 0].set(ylabel="angle, degrees", ylim=(0, None))
    panels[1, 0].set_ylabel("length / exact")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure
