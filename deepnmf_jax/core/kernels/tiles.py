"""Sizes of the kernels' tiles, from the sizes of x (rows, n) and w (k, n).

Array sizes in a kernel are powers of two, and operands of products at least 16 wide: k is padded to one such size, n
to a multiple of the width of a chunk, rows to a multiple of a tile.
"""

from typing import NamedTuple

# Widths of a chunk of inputs, wide ones first.
WIDTHS = (32, 16)
SMALLEST = 16
# Of the forward kernel, whose registers hold three arrays of tile rows x units, twice that where steps are accelerated;
# and of the backward kernel, whose sums are units x width.
MOST_UNITS, MOST_BACKWARD_UNITS = 512, 128
# Of the GPU that the sizes are thought for (H100); each should have a program.
MULTIPROCESSORS = 132
# Of the resident variant: entries of a tile of x (in registers: 20 kB) and of w (in shared memory, twice), and loops
# over chunks written out.
MOST_TILE, MOST_WEIGHTS, MOST_CHUNKS = 64 * 80, 64 * 96, 6
# Results of a product that a warp of 32 threads holds in registers: multiply-adds by its cores, or by tensor cores.
RESULTS = {"full": 512, "tf32": 2048, "bfloat16": 2048}
# Programs of the backward kernel; each has partial sums for the gradient of one chunk of w.
MOST_PROGRAMS = 4 * MULTIPROCESSORS


class Tiles(NamedTuple):
    """How a kernel divides its work."""

    rows: int  # of x in a tile
    units: int  # k padded
    width: int  # inputs of a chunk
    chunks: int  # number of chunks
    resident: bool  # whether the tile of x and w stay on the chip, or are read again at each iteration, in chunks
    warps: int  # of 32 threads, of a program

    @property
    def inputs(self) -> int:
        """n padded to whole chunks."""
        return self.width * self.chunks


def forward_tiles(rows: int, n: int, k: int, products: str = "full", *, guarded: bool = False) -> Tiles:
    """Tiles of the forward kernel: a program a tile of rows, for all iterations.

    The most rows (64, 32 or 16) of which there is a tile for each multiprocessor, so that w is read seldom.
    """
    units, width, chunks = _padded(n, k)
    fitting = [size for size in (64, 32) if rows >= size * MULTIPROCESSORS and size * units <= 64 * 128]
    tile = fitting[0] if fitting else SMALLEST
    resident = chunks <= MOST_CHUNKS and tile * width * chunks <= MOST_TILE and units * width * chunks <= MOST_WEIGHTS
    warps = _warps(tile * max(units, width) * (2 if guarded else 1), products)
    return Tiles(tile, units, width, chunks, resident, warps)


class BackwardTiles(NamedTuple):
    """A program is one of `programs` runs of tiles of rows, `steps` long, and one chunk."""

    tiles: Tiles
    programs: int
    steps: int


def backward_tiles(rows: int, n: int, k: int) -> BackwardTiles:
    """Tiles of the backward kernel, whose memory for partial sums does not grow with the rows. k is at most 128."""
    units, width, chunks = _padded(n, k)
    tile = 32 if rows > SMALLEST else SMALLEST
    count = -(-rows // tile)
    steps = -(-count // max(1, MOST_PROGRAMS // chunks))
    tiles = Tiles(tile, units, width, chunks, False, _warps(2 * max(units, tile) * width, "full"))
    return BackwardTiles(tiles, -(-count // steps), steps)


def _padded(n: int, k: int) -> tuple[int, int, int]:
    width = min(WIDTHS, key=lambda width: -(-n // width) * width)  # the first of those that pad least
    return max(SMALLEST, 1 << (k - 1).bit_length()), width, -(-n // width)


def _warps(results: int, products: str) -> int:
    wanted = results // RESULTS[products]
    return min(16, max(4, 1 << max(0, wanted - 1).bit_length()))
