"""The layer alone: rate of the inference, cost of each gradient, memory kept for the backward.

python -m benchmarks.speed.layer
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.harness import REMOVED, arguments, best, in_turns, timed, write
from benchmarks.layers import LAYERS, backward_of, problem, products_of_inference
from benchmarks.speed.programs.training import large_product
from deepnmf_jax import infer
from deepnmf_jax.core.updates import em_step
from deepnmf_jax.experiments.cost import kept_bytes, temporary_bytes
from deepnmf_jax.experiments.tables import table
from deepnmf_jax.programs import run
from deepnmf_jax.training.devices import keep_freed_memory

BLOCKS = LAYERS[:2]
GRADIENTS = ("approximate", "unrolled", "implicit")
SETTINGS: dict[str, dict[str, Any]] = {
    "20 plain": {"num_iters": 20},
    "20 plain, bfloat16": {"num_iters": 20, "products": "bfloat16"},
    "6 adaptive": {"num_iters": 6, "acceleration": "adaptive"},
}


def rates(batch: int, rounds: int) -> tuple[dict[str, Any], dict[str, float]]:
    """Inference against a large product, and products of the layers' own shapes, all in one run."""
    programs: dict[str, Callable[[], Any]] = {"product 2048": large_product(2048)}
    flops = {"product 2048": 2 * 2048**3}
    matmul = jax.jit(jnp.matmul)
    for block in BLOCKS:
        x, w, h = problem(block, batch)
        one = 2 * x.size * w.shape[0]
        programs |= {f"{block.name}: h w": partial(matmul, h, w), f"{block.name}: f w^T": partial(matmul, x, w.T)}
        flops |= {f"{block.name}: h w": one, f"{block.name}: f w^T": one}
        for name, settings in SETTINGS.items():
            programs[f"{block.name}: {name}"] = partial(jax.jit(partial(infer, **settings)), x, w)
            flops[f"{block.name}: {name}"] = one * products_of_inference(settings["num_iters"])
    samples = in_turns({name: timed(run) for name, run in programs.items()}, rounds)
    ceiling = flops["product 2048"] / best(samples["product 2048"])
    share = {name: flops[name] / best(s) / ceiling for name, s in samples.items()}
    plain = [f"{block.name}: 20 plain" for block in BLOCKS]
    both = sum(flops[name] for name in plain) / sum(best(samples[name]) for name in plain)
    share["blocks 1 and 2: 20 plain"] = both / ceiling
    return {"samples": samples, "flops": flops}, {f"rate: {k}": v for k, v in share.items()}


def rates_table(result: Mapping[str, Any]) -> str:
    """Operations a second of each program, over those of the large product."""
    rows = [
        (name.removeprefix("rate: "), f"{100 * share:.0f} %")
        for name, share in result["ratios"].items()
        if name.startswith("rate: ") and REMOVED not in name
    ]
    return table(rows, ("program", "operations a second, over those of the large product"))


def backward(batch: int, iterations: tuple[int, ...], rounds: int) -> tuple[dict[str, Any], dict[str, float]]:
    """Backward time of the gradients on block 1, the forward being done."""
    x, w, g = problem(BLOCKS[0], batch)

    def by_hand(x: jax.Array, w: jax.Array, num_iters: int) -> jax.Array:
        start = jnp.full((*x.shape[:-1], w.shape[0]), 1 / w.shape[0])
        return jax.lax.fori_loop(0, num_iters, lambda _, h: em_step(x, w, h), start)

    programs = {}
    for n in iterations:
        forwards = {name: partial(infer, num_iters=n, gradient=name) for name in GRADIENTS}
        for name, forward in {**forwards, "plain autodiff": partial(by_hand, num_iters=n)}.items():
            programs[f"{name}, {n}"] = timed(backward_of(forward, x, w, g))
    samples = in_turns(programs, rounds)
    time = {name: best(s) for name, s in samples.items()}
    found = {}
    for n in iterations:
        for one, other in (("unrolled", "approximate"), ("plain autodiff", "unrolled")):
            found[f"backward, {n} iterations: {one} / {other}"] = time[f"{one}, {n}"] / time[f"{other}, {n}"]
    return samples, found


def backward_table(result: Mapping[str, Any]) -> str:
    """Backward of block 1 alone, by gradient and number of iterations."""
    samples = result["backward"]
    ways = list(dict.fromkeys(name.split(", ")[0] for name in samples))
    rows = []
    for n in dict.fromkeys(name.split(", ")[1] for name in samples):
        ms = {way: 1e3 * best(samples[f"{way}, {n}"]) for way in ways}
        rows.append((n, *(f"{v:.1f}" for v in ms.values()), f"{ms['unrolled'] / ms['approximate']:.1f}"))
    return table(rows, ("iterations", *(f"{way}, ms" for way in ways), "unrolled / approximate"))


def memory(batch: int, num_iters: int = 20) -> tuple[dict[str, Any], dict[str, float]]:
    """Bytes kept between forward and backward, and the compiler's temporary bytes, of layers on the same patches; and
    the bytes kept over those of the convolution. Of whole networks: deepnmf_jax/experiments/cost.py."""

    def convolution(x: jax.Array, w: jax.Array) -> jax.Array:
        return jnp.matmul(x, w.T)

    ours = {name: partial(infer, gradient=name, num_iters=num_iters) for name in GRADIENTS}
    layers = {"convolution": convolution, **ours}
    programs: dict[str, tuple[Callable[..., Any], Any]] = {
        f"{block.name}: {name}": (f, problem(block, batch)[:2]) for block in BLOCKS for name, f in layers.items()
    }
    found = {}
    for name, (f, inputs) in programs.items():

        def of_inputs(inputs: Any, f: Callable[..., Any] = f) -> jax.Array:
            return f(*inputs)

        kept = kept_bytes(of_inputs, inputs)
        temporary = temporary_bytes(jax.grad(lambda i, f=of_inputs: (f(i) ** 2).sum()), inputs)
        found[name] = {"kept": kept, "temporary": temporary}
    ratio = {
        f"memory, {b.name}: approximate / convolution": found[f"{b.name}: approximate"]["kept"]
        / found[f"{b.name}: convolution"]["kept"]
        for b in BLOCKS
    }
    return found, ratio


def memory_table(result: Mapping[str, Any]) -> str:
    """Bytes kept for the backward, and the compiler's temporary ones."""
    rows = []
    for name, found in (kept := result["memory"]).items():
        over = found["kept"] / kept[f"{name.split(':')[0]}: convolution"]["kept"]
        rows.append((name, f"{found['kept'] / 1e6:.1f}", f"{over:.2f}", f"{found['temporary'] / 1e6:.1f}"))
    return table(rows, ("layer and gradient", "kept, MB", "over the convolution's", "temporary, MB"))


def main() -> None:
    """Measures, prints the tables, writes layer.json."""
    args = arguments(main.__doc__ or "")
    keep_freed_memory()
    batch, rounds = (1, 2) if args.quick else (50, 15)
    inference, shares = rates(batch, rounds)
    iterations = (2,) if args.quick else (5, 10, 20, 40, 80)
    backwards, slower = backward(1 if args.quick else 20, iterations, rounds)
    kept, more = memory(batch, 2 if args.quick else 20)
    result = {"inference": inference, "backward": backwards, "memory": kept, "ratios": {**shares, **slower, **more}}
    print("\n\n".join(make(result) for make in (rates_table, backward_table, memory_table)))
    write("layer", result, args.out)


if __name__ == "__main__":
    run(main)
