"""What does a spike cost, beside a plain loop over spikes and beside an iteration, and where does its time go?

python -m benchmarks.speed.spikes
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from benchmarks.harness import Sampler, arguments, best, in_turns, timed, write
from deepnmf_jax.core import spiking
from deepnmf_jax.core.inference import infer_unchecked
from deepnmf_jax.core.iteration import Settings
from deepnmf_jax.core.normalization import normalize_patches, normalize_weights
from deepnmf_jax.core.spiking import draw_spikes, infer_from_spikes, row_keys, spike_steps, spiking_unchecked
from deepnmf_jax.experiments.tables import table
from deepnmf_jax.programs import run
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


def parts_of_a_spike(key: Array, x: Array, w: Array, num_spikes: int) -> dict[str, Sampler]:
    """Programs that do a part of what `infer_spiking` does with one tile of inputs x (rows, n), each with all spikes.

    They see private functions of deepnmf_jax/core/spiking.py, whose parts have no other names.
    """
    keys = row_keys(key, x.shape[:1])
    table = jax.jit(spiking._distribution)(x)
    spikes = draw_spikes(key, x, num_spikes)
    chunks = jnp.arange(-(-num_spikes // spiking.CHUNK))

    # Everything is an argument: XLA would compute what follows from constants while it compiles.
    def over_chunks(part: Callable[..., Array]) -> Callable[..., Array]:
        # The sum keeps XLA from leaving out what nobody reads.
        return lambda *args: jax.lax.map(lambda chunk: part(chunk, *args).sum(), chunks)

    def random_numbers(chunk: Array, keys: Array) -> Array:
        own = lambda key: jax.random.uniform(jax.random.fold_in(key, chunk), (spiking.CHUNK,))  # noqa: E731
        return jax.vmap(own)(keys)

    def draw(chunk: Array, keys: Array, table: tuple[Array, Array]) -> Array:
        return spiking._draw(keys, chunk, table, x.shape[-1])

    def gather(spikes: Array, columns: Array) -> Array:
        take = lambda h, s: (h + columns.at[s].get(mode="promise_in_bounds"), None)  # noqa: E731
        return jax.lax.scan(take, jnp.zeros((len(x), len(w))), spikes)[0]

    programs: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
        "cumulative sums": (spiking._distribution, (x,)),
        "random numbers": (over_chunks(random_numbers), (keys,)),
        "random numbers and search": (over_chunks(draw), (keys, table)),
        "gather": (gather, (spikes, w.T)),
        "gather, sum, update": (infer_from_spikes, (spikes, w)),
        "all": (lambda key, x, w: spiking_unchecked(key, x, w, num_spikes, 1.0, 0.5), (key, x, w)),
    }
    return {name: timed(partial(jax.jit(run), *args)) for name, (run, args) in programs.items()}


def _with_processor(samplers: Mapping[str, Sampler], rounds: int) -> tuple[dict[str, list[float]], ...]:
    """Samples in turns: seconds of the clock, and seconds of all cores, which other work disturbs less."""
    processor: dict[str, list[float]] = {name: [] for name in samplers}

    def sampler(name: str) -> Sampler:
        def sample() -> float:
            start = time.process_time()
            seconds = samplers[name]()
            processor[name].append(time.process_time() - start)
            return seconds

        return sample

    return in_turns({name: sampler(name) for name in samplers}, rounds), processor


def spikes_table(result: Mapping[str, Any]) -> str:
    """Time for one spike of one input, for one iteration of it, and for the parts of a spike."""
    rows, spikes = [], result["spikes"]
    for name, samples in result["samples"].items():
        cores = {what: 1e9 * best(s) / result["inputs"][name] for what, s in result["processor"][name].items()}
        ours, plain, pair = cores["spikes"] / spikes, cores["plain loop"] / spikes, cores["iterations"] / PAIRS
        clock = best(samples["plain loop"]) / best(samples["spikes"])
        times = (f"{ours:.0f}", f"{plain:.0f}", f"{plain / ours:.1f}", f"{clock:.1f}")
        rows.append((name, *times, f"{pair:.0f}", f"{pair / ours:.0f}"))
    head = ("layer", "a spike, ns", "in a plain loop, ns", "ratio", "ratio by the clock", "an iteration, ns")
    whole = table(rows, (*head, "spikes in its time"))
    rows = []
    for name, samples in result["parts"].items():
        rows.append((name, *(f"{1e9 * best(s) / result['tile'][name] / spikes:.1f}" for s in samples.values())))
    parts = table(rows, ("one tile, ns a spike", *next(iter(result["parts"].values()))))
    return f"{whole}\n\n{parts}"


def main() -> None:
    """Measures, prints the tables, writes spikes.json."""
    args = arguments(main.__doc__ or "")
    keep_freed_memory()
    spikes, rounds = (40, 2) if args.quick else (1000, 5)
    result: dict[str, Any] = {"spikes": spikes}
    result |= {kind: {} for kind in ("samples", "processor", "inputs", "parts", "tile", "ratios")}
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
        samples, result["processor"][name] = _with_processor(programs, rounds)
        result["samples"][name], result["inputs"][name] = samples, batch * positions
        result["ratios"][f"{name}: plain loop / spikes"] = best(samples["plain loop"]) / best(samples["spikes"])
        tile = x.reshape(-1, n)[: spiking.TILE // k]
        result["parts"][name] = _with_processor(parts_of_a_spike(key, tile, w, spikes), rounds)[1]
        result["tile"][name] = len(tile)
    print(spikes_table(result))
    write("spikes", result, args.out)


if __name__ == "__main__":
    run(main)
