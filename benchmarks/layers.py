"""The NMF layers of CNMF+1x1 that are timed: their sizes, the operations and bytes of their inference, arrays for them.

An iteration is two products, R = h w and q = (x / R) w^T, and two element-wise steps between. Unfused, each of these
reads and writes the device's memory; fused, x is read once and h written once, whatever the number of iterations. The
weights, small and shared by all rows, are left out. Numbers are float32.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deepnmf_jax.core.normalization import normalize_patches, normalize_weights

FLOAT = 4
NUM_ITERS = 20


def products_of_inference(num_iters: int) -> int:
    """Two an iteration, but one in the first, from the uniform start."""
    return 2 * num_iters - 1


class Layer(NamedTuple):
    """An NMF layer on one image: `positions` rows of `n` inputs, `k` units."""

    name: str
    positions: int
    n: int
    k: int

    def operations(self, direction: str, num_iters: int = NUM_ITERS) -> int:
        """Floating-point operations of the products, an image."""
        product = 2 * self.positions * self.n * self.k
        # Backward: R, v w and two for the weights.
        return product * (products_of_inference(num_iters) if direction == "forward" else 4)

    def unfused_bytes(self, direction: str, num_iters: int = NUM_ITERS) -> int:
        """Bytes between the device's memory and its processors if every operation is a kernel of its own, an image."""
        n, k = self.n, self.k
        if direction == "forward":
            # Each iteration reads h, x, R, f, h, q and writes R, f, q, h; R is read and written by rows of n.
            floats = (num_iters - 1) * 5 * (n + k) + n + 5 * k
        else:
            floats = 13 * n + 7 * k
        return FLOAT * self.positions * floats

    def fused_bytes(self, direction: str) -> int:
        """The same if one kernel does all: x and h forward; x, h and two cotangents backward."""
        return FLOAT * self.positions * (self.n + self.k) * (1 if direction == "forward" else 2)


def layers_of(side: int, width: float = 1) -> Iterator[Layer]:
    """The four layers for images of this side: 5 x 5, pooling, 5 x 5, pooling, the whole map, 1 x 1."""
    features = [3, *(round(f * width) for f in (32, 64, 96)), 10]
    for i, kernel in enumerate((5, 5, side, 1)):
        kernel = min(kernel, side)
        yield Layer(f"block {i + 1}", (side - kernel + 1) ** 2, kernel**2 * features[i], features[i + 1])
        side = (side - kernel + 1) // (2 if i < 2 else 1)


LAYERS = tuple(layers_of(28))


def problem(layer: Layer, batch: int, rows: int | None = None) -> tuple[Any, Any, Any]:
    """x (rows, n) and w (k, n), rows summing to 1, and a cotangent (rows, k)."""
    rng = np.random.default_rng(0)
    rows = rows or batch * layer.positions
    x = normalize_patches(jnp.asarray(rng.random((rows, layer.n), np.float32)))
    w = normalize_weights(jnp.asarray(rng.random((layer.k, layer.n), np.float32)))
    return x, w, jnp.asarray(rng.standard_normal((rows, layer.k), np.float32))


def backward_of(forward: Callable[[Any, Any], Any], x: Any, w: Any, g: Any) -> Callable[[], Any]:
    """The gradients of x and w for the cotangent g of a forward, which is done before: a program of its own."""
    _, pull = jax.jit(partial(jax.vjp, forward))(x, w)
    return partial(jax.jit(lambda pull, g: pull(g)), pull, g)
