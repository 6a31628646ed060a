"""How long does a training step take, and an inference, beside PyTorch, the CNN and the machine's own limit?

python -m benchmarks.speed.step [--batches 50 128] [--programs ours port ...]
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.harness import REMOVED, argument_parser, best, interleave, write
from benchmarks.speed.programs.training import batch_of
from deepnmf_jax.experiments import acceleration
from deepnmf_jax.experiments.tables import table
from deepnmf_jax.programs import run

ADAPTIVE = {"num_iters": 6, "acceleration": "adaptive", "exponent": 8.0}
BY_BLOCK = {"block_settings": acceleration.BY_BLOCK}
OURS = {
    "ours": {},
    "ours, 6 adaptive": ADAPTIVE,
    "ours, multistep by block": BY_BLOCK,
    "ours, bfloat16": {"products": "bfloat16"},
    "ours, 6 adaptive, bfloat16": {**ADAPTIVE, "products": "bfloat16"},
    "ours, multistep by block, bfloat16": {**BY_BLOCK, "products": "bfloat16"},
    "ours, implicit": {"gradient": "implicit"},
    "ours, unrolled": {"gradient": "unrolled"},
    "ours, 5 iterations": {"num_iters": 5},
    "ours, 1 iteration": {"num_iters": 1},
    "our CNN": {"layer": "conv"},
}
# Relative, by layer. Batch norm cancels most of the first convolution's gradient, so that its rounding in float32 is
# large: 3e-4 on two threads, 4e-3 on one.
TOLERANCE = {"nmf": 1e-3, "conv": 1e-2}
# Of each program and batch size.
PROCESSES = 3
# Beside those of the port over ours: the program whose time is divided, and the one it is divided by.
RATIOS = {
    "port's CNN / our CNN": ("port's CNN", "our CNN"),
    "port / port's CNN": ("port", "port's CNN"),
    "ours / our CNN": ("ours", "our CNN"),
    "inference: port / ours": ("inference: port", "inference: ours"),
    "data and augmentation / ours": ("data and augmentation", "ours"),
}


def agreement() -> dict[str, float]:
    """Largest difference of loss and gradients between the port and ours, on the same weights.

    Raises:
        AssertionError: it is above TOLERANCE.
    """
    import jax
    import torch

    from benchmarks.speed.programs.torch_port import Training
    from deepnmf_jax.models import Network
    from deepnmf_jax.training.losses import training_loss

    images, labels = batch_of(20)
    worst = {}
    for layer in ("nmf", "conv"):
        network, port = Network(layer=layer), Training(layer)
        variables = jax.jit(network.init)(jax.random.key(0), images)
        port.network.load(variables["params"])
        port.feed(images, labels)

        def loss(params, network=network, rest=variables["batch_stats"]):
            state = {"params": params, "batch_stats": rest}
            return training_loss(network.apply(state, images, train=True, mutable=["batch_stats"])[0], labels)

        ours, gradients = jax.value_and_grad(loss)(variables["params"])
        differences = [abs(port.gradient() / float(ours) - 1)]
        found = [(p.grad, torch.tensor(gradient)) for p, gradient in port.network.beside(gradients)]
        # All vectors as one: biases that a batch norm follows have gradients of nothing but rounding.
        vectors = [torch.cat([pair[side] for pair in found if pair[side].ndim == 1]) for side in (0, 1)]
        for gradient, expected in [*(pair for pair in found if pair[0].ndim > 1), vectors]:
            differences.append(float((gradient - expected).norm() / expected.norm()))
        worst[layer] = max(differences)
        if worst[layer] > TOLERANCE[layer]:
            raise AssertionError(f"port and ours differ by {worst[layer]:.1e} ({layer}); no speed is comparable")
    return worst


def measure(
    batch: int, rounds: int, processes: int, compiled: bool, names: Sequence[str] = ()
) -> dict[str, list[float]]:
    """Seconds of all programs, or of those named, at one batch size, each in several processes.

    Raises:
        ValueError: a name that is no program's, or names without the port, which all are compared with.
    """
    specs: dict[str, dict] = {}
    for name, model in OURS.items():
        if name != "ours, unrolled" or batch <= 50:
            specs[name] = {"program": "train_step", "batch": batch, **model}
    for name in ("ours", "ours, multistep by block", "our CNN"):
        model = OURS[name]
        specs[f"inference: {name}"] = {"program": "inference", "batch": batch, **model}
    for layer, name in (("nmf", "port"), ("conv", "port's CNN")):
        for how in (False, True) if compiled else (False,):
            suffix = ", compiled" if how else ""
            specs[name + suffix] = {"program": "port_step", "batch": batch, "layer": layer, "compiled": how}
    specs["inference: port"] = {"program": "port_inference", "batch": batch, "layer": "nmf"}
    specs["data and augmentation"] = {"program": "data_alone", "batch": batch}
    specs["product 2048"] = {"program": "large_product", "side": 2048}
    if names and ("port" not in names or set(names) - specs.keys()):
        raise ValueError(f"--programs {' '.join(names)}: give 'port' and others of {', '.join(specs)}")
    return interleave({name: specs[name] for name in names or specs}, rounds, processes)


def ratios(samples: dict[str, list[float]]) -> dict[str, float]:
    """How many times faster than the port each of ours is, and what the port costs beside its CNN."""
    time = {name: best(s) for name, s in samples.items()}
    for name in ("port", "port's CNN"):
        if f"{name}, compiled" in time:
            time[name] = min(time[name], time[f"{name}, compiled"])
    found = {f"port / {name}": time["port"] / time[name] for name in OURS if name in time and name != "our CNN"}
    return found | {name: time[a] / time[b] for name, (a, b) in RATIOS.items() if a in time and b in time}


def shown(result: Mapping[str, Any]) -> dict[str, dict[str, list[float]]]:
    """The samples of each batch size, of the programs that still are."""
    return {
        batch: {name: s for name, s in samples.items() if REMOVED not in name}
        for batch, samples in result["samples"].items()
    }


def step_table(result: Mapping[str, Any]) -> str:
    """Training step and inference at each batch size: least and median time, and the port's over it."""
    samples = shown(result)
    rows = []
    for name in {name: None for batch in reversed(samples) for name in samples[batch]}:
        row: list[str] = [name]
        for found in samples.values():
            if name not in found:
                row += ["", "", ""]
                continue
            s, port = found[name], found["inference: port" if name.startswith("inference") else "port"]
            comparable = not name.startswith(("product", "data"))
            ratio = f"{best(port) / best(s):.2f} / {np.median(port) / np.median(s):.2f}" if comparable else ""
            row += [f"{1e3 * best(s):.0f}", f"{1e3 * np.median(s):.0f}", ratio]
        rows.append(row)
    head = ["program"]
    for batch in samples:
        head += [f"{batch}: least, ms", "median, ms", "port / this: least / median"]
    return table(rows, head)


def main() -> None:
    """Measures, prints the table, writes step.json."""
    parser = argument_parser(main.__doc__ or "")
    parser.add_argument("--batches", type=int, nargs="+", default=(50, 128), help="images in a batch")
    parser.add_argument("--programs", nargs="+", default=(), help="of the table, the port among them; all if not given")
    args = parser.parse_args()
    cache = tempfile.TemporaryDirectory()
    # The second and third process of a program start without compiling.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = cache.name
    differences = agreement()
    print("largest relative difference between port and ours:", differences)
    processes = 1 if args.quick else PROCESSES
    result: dict = {"differences": differences, "processes": processes, "samples": {}, "ratios": {}}
    for batch in (4,) if args.quick else args.batches:
        rounds = 2 if args.quick else (8 if batch <= 50 else 4)
        samples = measure(batch, rounds, processes, compiled=not args.quick, names=args.programs)
        result["samples"][str(batch)] = samples
        result["ratios"] |= {f"batch {batch}: {k}": v for k, v in ratios(samples).items()}
        print(f"batch {batch} is measured", flush=True)
    print(step_table(result))
    write("step", result, args.out)
    cache.cleanup()


if __name__ == "__main__":
    run(main)
