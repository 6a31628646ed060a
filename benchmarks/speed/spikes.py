"""What does a spike cost, beside a plain loop over spikes and beside an iteration?

python -m benchmarks.speed.spikes
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from benchmarks.harness import arguments, best, in_turns, timed, write
from deepnmf_jax.core.inference import infer_unchecked
from deepnmf_jax.core.iteration import Settings
from deepnmf_jax.core.normalization import normalize_patches, normalize_weights
from deepnmf_jax.core.spiking import spike_steps, spiking_unchecked
from deepnmf_jax.experiments.tables import table
from deepnmf_jax.training.devices import keep_freed_memory

# Inputs, positions, entries of an input, units: blocks 1 and 2 of the paper's networks at 50 images.
SHAPES = {"block 1": (50, 576, 75, 32), "block 2": (50, 64, 800, 64)}
PAIRS = 20


def plain_loop(num_spikes: int) -> Callable[[Array, Array, Array], Array]:
    """What one would write first: for each spike one draw by a binary search, and one gathered row of weights."""

    def loop(key: Array, x: Array, w: Array) -> Array:
        k = w.shape[0]
        rows = x.reshape(-1, x.shape[-1])
        sums, columns = jnp.cumsum(rows, axis=-1), w.T

        def spike(h: Array, at: tuple[Array, Array]) -> tuple[Array, None]:
            number, step = at
            u = jax.random.uniform(jax.random.fold_in(key, number), rows.shape[:1]) * sums[:, -1]
            drawn = jax.vmap(lambda own, u: jnp.searchsorted(own, u, side="right"))(sums, u)
            v = h * columns[drawn]
            return (h + step * v / jnp.sum(v, axis=-1, keepdims=True)) / (1 + step), None

        start = jnp.full((len(rows), k), 1 / k)
        h = jax.lax.scan(spike, start, (jnp.arange(num_spikes), spike_steps(num_spikes)))[0]
        return h.reshape(*x.shape[:-1], k)

    return loop


def spikes_table(result: Mapping[str, Any]) -> str:
    """Time for one spike of one input, and for one iteration of it."""
    rows = []
    for name, samples in result["samples"].items():
        inputs, spikes = result["inputs"][name], result["spikes"]
        ours, plain = (1e9 * best(samples[key]) / inputs / spikes for key in ("spikes", "plain loop"))
        pair = 1e9 * best(samples["iterations"]) / inputs / PAIRS
        rows.append((name, f"{ours:.0f}", f"{plain:.0f}", f"{plain / ours:.1f}", f"{pair:.0f}", f"{pair / ours:.1f}"))
    head = ("layer", "a spike, ns", "in a plain loop, ns", "ratio", "an iteration, ns", "spikes in its time")
    return table(rows, head)


def main() -> None:
    """Measures, prints the table, writes spikes.json."""
    args = arguments(main.__doc__ or "")
    keep_freed_memory()
    spikes = 5 if args.quick else 100
    result: dict[str, Any] = {"spikes": spikes, "samples": {}, "inputs": {}, "ratios": {}}
    key = jax.random.key(0)
    for name, (batch, positions, n, k) in SHAPES.items():
        if args.quick:
            batch, positions = 2, 5
        x = normalize_patches(jax.random.uniform(key, (batch, positions, n)) ** 4)
        w = normalize_weights(jax.random.uniform(jax.random.key(1), (k, n)) ** 2)
        loop = jax.jit(plain_loop(spikes))
        programs = {
            "spikes": timed(lambda x=x, w=w: spiking_unchecked(key, x, w, spikes, 1.0, 0.5)),
            "plain loop": timed(lambda x=x, w=w, loop=loop: loop(key, x, w)),
            "iterations": timed(lambda x=x, w=w: infer_unchecked(x, w, Settings(num_iters=PAIRS))),
        }
        samples = in_turns(programs, 2 if args.quick else 8)
        result["samples"][name], result["inputs"][name] = samples, batch * positions
        result["ratios"][f"{name}: plain loop / spikes"] = best(samples["plain loop"]) / best(samples["spikes"])
    print(spikes_table(result))
    write("spikes", result, args.out)


if __name__ == "__main__":
    main()
