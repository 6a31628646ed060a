"""What do fewer or rounded products cost a trained network?

python -m deepnmf_jax.experiments.acceleration --workdir=runs/cnmf_1x1 [--data_dir=...] [--out=FILE]

Accuracy, divergence and distance of the activities to the converged ones, against the pairs of products. The table is
of docs/results/acceleration/twenty_epochs.json, whose network was trained for twenty epochs with 20 plain iterations;
three_epochs.json is of one of three epochs with the paper's initial weights. Both hold methods that are no more.
"""

import argparse
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from deepnmf_jax.core.checks import check_integer
from deepnmf_jax.core.divergences import kl_divergence
from deepnmf_jax.core.inference import infer
from deepnmf_jax.data.augmentation import center_crop
from deepnmf_jax.experiments import run_records
from deepnmf_jax.experiments.tables import ROOT, as_json, loss_and_accuracy, table
from deepnmf_jax.files import write_atomically
from deepnmf_jax.models import Network
from deepnmf_jax.models.summary import layer_rows
from deepnmf_jax.programs import check_target, home
from deepnmf_jax.programs import run as run_program
from deepnmf_jax.training.devices import backend, keep_freed_memory, place, replicated
from deepnmf_jax.training.environment import environment
from deepnmf_jax.training.evaluation import Evaluator
from deepnmf_jax.training.setup import Run

FILE = ROOT / "docs" / "results" / "acceleration" / "twenty_epochs.json"
# Trainings of one network with different iterations, epoch by epoch, with the command of each.
TRAININGS = FILE.with_name("trainings.json")
PAIRS = (2, 3, 4, 5, 6, 10, 20, 40)
METHODS: dict[str, dict[str, Any]] = {
    "plain": {},
    "adaptive 8": {"acceleration": "adaptive", "exponent": 8.0},
    "multistep 6": {"acceleration": "multistep", "exponent": 6.0},
    "plain, bfloat16": {"products": "bfloat16"},
}
_PLAIN: dict[str, Any] = {"num_iters": 20, "acceleration": "none"}
_FOUR: dict[str, Any] = {"num_iters": 4, "acceleration": "multistep", "exponent": 6.33}
_SEVEN: dict[str, Any] = {"num_iters": 7, "acceleration": "multistep", "exponent": 3.17}
# As far as 20 plain iterations in each block, and so near to them that a network trained on them is as accurate.
BY_BLOCK = (_SEVEN, _FOUR, _FOUR, _PLAIN)
# Settings of the four blocks, all about as far as 20 plain iterations.
SETTINGS: dict[str, tuple[dict[str, Any], ...]] = {
    "20 plain": (_PLAIN,) * 4,
    "multistep: 4 pairs": (_FOUR,) * 4,
    "multistep: 7 pairs": (_SEVEN,) * 4,
    "multistep: 4 pairs, fourth plain": (*(_FOUR,) * 3, _PLAIN),
    "multistep: 7, 4, 4 pairs, fourth plain": BY_BLOCK,
}


def layer_inputs(model: nn.Module, variables: dict[str, Any], images: jax.Array, rows: int) -> list[tuple[Any, Any]]:
    """Some rows of x of each NMF layer, and its w, as the network sees them with its own iterations."""
    seen: list[tuple[Any, Any]] = []

    def note(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if context.method_name == "_infer":
            seen.append(args[:2])
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        model.apply(variables, images, train=False)
    rng = np.random.default_rng(0)
    chosen = []
    for x, w in seen:
        flat = np.asarray(x).reshape(-1, x.shape[-1])
        flat = flat[flat.sum(-1) > 0]
        chosen.append((jnp.asarray(flat[rng.permutation(len(flat))[:rows]]), w))
    return chosen


def answers(run: Run, model: Network, variables: dict[str, Any], images: np.ndarray) -> np.ndarray:
    """The classes that a network gives images, (images,)."""
    evaluate = Evaluator(model, crop=run.augmentation.crop, batch_size=250, mesh=run.mesh)
    # What the classes should be is not asked.
    data = place((jnp.asarray(images), jnp.zeros(len(images), jnp.int32)), replicated(run.mesh))
    subset = np.arange(len(images))
    return evaluate(variables["params"], variables["batch_stats"], data[0], data[1], subset).predictions


def divergences(inputs: list[tuple[Any, Any]], activities: list[jax.Array]) -> list[float]:
    """Of each layer, the mean KL."""
    return [float(kl_divergence(x, w, h).mean()) for (x, w), h in zip(inputs, activities, strict=True)]


def distances(activities: list[jax.Array], others: list[jax.Array]) -> list[float]:
    """Of each layer, the mean L1 distance."""
    return [float(jnp.abs(h - other).sum(-1).mean()) for h, other in zip(activities, others, strict=True)]


def by_block(run: Run, variables: dict[str, Any], inputs: list[tuple[Any, Any]]) -> dict[str, dict[str, Any]]:
    """Of each of `SETTINGS`, on all validation images: accuracy, the answers that the first of them does not give, and
    the share of its operations; on `inputs`, layer by layer, the divergence and the distance to its activities."""
    images, labels = (a[run.split.validation] for a in (run.dataset.train_images, run.dataset.train_labels))
    given, operations, activities = {}, {}, {}
    for name, blocks in SETTINGS.items():
        model = run.model.clone(block_settings=blocks)
        given[name] = answers(run, model, variables, images)
        layers = layer_rows(model, run.image_shape)
        operations[name] = sum(row.operations for row in layers if row.layer == "NMFConv")
        activities[name] = [infer(x, w, **how) for (x, w), how in zip(inputs, blocks, strict=True)]
    first = next(iter(SETTINGS))
    return {
        name: {
            "accuracy": float((given[name] == labels).mean()),
            "other answers": int((given[name] != given[first]).sum()),
            "operations": operations[name] / operations[first],
            "kl": divergences(inputs, activities[name]),
            "l1": distances(activities[name], activities[first]),
        }
        for name in SETTINGS
    }


def by_method(run: Run, variables: dict[str, Any], inputs: list[tuple[Any, Any]], images: int) -> dict[str, Any]:
    """Of each of `METHODS` and each number of pairs: the accuracy on so many validation images; on `inputs`, layer by
    layer, the distance to the converged activities and the divergence."""
    chosen = run.split.validation[:images]
    pictures, labels = run.dataset.train_images[chosen], run.dataset.train_labels[chosen]
    converged = [infer(x, w, num_iters=1500, acceleration="adaptive", exponent=32.0) for x, w in inputs]
    methods: dict[str, Any] = {}
    for name, how in METHODS.items():
        found: dict[str, list[Any]] = {"accuracy": [], "l1": [], "kl": []}
        for pairs in PAIRS:
            right = answers(run, run.model.clone(num_iters=pairs, **how), variables, pictures) == labels
            activities = [infer(x, w, num_iters=pairs, **how) for x, w in inputs]
            found["accuracy"].append(float(right.mean()))
            found["l1"].append(distances(activities, converged))
            found["kl"].append(divergences(inputs, activities))
        methods[name] = found
        print(name, [f"{100 * a:.2f}" for a in found["accuracy"]], flush=True)
    return methods


def acceleration_table(record: Mapping[str, Any]) -> str:
    """Accuracy and divergence of a trained network against the pairs of products."""
    parts = []
    for quantity, title, scale, digits in (
        ("accuracy", "validation accuracy, %", 100, 2),
        ("kl", "mean KL of the four layers, nats", 1, 4),
        ("l1", "mean L1 distance to the converged h", 1, 3),
    ):
        rows = [
            (name, *(f"{scale * np.mean(v):.{digits}f}" for v in record["methods"][name][quantity])) for name in METHODS
        ]
        parts.append(f"{title}:\n\n" + table(rows, ("pairs", *record["pairs"])))
    found = {name: record["by_block"][name] for name in SETTINGS}
    rows = [
        (name, f"{100 * b['accuracy']:.2f}", b["other answers"], f"{100 * b['operations']:.0f} %",
         ", ".join(f"{v:.4f}" for v in b["kl"]), ", ".join(f"{v:.3f}" for v in b["l1"]))
        for name, b in found.items()
    ]  # fmt: skip
    layers = ("KL of each layer, nats", "L1 distance to 20 plain")
    head = ("settings", "accuracy, %", "other answers", "operations", *layers)
    return "\n\n".join([*parts, "settings by block:\n\n" + table(rows, head)])


def trainings_table(record: Mapping[str, Any]) -> str:
    """Loss on the augmented training images and accuracy on the validation images, epoch by epoch."""
    runs = record["runs"]
    lines = [
        (str(epochs[0]["epoch"]), *map(loss_and_accuracy, epochs))
        for epochs in zip(*(run["epochs"] for run in runs.values()), strict=True)
    ]
    found = record["machine"]
    where = f"{found['cpu']}, a core each, jax {found['jax']}; commit {found['commit'][:7]}; {found['date']}"
    return f"{where}.\n\n" + table(lines, ("epoch", *runs))


def main() -> None:
    """Measures, prints the tables, writes the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--workdir", type=home, required=True, help="of a trained network with NMF layers")
    parser.add_argument("--data_dir", type=home, help="folder of the TFDS sets, if it is another than the run's")
    parser.add_argument("--images", type=int, default=2000, help="validation images, at most all")
    parser.add_argument("--out", type=home, default=FILE)
    args = parser.parse_args()
    check_integer("--images", args.images, 1)
    check_target(args.out)
    keep_freed_memory()
    backend()
    run, variables = run_records.trained(args.workdir, args.data_dir)
    images = run.dataset.train_images[run.split.validation[:100]]
    inputs = layer_inputs(run.model, variables, center_crop(jnp.asarray(images), run.augmentation.crop), rows=500)
    record = {
        "machine": environment(),
        "images": min(args.images, len(run.split.validation)),
        "dataset": run.dataset.name,
        "pairs": PAIRS,
        "methods": by_method(run, variables, inputs, args.images),
        "by_block": by_block(run, variables, inputs),
    }
    print(acceleration_table(record))
    write_atomically(args.out, as_json(record))


if __name__ == "__main__":
    run_program(main)
