"""How do time and memory of a training step grow with its settings, and why?

python -m benchmarks.speed.growth
"""

from collections.abc import Mapping
from typing import Any

from benchmarks.harness import arguments, best, in_turns, timed, write
from benchmarks.layers import layers_of
from benchmarks.speed.programs.training import compile_train_step, large_product, repeated_step
from deepnmf_jax.experiments.tables import table
from deepnmf_jax.programs import run
from deepnmf_jax.training.devices import keep_freed_memory

# What is varied, its values, and the settings that stay: (batch, side, settings of the network).
SWEEPS: dict[str, tuple[tuple[float, ...], Any]] = {
    "iterations": ((5, 10, 20, 50, 100), lambda v: (50, 28, {"num_iters": v})),
    "batch": ((1, 8, 50, 128, 512, 1024), lambda v: (v, 28, {})),
    "width": ((1, 2, 4, 8), lambda v: (8, 28, {"width": v})),
    "groups": ((1, 2, 4, 8, 16), lambda v: (50, 28, {"groups": (1, v, v, 1)})),
    "image side": ((20, 28, 56, 112, 224), lambda v: (4, v, {})),
}


def predict(batch: int, side: int, model: Mapping[str, Any]) -> tuple[float, float]:
    """Floating-point operations of the products of a step, and bytes of x and h of all NMF layers."""
    groups, num_iters = model.get("groups", (1,) * 4), model.get("num_iters", 20)
    operations = size = 0.0
    for layer, parts in zip(layers_of(side, model.get("width", 1)), groups, strict=True):
        inference = sum(layer.operations(direction, num_iters) for direction in ("forward", "backward"))
        # The 1x1 convolution has three products in all.
        operations += batch * (inference / parts + 6 * layer.positions * layer.k**2)
        size += batch * layer.fused_bytes("forward")
    return operations, size


def _of_products(operations: float, product: list[float]) -> float:
    """Seconds of so many operations at the rate of the large product."""
    return operations / (2 * 2048**3 / best(product))


def growth_table(result: Mapping[str, Any]) -> str:
    """Time and memory of the step against each setting."""
    rows = []
    for key, samples in result["samples"].items():
        predicted, measured = result["predicted"][key], best(samples["step"])
        products = _of_products(predicted["operations"], samples["product"])
        rows.append(
            (key, f"{1e3 * products:.0f}", f"{1e3 * measured:.0f}", f"{measured / products:.1f}",
             f"{predicted['bytes'] / 1e6:.0f}", f"{result['temporary_bytes'][key] / 1e6:.0f}")
        )  # fmt: skip
    return table(rows, ("setting", "products alone, ms", "step, ms", "ratio", "x and h, MB", "temporary, MB"))


def main() -> None:
    """Measures, prints the table, writes growth.json."""
    args = arguments(main.__doc__ or "")
    keep_freed_memory()
    result: dict[str, Any] = {"samples": {}, "predicted": {}, "temporary_bytes": {}, "ratios": {}}
    product = timed(large_product(2048))
    for name in ("iterations",) if args.quick else SWEEPS:
        values, settings = SWEEPS[name]
        for value in values[:1] if args.quick else values:
            key, (batch, side, model) = f"{name} {value}", settings(value)
            if args.quick:
                batch, side, model = 1, 12, {"num_iters": 2, "width": 0.25, **model}
            compiled, state = compile_train_step(batch, side, **model)
            # The first step takes memory from the system; it is not counted.
            programs = {"product": product, "step": timed(repeated_step(compiled, *state))}
            result["samples"][key] = samples = in_turns(programs, 2 if args.quick else 4)
            operations, size = predict(batch, side, model)
            result["predicted"][key] = {"operations": operations, "bytes": size}
            result["temporary_bytes"][key] = compiled.memory_analysis().temp_size_in_bytes
            share = _of_products(operations, samples["product"]) / best(samples["step"])
            result["ratios"][f"{key}: predicted / measured"] = share
            print(f"{key}: {1e3 * best(samples['step']):.0f} ms", flush=True)
    print("\n" + growth_table(result))
    write("growth", result, args.out)


if __name__ == "__main__":
    run(main)
