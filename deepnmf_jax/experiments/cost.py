"""What back-propagation costs (paper, figure 2 and 1): CNN, and CNMF by each gradient, with and without 1x1.

python main.py --config=configs/experiments/cost.py --workdir=runs/cost [--config.data_dir=...]

Memory: bytes of the arrays that `jax.vjp` keeps between forward and backward, and the compiler's temporary bytes of
both together. Time: of the forward that keeps them, and of the backward alone, in turns. Error: of trainings.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deepnmf_jax.core.checks import check_choice, check_integer, check_seed
from deepnmf_jax.experiments.budgets import check_budget, check_listed, recipe, train
from deepnmf_jax.experiments.cells import Cell, Record, run_cells
from deepnmf_jax.experiments.cost_pages import GRADIENTS, NETWORKS, Program, cost_table, draw_cost, programs
from deepnmf_jax.training.losses import training_loss

PARTS = ("training", "memory", "time")


def run(config: Any, workdir: str | Path) -> Record:
    """Measures what the config asks for; results.json, cost.md and pictures. The config: configs/experiments/cost.py.

    Raises:
        ValueError: settings outside what they allow, or a workdir of other settings.
        FileNotFoundError: the images are not there.
    """
    check_listed(config, "parts", "networks", "gradients", "seeds")
    for network in config.networks:
        check_choice("networks", network, tuple(NETWORKS))
    for part in config.parts:
        check_choice("parts", part, PARTS)
    for gradient in config.gradients:
        check_choice("gradients", gradient, tuple(GRADIENTS))
    for value in config.iterations:
        check_integer("iterations", value, 1)
    for seed in config.seeds:
        check_seed("seeds", seed)
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
    backward = jax.jit(lambda pull: pull(jnp.ones((), jnp.float32)))

    def once() -> tuple[float, float]:
        start = time.perf_counter()
        _, pull = jax.block_until_ready(forward(params, images))
        between = time.perf_counter()
        jax.block_until_ready(backward(pull))
        return between - start, time.perf_counter() - between

    return once
