"""What do fewer or rounded products cost a trained network?

    python -m benchmarks.speed.acceleration --workdir=runs/cnmf_1x1 --data_dir=...

Accuracy, divergence and distance of the activities to the converged ones, against the pairs of products.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from benchmarks.harness import RESULTS, write
from benchmarks.speed.step import ACCELERATED, BY_BLOCK
from deepnmf_jax.core.divergences import kl_divergence
from deepnmf_jax.core.inference import infer
from deepnmf_jax.data.augmentation import center_crop
from deepnmf_jax.experiments.tables import table
from deepnmf_jax.models.summary import layer_rows
from deepnmf_jax.training.checkpoints import Checkpoints
from deepnmf_jax.training.devices import keep_freed_memory
from deepnmf_jax.training.setup import Run, prepare

PAIRS = (2, 3, 4, 5, 6, 10, 20, 40)
METHODS: dict[str, dict[str, Any]] = {
    "plain": {},
    "power 6": {"acceleration": "power", "exponent": 6.0},
    "power 8": {"acceleration": "power", "exponent": 8.0},
    "power 19": {"acceleration": "power", "exponent": 19.0},
    "adaptive 8": {"acceleration": "adaptive", "exponent": 8.0},
    "multistep 6": {"acceleration": "multistep", "exponent": 6.0},
    "plain, bfloat16": {"products": "bfloat16"},
    "power 6, bfloat16": {"acceleration": "power", "exponent": 6.0, "products": "bfloat16"},
}
PLAIN: dict[str, Any] = {"num_iters": 20}


def _steps(acceleration: str, num_iters: int, exponent: float) -> dict[str, Any]:
    return {"acceleration": acceleration, "num_iters": num_iters, "exponent": exponent}


# Settings of the four blocks, each for itself, all about as far as 20 plain iterations.
SETTINGS: dict[str, tuple[dict[str, Any], ...]] = {
    "20 plain": (PLAIN,) * 4,
    "power: 4 pairs": (ACCELERATED,) * 4,
    "power: 4 pairs, fourth plain": (*(ACCELERATED,) * 3, PLAIN),
    "power: 7, 4, 4 pairs, fourth plain": (_steps("power", 7, 3.17), *(ACCELERATED,) * 2, PLAIN),
    "power: 7, 7, 7 pairs, fourth plain": (*(_steps("power", 7, 3.17),) * 3, PLAIN),
    "multistep: 4 pairs": (_steps("multistep", 4, 6.33),) * 4,
    "multistep: 7 pairs": (_steps("multistep", 7, 3.17),) * 4,
    "multistep: 4 pairs, fourth plain": (*(_steps("multistep", 4, 6.33),) * 3, PLAIN),
    "multistep: 7, 4, 4 pairs, fourth plain": tuple(
        {"acceleration": BY_BLOCK["acceleration"], **block} for block in BY_BLOCK["block_settings"]
    ),
}


def load(workdir: Path, data_dir: str) -> tuple[Run, dict[str, Any]]:
    """The run of a workdir and its best variables."""
    from configs import base

    config = base.get_config()
    saved = ml_collections.ConfigDict(json.loads((workdir / "config.json").read_text()))
    for name in config:
        if name == "model":
            config.model.update({k: v for k, v in saved.model.items() if k in config.model})
        elif name in saved:
            config[name] = saved[name]
    config.data_dir = data_dir
    run = prepare(config)
    restored = Checkpoints(workdir).restore(run.template(), best=True)
    if restored is None:
        raise SystemExit(f"{workdir} holds no checkpoint")
    best = restored[1].best
    return run, {"params": best.params, "batch_stats": best.batch_stats}


def layer_inputs(run: Run, variables: dict[str, Any], images: jax.Array, rows: int) -> list[tuple[Any, Any]]:
    """Some rows of x of each NMF layer, and its w, as the network sees them with 20 plain iterations."""
    seen: list[tuple[Any, Any]] = []

    def note(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if context.method_name == "_infer":
            seen.append(args)
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        run.model.apply(variables, images, train=False)
    rng = np.random.default_rng(0)
    chosen = []
    for x, w in seen:
        flat = np.asarray(x).reshape(-1, x.shape[-1])
        flat = flat[flat.sum(-1) > 0]
        chosen.append((jnp.asarray(flat[rng.permutation(len(flat))[:rows]]), w))
    return chosen


def answers(run: Run, model: nn.Module, variables: dict[str, Any], images: np.ndarray) -> np.ndarray:
    """The classes that a network gives images, (images,)."""

    @jax.jit
    def classes(variables: dict[str, Any], images: jax.Array) -> jax.Array:
        return model.apply(variables, center_crop(images, run.augmentation.crop), train=False).argmax(-1)

    return np.concatenate([classes(variables, images[i : i + 250]) for i in range(0, len(images), 250)])


def divergences(inputs: list[tuple[Any, Any]], activities: list[jax.Array]) -> list[float]:
    """Of each layer, the mean KL."""
    return [float(kl_divergence(x, w, h).mean()) for (x, w), h in zip(inputs, activities, strict=True)]


def distances(activities: list[jax.Array], others: list[jax.Array]) -> list[float]:
    """Of each layer, the mean L1 distance."""
    return [float(jnp.abs(h - other).sum(-1).mean()) for h, other in zip(activities, others, strict=True)]


def by_block(run: Run, variables: dict[str, Any], inputs: list[tuple[Any, Any]]) -> dict[str, dict[str, Any]]:
    """Of each of SETTINGS, on all validation images: accuracy, the answers that the first of them does not give, and
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


def main() -> None:
    """Measures, prints the tables, writes acceleration.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=Path, required=True, help="of a trained network with NMF layers")
    parser.add_argument("--data_dir", default="", help="folder of the TFDS sets")
    parser.add_argument("--images", type=int, default=5000, help="validation images, at most all")
    parser.add_argument(
        "--methods", nargs="*", default=tuple(METHODS), choices=METHODS, help="the others keep their committed numbers"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    keep_freed_memory()
    run, variables = load(args.workdir, args.data_dir)
    chosen = run.split.validation[: args.images]
    images, labels = run.dataset.train_images[chosen], run.dataset.train_labels[chosen]
    crop = run.augmentation.crop
    inputs = layer_inputs(run, variables, center_crop(jnp.asarray(images[:100]), crop), rows=500)
    converged = [infer(x, w, num_iters=1500, acceleration="adaptive", exponent=32.0) for x, w in inputs]
    result: dict[str, Any] = {"images": len(chosen), "dataset": args.workdir.name, "pairs": PAIRS, "methods": {}}
    committed = json.loads((RESULTS / "acceleration.json").read_text())["methods"]
    for name, how in METHODS.items():
        if name not in args.methods:
            result["methods"][name] = committed[name]
            continue
        found: dict[str, list[Any]] = {"accuracy": [], "l1": [], "kl": []}
        for pairs in PAIRS:
            model = run.model.clone(num_iters=pairs, **how)
            right = answers(run, model, variables, images) == labels
            activities = [infer(x, w, num_iters=pairs, **how) for x, w in inputs]
            found["accuracy"].append(float(right.mean()))
            found["l1"].append(distances(activities, converged))
            found["kl"].append(divergences(inputs, activities))
        result["methods"][name] = found
        print(name, [f"{100 * a:.2f}" for a in found["accuracy"]], flush=True)
    result["by_block"] = by_block(run, variables, inputs)
    report(result)
    plain = result["methods"]["plain"]["accuracy"][PAIRS.index(20)]
    ratios = {
        f"accuracy: {name}, {pairs} pairs - 20 plain": found["accuracy"][PAIRS.index(pairs)] - plain
        for name, found in result["methods"].items()
        for pairs in (4, 6, 20)
    }
    write("acceleration", {**result, "differences": ratios}, args.out)


def report(result: dict[str, Any]) -> None:
    """Prints accuracy and the mean divergences of the four layers."""
    for quantity, scale, digits in (("accuracy", 100, 2), ("kl", 1, 4), ("l1", 1, 3)):
        rows = [
            (name, *(f"{scale * np.mean(v):.{digits}f}" for v in found[quantity]))
            for name, found in result["methods"].items()
        ]
        print(f"\n{quantity}\n" + table(rows, ("method", *PAIRS)))


if __name__ == "__main__":
    main()
