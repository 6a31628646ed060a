"""The entries of a sparse matrix in blocks of rows that all have one shape, so that a compiled loop can go over them.

The entries of a row are cut into segments of equal length, and as many whole rows as have room make a block. Whatever
is computed of a row is computed in its block: beside the entries and the result no more memory is needed than one block
takes. Entries that fill up a segment are 0.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental.sparse import BCOO

from deepnmf_jax.decomposition.io.host_matrix import HostMatrix

# Lengths that a segment may have, and what a segment and a row cost beside the entries, in entries.
LENGTHS, OVERHEAD, OF_ROW = (4, 8, 16, 32, 64, 128), 6, 16
# Room for so many times the rows that fill the segments of a block in the mean; the cheapest is taken.
MORE_ROWS = (1.1, 1.5, 3.0)
# Numbers of a block: gathered from the other factor, which shall stay near the processor; of small matrices or of rows
# that are written out, which shall have room in the memory.
GATHERED, FORMED = 2**19, 2**22
# Numbers of the other factor that a panel of entries needs at most, and the mean entries of a column in it at least.
PANEL, SHORTEST = 2**17, 16
# From this share of entries on, rows that are written out are faster.
DENSE = 1 / 8


@partial(
    jax.tree_util.register_dataclass, data_fields=("place", "rows", "segments", "columns", "values"), meta_fields=()
)
@dataclass(frozen=True)
class Blocks:
    """c blocks of r rows and s segments of l entries, or one of them, without the first axis.

    place (n,): where each row of the matrix is among the c r rows of the blocks; where the matrix is cut into panels of
    columns, so many times n, the rows of one panel after the other. rows (c, r): the row of the matrix.
    segments (c, s): the row of the block that a segment is of, ascending. columns, values (c, s, l): the entries.
    """

    place: Array
    rows: Array
    segments: Array
    columns: Array
    values: Array

    def sums(self, of_segments: Array) -> Array:
        """Of one block, sums over the segments (s, ...) of each row: (r, ...)."""
        return jax.ops.segment_sum(of_segments, self.segments, len(self.rows), indices_are_sorted=True)

    def written_out(self, width: int) -> Array:
        """Of one block, its rows as a dense matrix (r, width)."""
        zeros = jnp.zeros((len(self.rows), width), self.values.dtype)
        return zeros.at[self.segments[:, None], self.columns].add(self.values)

    def gathered(self, columns: Array) -> Array:
        """Of one block, what `columns` (width, ...) has for the column of each entry: (s, l, ...)."""
        return columns.at[self.columns].get(mode="promise_in_bounds")

    def spread(self, of_rows: Array) -> Array:
        """Of one block, what is known of its rows (r, ...) for each segment: (s, ...)."""
        return of_rows.at[self.segments].get(mode="promise_in_bounds")


@partial(jax.tree_util.register_dataclass, data_fields=("by_rows", "by_columns"), meta_fields=("shape", "dense"))
@dataclass(frozen=True)
class Nonzeros:
    """A sparse matrix (n, p) in blocks of its rows, or of its columns, or both, as they are needed.

    dense: whether the blocks are written out, one at a time, in place of computing with the entries alone.
    """

    by_rows: Blocks | None
    by_columns: Blocks | None
    shape: tuple[int, int]
    dense: bool

    @property
    def T(self) -> "Nonzeros":
        """The transposed matrix."""
        return Nonzeros(self.by_columns, self.by_rows, self.shape[::-1], self.dense)

    @property
    def data(self) -> Array:
        """The entries, and zeros."""
        return cast(Blocks, self.by_rows or self.by_columns).values

    @property
    def dtype(self) -> Any:
        """That of the entries."""
        return self.data.dtype

    def over_rows(self, function: Callable[..., Any], *of_rows: Array) -> Any:
        """function(block, what is known of its rows (r, ...) ...) -> arrays (r, ...), for all rows: arrays (n, ...)."""
        assert len(cast(Blocks, self.by_rows).place) == self.shape[0], "rows in panels have sums alone"
        return self.sums_over_rows(function, *of_rows)

    def sums_over_rows(self, function: Callable[..., Any], *of_rows: Array) -> Any:
        """`over_rows` for a function that is a sum over the entries of a row, which may lie in several panels."""

        def one(block: Blocks) -> Any:
            return function(block, *(x.at[block.rows].get(mode="promise_in_bounds") for x in of_rows))

        blocks = cast(Blocks, self.by_rows)
        place, rest = blocks.place, (blocks.rows, blocks.segments, blocks.columns, blocks.values)
        parts = lax.map(lambda block: one(Blocks(place, *block)), rest)

        def of_all(x: Array) -> Array:
            x = x.reshape(-1, *x.shape[2:]).at[place].get(mode="promise_in_bounds")
            n = self.shape[0]
            return x if len(place) == n else jnp.sum(x.reshape(-1, n, *x.shape[1:]), axis=0)

        return jax.tree.map(of_all, parts)

    def times(self, b: Array) -> Array:
        """The product with b (p, k), (n, k)."""

        def one(block: Blocks) -> Array:
            return block.sums(jnp.einsum("sl,slk->sk", block.values, block.gathered(b), precision="highest"))

        return cast(Array, self.sums_over_rows(one))

    def row_sums(self, power: int = 1) -> Array:
        """Sum of the entries of each row to that power, (n,)."""
        return cast(Array, self.sums_over_rows(lambda block: block.sums(jnp.sum(block.values**power, axis=1))))


Sparse = BCOO | Nonzeros | HostMatrix
Matrix = Array | Sparse


def on_scipy(a: BCOO) -> Any:
    """A sparse matrix, whose indices have values, as SciPy's CSR array; without places outside, with which JAX pads."""
    # Loaded by who has a sparse matrix.
    from scipy.sparse import csr_array

    (n, p), indices, values = a.shape, np.asarray(a.indices), np.asarray(a.data)
    inside = (indices[:, 0] < n) & (indices[:, 1] < p)
    if not inside.all():
        indices, values = indices[inside], values[inside]
    return csr_array((values, (indices[:, 0], indices[:, 1])), shape=(n, p))


def nonzeros_of(a: BCOO | HostMatrix, k: int, beta: float, both: bool = True) -> Nonzeros:
    """The blocks of A (n, p), whose indices have values, for factors of k rows.

    Args:
        a: each place once; places outside of the matrix, with which JAX pads, are left out.
        k: the size of a block depends on it.
        beta: of the divergence; for 1 and 2 the entries are enough.
        both: whether the blocks of the columns are needed too.
    """
    (n, p), matrix = a.shape, a.entries.tocsr() if isinstance(a, HostMatrix) else on_scipy(a)
    dense = beta not in (1, 2) or matrix.nnz > DENSE * n * p
    by_rows = _blocks_of(matrix.indptr, matrix.indices, matrix.data, n, p, k, dense)
    by_columns = None
    if both:
        by_columns = _blocks_of(*_columns_of(matrix, 1 if dense else _panels(matrix, k)), p, n, k, dense)
    found = Nonzeros(by_rows, by_columns, (n, p), dense)
    data: Any = a.data
    alone = getattr(data, "committed", False) and len(data.sharding.device_set) == 1
    return jax.device_put(found, data.sharding if alone else None)


def _panels(matrix: Any, k: int) -> int:
    """Into how many panels of rows a matrix (n, p) is cut, so that the factor of a panel stays near the processor and
    columns are not cut too short."""
    n, p = matrix.shape
    return max(1, min(-(-n * k // PANEL), matrix.nnz // (SHORTEST * p)))


def _columns_of(matrix: Any, panels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each panel of rows, one after the other, all columns: where each begins, rows, and values of the entries."""
    n = matrix.shape[0]
    height = -(-n // panels)
    firsts = range(0, n, height)
    parts = [matrix[first : first + height].tocsc() for first in firsts]
    counts = np.concatenate([np.diff(part.indptr) for part in parts])
    rows = np.concatenate([part.indices + first for part, first in zip(parts, firsts, strict=True)])
    starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    return starts, rows, np.concatenate([part.data for part in parts])


def _blocks_of(
    starts: np.ndarray, columns: np.ndarray, values: np.ndarray, period: int, width: int, k: int, dense: bool
) -> Blocks:
    """Blocks of rows whose entries begin at `starts` (n + 1,) of `columns` and `values`; on the host.

    Each panel has `period` rows, and their number begins anew. There are `width` columns.
    """
    counts = np.diff(starts)
    n = len(counts)
    length = min(LENGTHS, key=lambda length: int(np.sum(-(-counts // length))) * (length + OVERHEAD))
    needed = -(-counts // length)
    before = np.concatenate([[0], np.cumsum(needed, dtype=np.int64)])

    def cut(limits: tuple[int, int]) -> list[int]:
        """The first rows of the blocks, and n."""
        firsts, (most_rows, most_segments) = [0], limits
        while firsts[-1] < n:
            fits = int(np.searchsorted(before, before[firsts[-1]] + most_segments, "right")) - 1
            firsts.append(min(fits, firsts[-1] + most_rows, n))
        return firsts

    def cost(limits: tuple[int, int]) -> int:
        most_rows, most_segments = limits
        return (len(cut(limits)) - 1) * (most_segments * (length + OVERHEAD) + most_rows * OF_ROW)

    total, longest = int(before[-1]), int(needed.max(initial=1))
    rooms = [_room(n, total, longest, length, width, k, dense, more) for more in MORE_ROWS]
    most_rows, most_segments = best = min(rooms, key=cost)
    firsts = cut(best)
    count = len(firsts) - 1 if len(firsts) > 64 else _rounded(len(firsts) - 1)
    place = np.empty(n, np.int32)
    rows = np.zeros((count, most_rows), np.int32)
    segments = np.full((count, most_segments), most_rows - 1, np.int32)
    indices = np.zeros((count, most_segments * length), np.int32)
    entries = np.zeros((count, most_segments * length), values.dtype)
    for i, (first, end) in enumerate(itertools.pairwise(firsts)):
        here, of_row = slice(starts[first], starts[end]), needed[first:end]
        place[first:end] = np.arange(i * most_rows, i * most_rows + end - first)
        rows[i, : end - first] = np.arange(first, end) % period
        segments[i, : of_row.sum()] = np.repeat(np.arange(end - first), of_row)
        # The entries of a row lie in a row; between two rows is the room that the last segment leaves.
        shift = (before[first:end] - before[first]) * length - (starts[first:end] - starts[first])
        at = np.repeat(shift, counts[first:end]) + np.arange(starts[end] - starts[first])
        indices[i, at], entries[i, at] = columns[here], values[here]
    shape = (count, most_segments, length)
    return Blocks(place, rows, segments, indices.reshape(shape), entries.reshape(shape))  # type: ignore[arg-type]


def _room(
    n: int, total: int, longest: int, length: int, width: int, k: int, dense: bool, more: float
) -> tuple[int, int]:
    """Rows and segments of a block, for n rows with so many segments in all and in the longest row.

    Rows of few entries need room for `more` rows than fill the segments in the mean.
    Sizes are rounded up, so that the batches of a stream share compiled programs.
    """
    segments = min(max(1, GATHERED // (length * k)), max(1, FORMED // k**2), max(total, 1))
    each = max(total, 1) / n
    rows = min(max(1, FORMED // (width if dense else k**2)), int(more * segments / each) + 1, n)
    # Where few rows have room, fewer segments are enough.
    segments = max(min(segments, int(1.25 * rows * each) + 1), longest)
    return min(_rounded(rows), n), _rounded(segments)


def _rounded(count: int) -> int:
    """Up to the next number of four binary digits and zeros."""
    step = 2 ** max(count.bit_length() - 4, 0)
    return -(-count // step) * step
