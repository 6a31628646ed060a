"""The backward kernel: the approximate gradients of x and w in one pass over x, in float32.

R, x / R and grad_x of a chunk of inputs depend on this chunk of x and w alone, so that a program takes one chunk,
whose w and sums for grad_w it keeps, and walks through the rows. The sums of the programs of a chunk are added at the
end, always in the same order: the same arguments give the same bits.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl

from deepnmf_jax.core import gradients
from deepnmf_jax.core.kernels import blocks
from deepnmf_jax.core.kernels.tiles import MOST_BACKWARD_UNITS, BackwardTiles, backward_tiles
from deepnmf_jax.core.updates import denominator


def approximate_adjoint(x: Array, w: Array, h: Array, g: Array, *, interpret: bool = False) -> tuple[Array, Array]:
    """`deepnmf_jax.core.gradients.approximate_adjoint` as one kernel; for more than 128 units, by XLA.

    x (..., n), w (k, n), h and its cotangent g (..., k) -> grad_x (..., n), grad_w (k, n) summed over leading axes.
    """
    k, n = w.shape
    rows = x.size // n
    if not rows:
        return jnp.zeros_like(x), jnp.zeros_like(w)
    if k > MOST_BACKWARD_UNITS:
        with jax.default_matmul_precision("highest"):
            return gradients.approximate_adjoint(x, w, h, g)
    plan = backward_tiles(rows, n, k)
    tiles, run = plan.tiles, plan.steps * plan.tiles.rows
    activities = pl.BlockSpec((run, tiles.units), lambda p, c: (p, 0))
    inputs = pl.BlockSpec((run, tiles.width), lambda p, c: (p, c))
    grad_x, partial_sums = blocks.call(
        partial(_kernel, sizes=(rows, n, k), plan=plan),
        [blocks.flat(x), jnp.pad(w, ((0, tiles.units - k), (0, tiles.inputs - n))), blocks.flat(h), blocks.flat(g)],
        grid=(plan.programs, tiles.chunks),
        in_specs=[inputs, pl.BlockSpec((tiles.units, tiles.width), lambda p, c: (0, c)), activities, activities],
        out_specs=(inputs, pl.BlockSpec((tiles.units, tiles.width), lambda p, c: (p, c))),
        out_shape=(
            jax.ShapeDtypeStruct((rows, n), x.dtype),
            jax.ShapeDtypeStruct((plan.programs * tiles.units, tiles.inputs), x.dtype),
        ),
        warps=tiles.warps,
        stages=2,
        interpret=interpret,
    )
    grad_w = jnp.sum(partial_sums.reshape(plan.programs, tiles.units, tiles.inputs), axis=0)
    return grad_x.reshape(x.shape), grad_w[:k, :n]


def _kernel(
    x_ref: Any, w_ref: Any, h_ref: Any, g_ref: Any, grad_x_ref: Any, grad_w_ref: Any,
    *, sizes: tuple[int, int, int], plan: BackwardTiles,
) -> None:  # fmt: skip
    rows, n, k = sizes
    tile, units, width = plan.tiles.rows, plan.tiles.units, plan.tiles.width
    first_row = pl.program_id(0) * (plan.steps * tile)
    column = blocks.inside(pl.program_id(1) * width, width, n, 1, (tile, width))
    unit = blocks.inside(0, units, k, 1, (tile, units))
    w = w_ref[:, :]

    def step(i: Any, grad_w: Array) -> Array:
        part, start = pl.ds(i * tile, tile), first_row + i * tile
        here = blocks.both(_before(start, rows, tile, width, plan), column)
        known = blocks.both(_before(start, rows, tile, units, plan), unit)
        x = blocks.load(x_ref, part, slice(None), here)
        h, g = blocks.load(h_ref, part, slice(None), known), blocks.load(g_ref, part, slice(None), known)
        v = h * g
        r = denominator(x, blocks.product(h, w, (1, 0)))
        f = x / r
        grad_x = blocks.product(v, w, (1, 0)) / r
        blocks.store(grad_x_ref, part, slice(None), grad_x, here)
        return grad_w + blocks.product(v, f, (0, 0)) - blocks.product(h, f * grad_x, (0, 0))

    grad_w_ref[:, :] = lax.fori_loop(0, plan.steps, step, jnp.zeros((units, width), jnp.float32))


def _before(start: Any, rows: int, tile: int, columns: int, plan: BackwardTiles) -> Array | None:
    """Which rows of a tile exist; None: all do, in each program."""
    if rows == plan.programs * plan.steps * tile:
        return None
    return start + lax.broadcasted_iota(jnp.int32, (tile, columns), 0) < rows
