"""NMF inference by single spikes (spike-by-spike, Ernst, Rotermund and Pawelzik 2007; Rotermund and Pawelzik 2019).

The input x is a probability over its entries. Each spike is one entry s drawn from it, and moves the activities by

    h_i <- (h_i + e h_i w_is / R_s) / (1 + e),      R_s = sum_j h_j w_js,

whose mean over the spikes is the EM step of size e / (1 + e) of `deepnmf_jax.core.updates`. So h sums to 1 without a
division by its sum, and a spike needs one column of w where an EM step needs all of w twice.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from deepnmf_jax.compiled import keep_bounded
from deepnmf_jax.core import checks, gradients
from deepnmf_jax.core.dtypes import in_common, plain
from deepnmf_jax.core.iteration import uniform_start
from deepnmf_jax.core.updates import TINY

# Spikes drawn at once: a longer chunk needs more memory, a shorter one draws more slowly.
CHUNK = 32
# Activities that a loop over the spikes keeps in a core's cache, with as many products (128 kB of float32 each).
TILE = 1 << 15
GRADIENTS = ("approximate", "scaled", "implicit")
IMPLEMENTATIONS = ("xla",)


class SpikeSettings(NamedTuple):
    """The fields of the NMF layers that concern spikes; `infer_spiking` explains them."""

    num_spikes: int = 0  # 0: iterations
    spike_epsilon: float = 1.0
    spike_decay: float = 0.5


def check_spike_settings(settings: SpikeSettings, gradient: str) -> None:
    """ValueError for spikes outside what they allow; `gradient` is that of the layer."""
    checks.check_integer("num_spikes", settings.num_spikes, 0)
    checks.check_number("spike_epsilon", settings.spike_epsilon, 0, above=True)
    checks.check_number("spike_decay", settings.spike_decay, 0)
    if settings.num_spikes and gradient not in GRADIENTS:
        raise ValueError(
            f"gradient = {gradient!r} with num_spikes = {settings.num_spikes}; spikes are drawn, so that there is no "
            f"way back through them: use one of {', '.join(GRADIENTS)}"
        )


def infer_spiking(
    key: Array,
    x: Array,
    w: Array,
    *,
    num_spikes: int = 1000,
    epsilon: float = 1.0,
    decay: float = 0.5,
    gradient: str = "approximate",
    cg_steps: int = 4,
    implementation: str = "xla",
) -> Array:
    """Activities of an NMF layer after `num_spikes` spikes of its input, instead of the iterations of `infer`.

    Each row of x has its own spikes. Which they are depends on the key and the row's number alone: not on the other
    rows, nor on how many devices share them; and more spikes begin with the same ones.

    Args:
        key: of the spikes, from `jax.random.key`.
        x: inputs (..., n), non-negative, each row summing to 1 or all 0 (`normalize_patches` makes them so).
        w: weights (k, n), non-negative, each row summing to 1 or all 0 (`normalize_weights`).
        num_spikes: spikes of each row, at least 1.
        epsilon: step of the first spike, above 0.
        decay: spike t has the step epsilon t^-decay; at least 0. With 0.5 < decay <= 1, h goes to a minimum of the KL
            divergence, as `infer`'s does; with 0 (a constant step) it ends up fluctuating about one.
        gradient: "approximate", "scaled" or "implicit", as in `infer`, at the last h. "scaled" counts a spike as
            e / (1 + e) EM steps.
        cg_steps: conjugate-gradient steps of "implicit", at least 0.
        implementation: "xla"; there is no kernel for spikes.

    Returns:
        h (..., k), in the dtype of x, computed in float32 at least. Rows sum to 1, or are 0 where x is 0 (such a row
            has no spikes).

    Raises:
        ValueError: shapes, dtypes or settings that do not fit; and, for concrete arrays, values as in `infer`.
    """
    keep_bounded()
    x, w = jnp.asarray(x), jnp.asarray(w)
    num_spikes, epsilon, decay, cg_steps = map(plain, (num_spikes, epsilon, decay, cg_steps))
    checks.check_integer("num_spikes", num_spikes, 1)
    _check_steps(epsilon, decay)
    checks.check_choice("gradient", gradient, GRADIENTS)
    checks.check_choice("implementation", implementation, IMPLEMENTATIONS)
    checks.check_integer("cg_steps", cg_steps, 0)
    checks.check_shapes(x, w)
    checks.check_values(x, w)
    return spiking_unchecked(key, x, w, num_spikes, epsilon, decay, gradient, cg_steps)


@partial(jax.jit, static_argnames=("num_spikes", "gradient", "cg_steps"))
def spiking_unchecked(
    key: Array,
    x: Array,
    w: Array,
    num_spikes: int,
    epsilon: float,
    decay: float,
    gradient: str = "approximate",
    cg_steps: int = 4,
) -> Array:
    """`infer_spiking` for arguments known to be right, as the layers' are by construction."""
    wide_x, wide_w = in_common(jax.lax.stop_gradient(x), jax.lax.stop_gradient(w))
    steps = spike_steps(num_spikes, epsilon, decay, wide_x.dtype)
    h = _settle(key, wide_x, wide_w, steps)
    em_steps = jnp.sum(steps / (1 + steps))
    return gradients.at_result(h, x, w, gradient=gradient, cg_steps=cg_steps, steps=em_steps)


def spike_steps(num_spikes: int, epsilon: float = 1.0, decay: float = 0.5, dtype: jnp.dtype = jnp.float32) -> Array:
    """Steps e_t = epsilon t^-decay of the spikes t = 1 ... num_spikes. -> (num_spikes,)."""
    return (epsilon * jnp.arange(1, num_spikes + 1, dtype=dtype) ** -jnp.asarray(decay, dtype)).astype(dtype)


def spike_update(h: Array, w: Array, spike: Array, step: Array | float) -> Array:
    """The activities after one spike each, h_i <- (h_i + e h_i w_is / R_s) / (1 + e).

    A spike of an input that no active unit has (R_s not above 1e-20) changes nothing.

    Args:
        h: activities (..., k), float.
        w: weights (k, n).
        spike: number of the input that spikes, 0 ... n - 1 (...), integers. Others give NaN, -1 too.
        step: e, above 0.

    Returns:
        the new activities (..., k).
    """
    return _update(h, _column(w.T, spike), jnp.asarray(step, h.dtype))


def infer_from_spikes(
    spikes: Array, w: Array, *, epsilon: float = 1.0, decay: float = 0.5, start: Array | None = None
) -> Array:
    """Activities after spikes of one's own, for example those of a sensor.

    Args:
        spikes: numbers of the inputs that spike (num_spikes, ...), integers of 0 ... n - 1.
        w: weights (k, n), as in `infer_spiking`.
        epsilon: step of the first spike, as in `infer_spiking`.
        decay: of the steps, as in `infer_spiking`.
        start: activities (..., k) before the first spike; None is 1 / k.

    Returns:
        h (..., k), in the dtype of w, computed in float32 at least.

    Raises:
        ValueError: steps outside what they allow, spikes that are no integers, or shapes that do not fit.
    """
    spikes, w = jnp.asarray(spikes), jnp.asarray(w)
    _check_steps(epsilon, decay)
    if spikes.ndim < 1 or not jnp.issubdtype(spikes.dtype, jnp.integer):
        raise ValueError(
            f"spikes have shape {spikes.shape} and dtype {spikes.dtype}; they must be integers (num_spikes, ...), the "
            "numbers of the inputs"
        )
    if w.ndim != 2:
        raise ValueError(f"w has shape {w.shape}; it must be (k, n), one row a unit")
    shape = (*spikes.shape[1:], w.shape[0])
    if start is not None and jnp.shape(start) != shape:
        raise ValueError(f"start has shape {jnp.shape(start)}; with these spikes and weights it must be {shape}")
    (wide,) = in_common(w)
    h = jnp.full(shape, 1 / w.shape[0], wide.dtype) if start is None else jnp.asarray(start, wide.dtype)
    steps = spike_steps(spikes.shape[0], epsilon, decay, wide.dtype)
    columns = wide.T  # once: within the scan each gather would have to collect a column
    move = lambda h, at: (_update(h, _column(columns, at[0]), at[1]), None)  # noqa: E731 - the body of a scan
    return jax.lax.scan(move, h, (spikes, steps))[0].astype(w.dtype)


def draw_spikes(key: Array, x: Array, num_spikes: int) -> Array:
    """The spikes that `infer_spiking` draws for x (..., n), as `infer_from_spikes` takes them.

    Returns:
        numbers of inputs (num_spikes, ...), int32. A row of zeros, which has no spikes, has 0s here.
    """
    x = jnp.asarray(x)
    (x,) = in_common(x)
    rows = row_keys(key, x.shape[:-1])
    table = _distribution(x)
    chunks = jax.lax.map(lambda c: _draw(rows, c, table, x.shape[-1]), jnp.arange(-(-num_spikes // CHUNK)))
    return chunks.reshape(chunks.shape[0] * CHUNK, *x.shape[:-1])[:num_spikes]


def replace_by_spikes(key: Array, images: Array, num_spikes: int) -> Array:
    """Images made of spikes: as many as given, drawn from the entries of each, counted, and scaled to the image's sum.

    Args:
        key: of the spikes, from `jax.random.key`.
        images: (batch, ...), non-negative.
        num_spikes: of each image, at least 1.

    Returns:
        images of the same shape, dtype and sums.
    """
    flat = images.reshape(images.shape[0], math.prod(images.shape[1:]))
    (wide,) = in_common(flat)
    spikes = draw_spikes(key, wide, num_spikes).T
    counts = jax.vmap(lambda own: jnp.zeros(flat.shape[1], wide.dtype).at[own].add(1))(spikes)
    total = jnp.sum(wide, axis=1, keepdims=True)
    return (counts * (total / num_spikes)).reshape(images.shape).astype(images.dtype)


def row_keys(key: Array, shape: tuple[int, ...]) -> Array:
    """A key for each row: the key folded with the row's number, counted along the last axis first. -> shape."""
    numbers = jnp.arange(math.prod(shape), dtype=jnp.uint32)
    return jax.vmap(partial(jax.random.fold_in, _typed(key)))(numbers).reshape(shape)


def _typed(key: Array) -> Array:
    """The key as `jax.random.key` makes it; those of `jax.random.PRNGKey` are plain arrays."""
    return key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key)


def _check_steps(epsilon: float, decay: float) -> None:
    checks.check_number("epsilon", epsilon, 0, above=True)
    checks.check_number("decay", decay, 0)


def _column(columns: Array, spike: Array) -> Array:
    """Rows of w^T (n, k), those of the spikes (...); NaN for numbers outside 0 ... n - 1. -> (..., k)."""
    if spike.dtype.itemsize < 4:  # it need not hold n
        spike = spike.astype(jnp.int32)
    # JAX counts negative numbers from the end, and streams of events are filled up with -1.
    spike = jnp.where(spike < 0, columns.shape[0], spike)
    return columns.at[spike].get(mode="fill", fill_value=jnp.nan)


def _update(h: Array, weights: Array, step: Array) -> Array:
    """`spike_update` given the column of w of each row's spike. h, weights (..., k), step ()."""
    v = h * weights
    # Not as a product, which is a little faster: its rounding would depend on how many rows there are.
    r = jnp.sum(v, axis=-1, keepdims=True)
    gain = step / (1 + step)
    # NaN, of a spike that is none, is let through.
    moved = h * (1 / (1 + step)) + (gain / jnp.where(r <= TINY, 1, r)) * v
    return jnp.where(r <= TINY, h, moved)


def _settle(key: Array, x: Array, w: Array, steps: Array) -> Array:
    """h after the spikes with these steps. x (..., n) and w (k, n) of one dtype -> (..., k)."""
    shape, k = x.shape[:-1], w.shape[0]
    keys = row_keys(key, shape)
    # Sides that jax.export leaves open cannot be cut.
    if len(shape) < 2 or not all(isinstance(size, int) for size in shape):
        return _settle_tile((keys, x), w, steps)
    # In tiles whose h stays in the cache. The first axis is left whole: a batch may be spread over devices.
    rows = math.prod(shape[1:])
    tiles = min(rows, -(-shape[0] * rows * k // TILE)) or 1
    size = -(-rows // tiles)
    tiles = -(-rows // size)
    x = jnp.pad(x.reshape(shape[0], rows, x.shape[-1]), [(0, 0), (0, tiles * size - rows), (0, 0)])
    keys = keys.reshape(shape[0], rows)
    # The rows that fill the last tile are 0 and draw nothing; any key does for them.
    keys = jnp.concatenate([keys, keys[:, : tiles * size - rows]], axis=1)
    split = lambda a: jnp.moveaxis(a.reshape(shape[0], tiles, size, *a.shape[2:]), 1, 0)  # noqa: E731
    h = jax.lax.map(partial(_settle_tile, w=w, steps=steps), (split(keys), split(x)))
    return jnp.moveaxis(h, 0, 1).reshape(shape[0], tiles * size, k)[:, :rows].reshape(*shape, k)


def _settle_tile(rows: tuple[Array, Array], w: Array, steps: Array) -> Array:
    """`_settle` of rows with the keys (...) and inputs (..., n) given."""
    keys, x = rows
    table, columns, n = _distribution(x), w.T, x.shape[-1]

    def spike(h: Array, at: tuple[Array, Array]) -> tuple[Array, None]:
        s, step = at
        return _update(h, columns.at[s].get(mode="promise_in_bounds"), step), None

    def chunk(h: Array, at: tuple[Array, Array]) -> tuple[Array, None]:
        number, steps = at
        # Not unrolled: XLA would compute each spike's products anew in the next ones', which costs a third more.
        return jax.lax.scan(spike, h, (_draw(keys, number, table, n), steps))[0], None

    h = uniform_start(x, w.shape[0])
    whole, rest = divmod(len(steps), CHUNK)
    if whole:
        h = jax.lax.scan(chunk, h, (jnp.arange(whole), steps[: whole * CHUNK].reshape(whole, CHUNK)))[0]
    if rest:
        spikes = _draw(keys, jnp.asarray(whole), table, n)[:rest]
        h = jax.lax.scan(spike, h, (spikes, steps[whole * CHUNK :]))[0]
    return h


def _distribution(x: Array) -> tuple[Array, Array]:
    """The cumulative sums of x (..., n) in blocks: (..., blocks, width), and those at the blocks' ends (..., blocks).

    The sums are taken one after another, so that they never fall and an entry of 0 leaves them as they are: it cannot
    be drawn, whatever the rounding.
    """
    n = x.shape[-1]
    width = 1 << max(2, math.ceil(math.log2(math.sqrt(n))))
    blocks = -(-n // width)
    x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, blocks * width - n)]).reshape(*x.shape[:-1], blocks, width)
    within = _running_sum(x)
    ends = _running_sum(within[..., -1])
    before = jnp.concatenate([jnp.zeros_like(ends[..., :1]), ends[..., :-1]], axis=-1)
    return before[..., None] + within, ends


def _running_sum(a: Array) -> Array:
    def add(total: Array, entry: Array) -> tuple[Array, Array]:
        return total + entry, total + entry

    return jnp.moveaxis(jax.lax.scan(add, jnp.zeros_like(a[..., 0]), jnp.moveaxis(a, -1, 0))[1], 0, -1)


def _draw(keys: Array, chunk: Array, table: tuple[Array, Array], n: int) -> Array:
    """Chunk number `chunk` of the spikes of rows with the keys (...), by their inverse cumulative distribution.

    table: of `_distribution`. -> numbers of inputs (CHUNK, ...).
    """
    sums, ends = table
    lead, (blocks, width) = keys.shape, sums.shape[-2:]

    def row(key: Array, sums: Array, ends: Array) -> Array:
        u = jax.random.uniform(jax.random.fold_in(key, chunk), (CHUNK,), sums.dtype) * ends[-1]
        # Two short counts in place of a search: of the blocks that end below u, then of the entries of the next one.
        block = jnp.sum(ends[None, :-1] <= u[:, None], axis=-1, dtype=jnp.int32)
        entry = jnp.sum(sums[block] <= u[:, None], axis=-1, dtype=jnp.int32)
        # Of rounding u may be the last sum itself. A row of zeros, whose sums are all 0, draws nothing.
        return jnp.where(ends[-1] > 0, jnp.minimum(block * width + entry, n - 1), 0)

    flat = jax.vmap(row)(keys.reshape(-1), sums.reshape(-1, blocks, width), ends.reshape(-1, blocks))
    return jnp.moveaxis(flat.reshape(*lead, CHUNK), -1, 0)
