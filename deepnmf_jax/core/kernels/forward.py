"""The forward kernel: a program reads a tile of x once, keeps h on the chip for all iterations and writes it once."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl

from deepnmf_jax.core.iteration import Problem, Settings, first_weights, solve
from deepnmf_jax.core.kernels import blocks
from deepnmf_jax.core.kernels.tiles import Tiles, forward_tiles
from deepnmf_jax.core.updates import ratio


def iterate(x: Array, w: Array, settings: Settings) -> Array:
    """`deepnmf_jax.core.iteration.iterate` as one kernel. x (..., n), w (k, n), float32 -> h (..., k)."""
    k, n = w.shape
    rows = x.size // n
    if not isinstance(rows, int):
        raise ValueError(
            f"implementation = {settings.implementation!r} with x of shape {x.shape}; the kernel's tiles depend on the "
            "size of the batch, which is open here: export it with implementation = 'xla', or with one size"
        )
    if not rows:
        return jnp.zeros((*x.shape[:-1], k), x.dtype)
    guarded = settings.acceleration != "none" or settings.tolerance > 0
    tiles = forward_tiles(rows, n, k, settings.products, guarded=guarded)
    operand = jnp.bfloat16 if settings.products == "bfloat16" else x.dtype
    weights = [jnp.pad(a.astype(operand), ((0, tiles.units - k), (0, tiles.inputs - n))) for a in (w, first_weights(w))]
    whole = pl.BlockSpec((tiles.units, tiles.inputs), lambda i: (0, 0))
    interpret = settings.implementation == "interpret"
    flat = jax.lax.reshape(x, (rows, n))
    h = pl.pallas_call(
        partial(_kernel, sizes=(rows, n, k), tiles=tiles, settings=settings),
        grid=(pl.cdiv(rows, tiles.rows),),
        in_specs=[pl.BlockSpec((tiles.rows, tiles.inputs), lambda i: (i, 0)), whole, whole],
        out_specs=pl.BlockSpec((tiles.rows, tiles.units), lambda i: (i, 0)),
        out_shape=jax.ShapeDtypeStruct((rows, k), x.dtype),
        compiler_params=blocks.compiler_parameters(tiles.warps, stages=1 if tiles.resident else 2),
        interpret=interpret,
    )(flat if interpret else blocks.one_device(flat), *weights)
    return h.reshape(*x.shape[:-1], k)


def _kernel(
    x_ref: Any, w_ref: Any, first_ref: Any, h_ref: Any, *, sizes: tuple[int, int, int], tiles: Tiles, settings: Settings
) -> None:
    rows, n, k = sizes
    tile, units, width = tiles.rows, tiles.units, tiles.width
    product = partial(blocks.product, products=settings.products, interpret=settings.implementation == "interpret")
    row = blocks.inside(pl.program_id(0) * tile, tile, rows, 0, (tile, width))

    def inputs(c: Any) -> Array:
        column = blocks.inside(c * width, width, n, 1, (tile, width))
        return blocks.load(x_ref, pl.ds(c * width, width), blocks.both(row, column))

    def weights(c: Any) -> Array:
        return w_ref[:, pl.ds(c * width, width)]

    kept = [(inputs(c), weights(c)) for c in range(tiles.chunks)] if tiles.resident else []

    def over_chunks(part: Any, columns: int) -> Array:
        """The sum over all chunks of part(chunk, x, w), (rows, columns)."""
        total = jnp.zeros((tile, columns), jnp.float32)
        if tiles.resident:
            for c, (x, w) in enumerate(kept):
                total = total + part(c, x, w)
            return total
        return lax.fori_loop(0, tiles.chunks, lambda c, t: t + part(c, inputs(c), weights(c)), total)

    def first() -> Array:
        return over_chunks(lambda c, x, _: product(x, first_ref[:, pl.ds(c * width, width)], (1, 1)), units)

    def factor(h: Array) -> Array:
        return over_chunks(lambda c, x, w: product(ratio(x, product(h, w, (1, 0))), w, (1, 1)), units)

    def explained(_: Any, x: Array, w: Array) -> Array:
        present = jnp.max(w.astype(jnp.float32), axis=0, keepdims=True) > 0
        return jnp.sum(jnp.where(present, x, 0), axis=1, keepdims=True)

    total = over_chunks(explained, 1)
    unit = lax.broadcasted_iota(jnp.int32, (tile, units), 1) < k
    # A row that w explains nothing of stays 0 from its first step on.
    start = jnp.where(unit & (total > 0), jnp.float32(1 / k), jnp.float32(0))
    h = solve(Problem(k, start, total, first, factor), settings)
    present = blocks.both(
        blocks.inside(pl.program_id(0) * tile, tile, rows, 0, (tile, units)),
        blocks.inside(0, units, k, 1, (tile, units)),
    )
    blocks.store(h_ref, h, present)
