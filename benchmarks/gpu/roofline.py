"""What a GPU's two limits, of its memory and of its products, allow the layers of benchmarks/layers.py."""

from typing import NamedTuple

from benchmarks.layers import LAYERS, Layer
from deepnmf_jax.experiments.tables import table


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
