"""The layer alone: rate of the inference, cost of each gradient, memory kept for the backward.

python -m benchmarks.speed.layer
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.gpu.roofline import products_of_inference
from benchmarks.harness import arguments, best, write
from deepnmf_jax.core.inference import infer_unchecked
from deepnmf_jax.core.iteration import Settings
from deepnmf_jax.core.normalization import normalize_patches, normalize_weights
from deepnmf_jax.core.updates import em_step
from deepnmf_jax.experiments.tables import table
from deepnmf_jax.models import Network
from deepnmf_jax.training.devices import keep_freed_memory

# Positions, inputs and units of the first two blocks, for images of 28 x 28.
BLOCKS = {"block 1": (24, 75, 32), "block 2": (8, 800, 64)}
SETTINGS = {
    "20 plain": Settings(),
    "20 plain, bfloat16": Settings(products="bfloat16"),
    "4 power": Settings(num_iters=4, acceleration="power", exponent=6.0),
    "6 adaptive": Settings(num_iters=6, acceleration="adaptive"),
}


def problem(block: str, batch: int) -> tuple[jax.Array, jax.Array]:
    """x (batch, positions, positions, n) and w (k, n) of a block's shape."""
    side, n, k = BLOCKS[block]
    rng = np.random.default_rng(0)
    x = normalize_patches(jnp.asarray(rng.random((batch, side, side, n)), jnp.float32))
    return x, normalize_weights(jnp.asarray(rng.random((k, n)), jnp.float32))


def turns(programs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each program, in turns; each is run once before."""
    samples: dict[str, list[float]] = {name: [] for name in programs}
    for run in programs.values():
        jax.block_until_ready(run())
    for _ in range(rounds):
        for name, run in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            samples[name].append(time.perf_counter() - start)
    return samples


def rates(batch: int, rounds: int) -> tuple[dict[str, Any], dict[str, float]]:
    """Inference against a large product, and products of the layers' own shapes, all in one run."""
    a = jnp.ones((2048, 2048))
    matmul = jax.jit(jnp.matmul)
    programs: dict[str, Callable[[], Any]] = {"product 2048": partial(matmul, a, a)}
    flops = {"product 2048": 2 * 2048**3}
    for block in BLOCKS:
        x, w = problem(block, batch)
        h = jnp.ones((*x.shape[:-1], w.shape[0]), jnp.float32)
        one = 2 * x.size * w.shape[0]
        programs |= {f"{block}: h w": partial(matmul, h, w), f"{block}: f w^T": partial(matmul, x, w.T)}
        flops |= {f"{block}: h w": one, f"{block}: f w^T": one}
        for name, settings in SETTINGS.items():
            programs[f"{block}: {name}"] = partial(infer_unchecked, x, w, settings)
            flops[f"{block}: {name}"] = one * products_of_inference(settings.num_iters)
    samples = turns(programs, rounds)
    ceiling = flops["product 2048"] / best(samples["product 2048"])
    share = {name: flops[name] / best(s) / ceiling for name, s in samples.items()}
    both = sum(flops[f"{b}: 20 plain"] for b in BLOCKS) / sum(best(samples[f"{b}: 20 plain"]) for b in BLOCKS)
    share["blocks 1 and 2: 20 plain"] = both / ceiling
    rows = [(k, f"{1e3 * best(samples[k]):.1f}" if k in samples else "", f"{100 * v:.0f} %") for k, v in share.items()]
    print(f"batch {batch}; large product {ceiling / 1e9:.0f} GFLOP/s\n")
    print(table(rows, ("program", "ms (least)", "rate over that of the large product")))
    return {"samples": samples, "flops": flops}, {f"rate: {k}": v for k, v in share.items()}


def backward(batch: int, iterations: tuple[int, ...], rounds: int) -> tuple[dict[str, Any], dict[str, float]]:
    """Backward time of the gradients on block 1, the forward being done."""
    x, w = problem("block 1", batch)

    def by_hand(x: jax.Array, w: jax.Array, num_iters: int) -> jax.Array:
        start = jnp.full((*x.shape[:-1], w.shape[0]), 1 / w.shape[0])
        return jax.lax.fori_loop(0, num_iters, lambda _, h: em_step(x, w, h), start)

    programs = {}
    for num_iters in iterations:
        forwards = {
            name: partial(infer_unchecked, settings=Settings(num_iters=num_iters, gradient=name))
            for name in ("approximate", "unrolled", "implicit")
        }
        for name, forward in {**forwards, "plain autodiff": partial(by_hand, num_iters=num_iters)}.items():
            h, pull = jax.jit(partial(jax.vjp, forward))(x, w)
            programs[f"{name}, {num_iters}"] = partial(jax.jit(lambda pull, g: pull(g)), pull, h)
    samples = turns(programs, rounds)
    time = {name: best(s) for name, s in samples.items()}
    found, rows = {}, []
    for n in iterations:
        ratio = time[f"unrolled, {n}"] / time[f"approximate, {n}"]
        found[f"backward, {n} iterations: unrolled / approximate"] = ratio
        found[f"backward, {n} iterations: plain autodiff / unrolled"] = (
            time[f"plain autodiff, {n}"] / time[f"unrolled, {n}"]
        )
        ways = ("approximate", "implicit", "unrolled", "plain autodiff")
        rows.append((n, *(f"{1e3 * time[f'{way}, {n}']:.1f}" for way in ways), f"{ratio:.1f}"))
    print(f"\nbackward of block 1 alone, batch {batch}, ms\n")
    print(table(rows, ("iterations", *ways, "unrolled / approximate")))
    return samples, found


def memory(batch: int) -> tuple[dict[str, Any], dict[str, float]]:
    """Bytes kept between forward and backward, and the compiler's temporary bytes, beside the convolution's: of
    layers on the same patches, and of whole networks."""

    def convolution(x: jax.Array, w: jax.Array) -> jax.Array:
        return jnp.matmul(x, w.T)

    gradients = ("approximate", "implicit", "unrolled")
    layers = {"convolution": convolution} | {
        name: partial(infer_unchecked, settings=Settings(gradient=name)) for name in gradients
    }
    programs: dict[str, tuple[Callable[..., Any], Any]] = {
        f"{block}: {name}": (f, problem(block, batch)) for block in BLOCKS for name, f in layers.items()
    }
    images = jnp.ones((batch, 28, 28, 3))
    networks = {"convolution": Network(layer="conv")} | {name: Network(gradient=name) for name in gradients}
    for name, network in networks.items():
        variables = jax.eval_shape(network.init, jax.random.key(0), images)

        def forward(params: Any, network: Network = network, rest: Any = variables) -> jax.Array:
            state = {"params": params, "batch_stats": jax.tree.map(lambda s: jnp.ones(s.shape), rest["batch_stats"])}
            return network.apply(state, images, train=True, mutable=["batch_stats"])[0]

        programs[f"network: {name}"] = (forward, (variables["params"],))
    found, rows = {}, []
    for name, (f, inputs) in programs.items():
        residuals = jax.tree.leaves(jax.eval_shape(lambda *a, f=f: jax.vjp(f, *a)[1], *inputs))
        kept = sum(r.size * r.dtype.itemsize for r in residuals)
        gradient = jax.jit(jax.grad(lambda *a, f=f: (f(*a) ** 2).sum(), tuple(range(len(inputs)))))
        temporary = gradient.lower(*inputs).compile().memory_analysis().temp_size_in_bytes
        found[name] = {"kept": kept, "temporary": temporary}
        cnn = found[f"{name.split(':')[0]}: convolution"]["kept"]
        rows.append((name, f"{kept / 1e6:.1f}", f"{kept / cnn:.2f}", f"{temporary / 1e6:.1f}"))
    print("\n" + table(rows, ("layer and gradient", "kept, MB", "over the convolution's", "temporary, MB")))
    ratio = {
        f"memory, {b}: approximate / convolution": found[f"{b}: approximate"]["kept"]
        / found[f"{b}: convolution"]["kept"]
        for b in (*BLOCKS, "network")
    }
    return found, ratio


def main() -> None:
    """Measures, prints the tables, writes layer.json."""
    args = arguments(main.__doc__ or "")
    keep_freed_memory()
    batch, rounds = (2, 2) if args.quick else (50, 15)
    inference, shares = rates(batch, rounds)
    iterations = (5, 10) if args.quick else (5, 10, 20, 40, 80)
    backwards, slower = backward(2 if args.quick else 20, iterations, rounds)
    kept, more = memory(batch)
    result = {"inference": inference, "backward": backwards, "memory": kept}
    write("layer", {**result, "ratios": {**shares, **slower, **more}}, args.out)


if __name__ == "__main__":
    main()
