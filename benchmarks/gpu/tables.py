"""The tables of what benchmarks/gpu/measure.py measured."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.gpu.roofline import Ceilings, limit
from benchmarks.harness import best
from benchmarks.layers import LAYERS
from deepnmf_jax.experiments.tables import table

NOT_MEASURED = "Not measured."


def _table(rows: Sequence[Sequence[str]], head: Sequence[str]) -> str:
    return table(rows, head) if rows else NOT_MEASURED


def measured_ceilings(result: Mapping[str, Any]) -> Ceilings | None:
    """The device's limits from their samples; None where they were not measured."""
    found = result.get("items", {}).get("ceilings", {"samples": {}})
    samples = found["samples"]
    if not samples:
        return None
    return Ceilings(
        memory=found["bytes"] / best(samples["copy"]),
        full=found["operations"] / best(samples["product full"]),
        tf32=found["operations"] / best(samples["product tf32"]),
    )


def ceilings_table(result: Mapping[str, Any]) -> str:
    """The device's limits."""
    rows = []
    if ceilings := measured_ceilings(result):
        small = best(result["items"]["ceilings"]["samples"]["small program"])
        rows = [
            ("copy of 1 GiB", f"{ceilings.memory / 1e12:.2f} TB/s"),
            ("product of 8192, float32", f"{ceilings.full / 1e12:.1f} TFLOP/s"),
            ("the same, TF32", f"{ceilings.tf32 / 1e12:.1f} TFLOP/s"),
            ("a program of one addition", f"{1e6 * small:.1f} us"),
        ]
    return _table(rows, ("limit", "value"))


def agreement_table(result: Mapping[str, Any]) -> str:
    """How far the kernel is from XLA."""
    rows = []
    for key, entry in result.get("agreement", {}).items():
        if "failed" in entry:
            rows.append((key, entry["failed"], "", "", "no"))
        else:
            differences = [f"{entry[what]:.1e}" for what in ("h", "gradient of x", "gradient of w")]
            rows.append((key, *differences, "yes" if entry["agrees"] else "no"))
    head = ("layer, variant", "h", "gradient of x", "gradient of w", "within the tolerance")
    return _table(rows, head)


def layers_table(result: Mapping[str, Any]) -> str:
    """Time, rates and share of the roofline of each layer and variant."""
    ceilings, rows = measured_ceilings(result), []
    for layer in LAYERS:
        for key, item in result.get("items", {}).items():
            if not key.startswith(layer.name) or not ceilings:
                continue
            _, batch, direction = key.split(", ")[:3]
            size = int(batch.removeprefix("batch "))
            xla = item["samples"].get("XLA")
            for name, samples in item["samples"].items():
                # Of a kernel for the backward, which is no more.
                if direction == "backward" and name.startswith("kernel"):
                    continue
                seconds, products = best(samples), "tf32" if "tf32" in name else "full"
                allowed = limit(layer, direction, size, ceilings, products)
                rows.append(
                    (
                        key, name, f"{1e6 * seconds:.1f}", f"{1e6 * np.median(samples):.1f}",
                        f"{best(xla) / seconds:.2f}" if xla else "",
                        f"{size * layer.operations(direction) / seconds / 1e12:.2f}",
                        f"{size * layer.fused_bytes(direction) / seconds / 1e12:.3f}",
                        # The units for bfloat16 have a limit of their own, which is not measured.
                        "" if "bfloat16" in name else f"{100 * allowed / seconds:.0f} %",
                    )
                )  # fmt: skip
            rows += [(key, name, why, "", "", "", "", "") for name, why in item["failed"].items()]
    head = (
        "layer", "program", "us (least)", "median", "XLA / this", "TFLOP/s", "TB/s of x and h", "of the lower limit"
    )  # fmt: skip
    return _table(rows, head)


def steps_table(result: Mapping[str, Any]) -> str:
    """Time of the training step."""
    rows = []
    for key, item in result.get("items", {}).items():
        if not key.startswith("step"):
            continue
        port = item["samples"].get("PyTorch, eager")
        for name, samples in item["samples"].items():
            if not samples:
                continue
            # Five seeds take five steps.
            each = best(samples) / (5 if "five seeds" in name else 1)
            rows.append(
                (key, name, f"{1e3 * best(samples):.3f}", f"{1e3 * np.median(samples):.3f}",
                 f"{best(port) / each:.2f}" if port else "")
            )  # fmt: skip
        if rows:
            rows += [(key, name, why, "", "") for name, why in item["failed"].items()]
    head = ("step", "program", "ms (least)", "ms (median)", "PyTorch eager / this (a seed)")
    return _table(rows, head)


def report(result: Mapping[str, Any]) -> str:
    """All tables."""
    titles = {
        "The kernel against XLA": agreement_table,
        "The device's limits": ceilings_table,
        "The layers": layers_table,
        "The training step": steps_table,
    }
    parts = [f"{result['no speeds']}."] if "no speeds" in result else []
    return "\n\n".join([*parts, *(f"{title}:\n\n{make(result)}" for title, make in titles.items())])
