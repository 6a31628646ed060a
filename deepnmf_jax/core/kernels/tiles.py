"""Sizes of the kernel's tiles, from the sizes of x (rows, n) and w (k, n).

Array sizes in a kernel are powers of two, and operands of products at least 16 wide: k is padded to one such size, n
to a multiple of the width of a chunk, rows to a multiple of a tile.
"""

from typing import NamedTuple

# Widths of a chunk of inputs, wide ones first.
WIDTHS = (32, 16)
SMALLEST = 16
# The registers hold three arrays of tile rows x units, twice that where steps are accelerated.
MOST_UNITS = 512
# Of the GPU that the sizes are thought for (H100); each should have a program.
MULTIPROCESSORS = 132
# Of the resident variant: entries of a tile of x (in registers: 20 kB) and of w (in shared memory, twice), and loops
# over chunks written out.
MOST_TILE, MOST_WEIGHTS, MOST_CHUNKS = 64 * 80, 64 * 96, 6
# Results of a product that a warp of 32 threads holds in registers: multiply-adds by its cores, or by tensor cores.
RESULTS = {"full": 512, "tf32": 2048, "bfloat16": 2048}


class Tiles(NamedTuple):
    """How the kernel divides its work."""

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
    """A program a tile of rows, for all iterations.

    The most rows (64, 32 or 16) of which there is a tile for each multiprocessor, so that w is read seldom.
    """
    units = max(SMALLEST, 1 << (k - 1).bit_length())
    width = min(WIDTHS, key=lambda width: -(-n // width) * width)  # the first of those that pad least
    chunks = -(-n // width)
    fitting = [size for size in (64, 32) if rows >= size * MULTIPROCESSORS and size * units <= 64 * 128]
    tile = fitting[0] if fitting else SMALLEST
    resident = chunks <= MOST_CHUNKS and tile * width * chunks <= MOST_TILE and units * width * chunks <= MOST_WEIGHTS
    wanted = tile * max(units, width) * (2 if guarded else 1) // RESULTS[products]
    warps = min(16, max(4, 1 << max(0, wanted - 1).bit_length()))
    return Tiles(tile, units, width, chunks, resident, warps)
