"""How long does a training step take, and an inference, beside PyTorch, the CNN and the machine's own limit?

python -m benchmarks.speed.step [--authors=FOLDER] [--batches 50 128] [--programs ours port ...]

PyTorch stands there twice: as the authors' released code, in a clone of https://github.com/mahbodnr/deep_nmf (FOLDER;
pip install jsmin), and as a port of our own.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import REMOVED, argument_parser, best, compiled_once, interleave, write
from benchmarks.speed.programs.training import batch_of
from deepnmf_jax.experiments import acceleration
from deepnmf_jax.experiments.tables import table
from deepnmf_jax.programs import home, run

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
AUTHORS = "https://github.com/mahbodnr/deep_nmf"
# The programs in PyTorch that compute what ours do.
PEERS = ("authors", "port")
# Beside those of these over ours: the program whose time is divided, and the one it is divided by.
RATIOS = {
    "authors' CNN / our CNN": ("authors' CNN", "our CNN"),
    "inference: authors / ours": ("inference: authors", "inference: ours"),
    "port's CNN / our CNN": ("port's CNN", "our CNN"),
    "port / port's CNN": ("port", "port's CNN"),
    "ours / our CNN": ("ours", "our CNN"),
    "inference: port / ours": ("inference: port", "inference: ours"),
    "data and augmentation / ours": ("data and augmentation", "ours"),
}


def clone(folder: Path) -> str:
    """The absolute path of a clone of the authors' code.

    Raises:
        ValueError: it is none.
    """
    if not (folder / "tools" / "make_network.py").is_file():
        raise ValueError(f"--authors={folder} holds no tools/make_network.py; git clone {AUTHORS} and give that folder")
    return str(folder.absolute())


def agreement(authors: str = "") -> dict[str, dict[str, float]]:
    """Largest difference of loss and gradients between each network in PyTorch and ours, on the same weights.

    Args:
        authors: a clone of the authors' code, which is then compared too.

    Raises:
        AssertionError: it is above TOLERANCE.
        ValueError: no such clone.
    """
    import jax

    from benchmarks.speed.programs import torch_port
    from deepnmf_jax.models import Network
    from deepnmf_jax.training.losses import training_loss

    images, labels = batch_of(20)
    worst: dict[str, dict[str, float]] = {}
    for layer in ("nmf", "conv"):
        network = Network(layer=layer)
        variables = jax.jit(network.init)(jax.random.key(0), images)

        def loss(params: Any, network: Network = network, rest: Any = variables["batch_stats"]) -> jax.Array:
            state = {"params": params, "batch_stats": rest}
            return training_loss(network.apply(state, images, train=True, mutable=["batch_stats"])[0], labels)

        expected = jax.value_and_grad(loss)(variables["params"])
        peers: dict[str, Any] = {"port": torch_port.Training(layer)}
        if authors:
            from benchmarks.speed.programs.authors import Training

            peers["authors"] = Training(authors, layer)
        for name, peer in peers.items():
            peer.load(variables["params"])
            peer.feed(images, labels)
            found = _difference(peer, *expected)
            if found > TOLERANCE[layer]:
                raise AssertionError(f"{name} and ours differ by {found:.1e} ({layer}); no speed is comparable")
            worst.setdefault(name, {})[layer] = found
    return worst


def _difference(peer: Any, loss: Any, gradients: Any) -> float:
    import torch

    differences = [abs(peer.gradient() / float(loss) - 1)]
    found = [(p.grad, torch.tensor(gradient)) for p, gradient in peer.beside(gradients)]
    # All vectors as one: biases that a batch norm follows have gradients of nothing but rounding.
    vectors = [torch.cat([pair[side] for pair in found if pair[side].ndim == 1]) for side in (0, 1)]
    for gradient, expected in [*(pair for pair in found if pair[0].ndim > 1), vectors]:
        differences.append(float((gradient - expected).norm() / expected.norm()))
    return max(differences)


def measure(
    batch: int, rounds: int, processes: int, compiled: bool, names: Sequence[str] = (), authors: str = ""
) -> dict[str, list[float]]:
    """Seconds of all programs, or of those named, at one batch size, each in several processes.

    `authors` is a clone of their code, empty for none.

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
    if authors:
        for layer, name in (("nmf", "authors"), ("conv", "authors' CNN")):
            specs[name] = {"program": "port_step", "batch": batch, "layer": layer, "authors": authors}
        specs["inference: authors"] = {"program": "port_inference", "batch": batch, "layer": "nmf", "authors": authors}
    specs["data and augmentation"] = {"program": "data_alone", "batch": batch}
    specs["product 2048"] = {"program": "large_product", "side": 2048}
    if names and ("port" not in names or set(names) - specs.keys()):
        raise ValueError(f"--programs {' '.join(names)}: give 'port' and others of {', '.join(specs)}")
    return interleave({name: specs[name] for name in names or specs}, rounds, processes)


def ratios(samples: dict[str, list[float]]) -> dict[str, float]:
    """How many times faster than those in PyTorch each of ours is, and what the port costs beside its CNN."""
    time = {name: best(s) for name, s in samples.items()}
    for name in ("port", "port's CNN"):
        if f"{name}, compiled" in time:
            time[name] = min(time[name], time[f"{name}, compiled"])
    found = {
        f"{peer} / {name}": time[peer] / time[name]
        for peer in PEERS
        if peer in time
        for name in OURS
        if name in time and name != "our CNN"
    }
    return found | {name: time[a] / time[b] for name, (a, b) in RATIOS.items() if a in time and b in time}


def shown(result: Mapping[str, Any]) -> dict[str, dict[str, list[float]]]:
    """The samples of each batch size, of the programs that still are."""
    return {
        batch: {name: s for name, s in samples.items() if REMOVED not in name}
        for batch, samples in result["samples"].items()
    }


def step_table(result: Mapping[str, Any]) -> str:
    """Training step and inference at each batch size: least and median time, and those in PyTorch over it."""
    samples = shown(result)
    peers = [peer for peer in PEERS if any(peer in found for found in samples.values())]
    rows = []
    for name in {name: None for batch in reversed(samples) for name in samples[batch]}:
        row: list[str] = [name]
        for found in samples.values():
            if name not in found:
                row += [""] * (1 + len(peers))
                continue
            row.append(_least_and_median(found[name], [0.001], "{:.0f}"))
            kind = "inference: " * name.startswith("inference")
            for peer in (kind + peer for peer in peers):
                comparable = peer in found and not name.startswith(("product", "data"))
                row.append(_least_and_median(found[peer], found[name]) if comparable else "")
        rows.append(row)
    head = ["least / median"]
    for batch in samples:
        head += [f"batch {batch}, ms", *(f"{peer} / this" for peer in peers)]
    return table(rows, head)


def _least_and_median(samples: Sequence[float], over: Sequence[float], form: str = "{:.2f}") -> str:
    return f"{form} / {form}".format(best(samples) / best(over), np.median(samples) / np.median(over))


def main() -> None:
    """Measures, prints the table, writes step.json."""
    parser = argument_parser(main.__doc__ or "")
    parser.add_argument("--batches", type=int, nargs="+", default=(50, 128), help="images in a batch")
    parser.add_argument("--programs", nargs="+", default=(), help="of the table, the port among them; all if not given")
    parser.add_argument("--authors", type=home, help="a clone of the authors' code, to be timed too")
    args = parser.parse_args()
    authors = clone(args.authors) if args.authors else ""
    differences = agreement(authors)
    print("largest relative difference of loss and gradients from ours:", differences)
    processes = 1 if args.quick else PROCESSES
    result: dict = {"differences": differences, "processes": processes, "samples": {}, "ratios": {}}
    with compiled_once():
        for batch in (4,) if args.quick else args.batches:
            rounds = 2 if args.quick else (8 if batch <= 50 else 4)
            samples = measure(batch, rounds, processes, not args.quick, args.programs, authors)
            result["samples"][str(batch)] = samples
            result["ratios"] |= {f"batch {batch}: {k}": v for k, v in ratios(samples).items()}
            print(f"batch {batch} is measured", flush=True)
    print(step_table(result))
    write("step", result, args.out)


if __name__ == "__main__":
    run(main)
