"""Operations and bytes of the inference, counted: what a GPU's two limits allow each layer, fused and unfused.

An iteration is two products, R = h w and q = (x / R) w^T, and two element-wise steps between. Unfused, each of these
reads and writes device memory; fused, x is read once and h written once, whatever the number of iterations. The
weights, small and shared by all rows, are left out. Numbers are float32.
"""

from typing import NamedTuple

from deepnmf_jax.experiments.tables import table

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


# CNMF+1x1 on windows of 28 x 28: 5 x 5 of 3 channels, pooling, 5 x 5 of 32, pooling, the whole 4 x 4 of 64, 1 x 1.
LAYERS = (
    Layer("block 1", 24 * 24, 75, 32),
    Layer("block 2", 8 * 8, 800, 64),
    Layer("block 3", 1, 1024, 96),
    Layer("block 4", 1, 96, 10),
)


class Ceilings(NamedTuple):
    """What a device does at most: bytes a second of its memory, operations a second of products by precision."""

    memory: float
    full: float
    tf32: float


# NVIDIA's data sheet of the H100 SXM, without sparsity: an assumption to plan with.
DATA_SHEET = Ceilings(memory=3.35e12, full=67e12, tf32=494e12)


def limit(layer: Layer, direction: str, batch: int, ceilings: Ceilings, products: str = "full") -> float:
    """Seconds that the lower of the two limits allows a fused kernel."""
    rate = ceilings.full if products == "full" else ceilings.tf32
    operations, size = layer.operations(direction), layer.fused_bytes(direction)
    return batch * max(operations / rate, size / ceilings.memory)


def counts() -> str:
    """Operations and bytes per image and layer."""
    rows = []
    for direction in ("forward", "backward"):
        for layer in LAYERS:
            operations = layer.operations(direction)
            unfused, fused = layer.unfused_bytes(direction), layer.fused_bytes(direction)
            rows.append(
                (
                    f"{layer.name}, {direction}", f"{layer.positions} x {layer.n} -> {layer.k}",
                    f"{operations / 1e6:,.2f}", f"{unfused / 1e3:,.1f}", f"{fused / 1e3:,.1f}",
                    f"{operations / unfused:.1f}", f"{operations / fused:,.0f}",
                )
            )  # fmt: skip
    head = ("layer", "positions x n -> k", "MFLOP", "kB unfused", "kB fused", "FLOP a byte, unfused", "fused")
    return table(rows, head)


def predictions(batch: int = 512, ceilings: Ceilings = DATA_SHEET) -> str:
    """What the limits of an assumed device allow, if memory and products overlap."""
    rows = []
    for direction in ("forward", "backward"):
        for layer in LAYERS:
            unfused = batch * layer.unfused_bytes(direction) / ceilings.memory
            products = [batch * layer.operations(direction) / rate for rate in (ceilings.full, ceilings.tf32)]
            fused = batch * layer.fused_bytes(direction) / ceilings.memory
            gains = [max(unfused, p) / max(fused, p) for p in products]
            micro = (unfused, fused, *products)
            cells = (*(f"{1e6 * t:,.1f}" for t in micro), *(f"{gain:.1f}" for gain in gains))
            rows.append((f"{layer.name}, {direction}", *cells))
    head = ("layer", "memory unfused, us", "memory fused, us", "products float32, us", "products TF32, us")
    return table(rows, (*head, "most gain, float32", "TF32"))
