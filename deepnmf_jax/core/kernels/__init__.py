"""Inference as one fused GPU kernel: implementation = "pallas" of `deepnmf_jax.infer`.

XLA runs an iteration as several kernels that pass x, R and h through the device's memory, about 5 (n + k) numbers a
row. Here a program reads a tile of x, keeps h on the chip for all iterations and writes it once: n + k numbers a row
in all. The iterations themselves are those of `deepnmf_jax.core.iteration`, run on the tile: nothing of them is written
twice. On an H200 it is faster than XLA's loop in float32 with "tf32" or "bfloat16" products, and in float32 slower
(docs/reports/gpu.md): the plain path stays the default. The gradients are those of the plain path, too: a kernel for
the approximate one was nowhere faster.

A program (forward.py) is a tile of 64 rows, or of 32 or 16 where there would be fewer tiles than
multiprocessors. k is padded to a power of two, at least 16, and n to chunks of 32 or 16, whichever pads less. Two
variants, by the sizes alone (tiles.py):
    resident  n of few chunks, x at most 20 kB and w at most 24 kB a program: both are read once. x is in registers, w
              in shared memory or registers, as the compiler decides; the loop over chunks is written out.
    streamed  all else: x and w are read again at each iteration, chunk by chunk, from the L2 cache if they fit there.

The four blocks of CNMF+1x1 for 28 x 28 images, float32. Sizes are kB (1000 bytes) of a program; "read" is by all
programs in 20 iterations, all but the first time from the L2 cache if that holds x and w. A multiprocessor of compute
capability 9.0 has 227 kB of shared memory and 262 kB of registers.

    block  batch  rows    n x k      variant   tile x     w, padded  h, q  chunk of x, w  programs  read
    1      50     28,800  75 x 32    resident  64 x 80: 20.5   10.2  8.2   -              450       once: 18 MB
    1      512    294,912 75 x 32    resident  64 x 80: 20.5   10.2  8.2   -              4,608     once: 183 MB
    2      50     3,200   800 x 64   streamed  16 x 800: 51.2  205   4.1   2.0, 8.2       200       1.0 GB
    2      512    32,768  800 x 64   streamed  64 x 800: 205   205   16.4  8.2, 8.2       512       4.2 GB
    3      50     50      1024 x 96  streamed  16 x 1024: 65.5 524   8.2   2.0, 16.4      4         47 MB
    4      50     50      96 x 10    resident  16 x 96: 6.1    6.1   1.0   -              4         once: 68 kB

Products are Triton's `dot` with the precision said: IEEE float32 for "full" (Triton's own default is TF32), which runs
on the ordinary cores; TF32 or bfloat16 operands on the tensor cores, all with float32 sums.

Several devices: XLA cannot divide a kernel and would run it whole on each device. Such a program is refused when it is
lowered; inside `jax.shard_map(..., check_vma=False)`, with a part of the batch on each device, the kernel works.
`jax.vmap` (several seeds) adds a dimension to the grid.

The kernel is experimental. JAX calls its Triton backend deprecated from version 0.12 on; where it is gone, the settings
are refused in words. Mosaic, the backend that stays, cannot take this kernel over as it is: it has no `dot`, only the
tensor cores' instructions, one for each generation of GPUs, and none of them multiplies IEEE float32.

Not known: which tile, number of warps and pipeline stages are best; whether registers spill. Layers give the kernel
patches that XLA has written to memory: cutting them inside has not been tried.
"""
