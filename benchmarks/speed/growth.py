"""How do time and memory of a training step grow with its settings, and why?

python -m benchmarks.speed.growth
"""

import time
from typing import Any

import jax

from benchmarks.gpu.roofline import products_of_inference
from benchmarks.harness import arguments, best, write
from benchmarks.speed.programs.training import compile_train_step
from deepnmf_jax.experiments.tables import table
from deepnmf_jax.training.devices import keep_freed_memory

# What is varied, its values, and the settings that stay: (batch, side, settings of the network).
SWEEPS: dict[str, tuple[tuple[float, ...], Any]] = {
    "iterations": ((5, 10, 20, 50, 100), lambda v: (50, 28, {"num_iters": v})),
    "batch": ((1, 8, 50, 128, 512, 1024), lambda v: (v, 28, {})),
    "width": ((1, 2, 4, 8), lambda v: (8, 28, {"width": v})),
    "groups": ((1, 2, 4, 8, 16), lambda v: (50, 28, {"groups": (1, v, v, 1)})),
    "image side": ((20, 28, 40, 56), lambda v: (20, v, {})),
}


def predict(batch: int, side: int, model: dict[str, Any]) -> tuple[float, float]:
    """Floating-point operations of the products of a step, and bytes of x and h of all NMF layers."""
    width, num_iters = model.get("width", 1), model.get("num_iters", 20)
    groups = model.get("groups", (1, 1, 1, 1))
    features = [3, *(round(f * width) for f in (32, 64, 96)), 10]
    operations = size = 0.0
    for i, kernel in enumerate((5, 5, None, 1)):
        kernel = min(kernel or side, side)
        positions = (side - kernel + 1) ** 2 * batch
        n, k = kernel**2 * features[i], features[i + 1]
        one = 2 * positions * n * k / groups[i]
        # Backward: R, v w and two products for the gradient of w. The 1x1 convolution has three products in all.
        operations += (products_of_inference(num_iters) + 4) * one + 6 * positions * k * k
        size += 4 * positions * (n + k)
        side = (side - kernel + 1) // (2 if i < 2 else 1)
    return operations, size


def main() -> None:
    """Measures, prints the tables, writes growth.json."""
    args = arguments(main.__doc__ or "")
    keep_freed_memory()
    a = jax.numpy.ones((2048, 2048))
    large = jax.jit(jax.numpy.matmul)
    result: dict[str, Any] = {"samples": {}, "predicted": {}, "temporary_bytes": {}}
    ratios = {}
    for name, (values, settings) in SWEEPS.items():
        rows = []
        for value in values[:2] if args.quick else values:
            batch, side, model = settings(value)
            batch = 1 if args.quick else batch
            compiled, (state, *data) = compile_train_step(batch, side, **model)
            samples, products = [], []
            for i in range(3 if args.quick else 5):
                start = time.perf_counter()
                jax.block_until_ready(large(a, a))
                middle = time.perf_counter()
                state = jax.block_until_ready(compiled(state, *data))
                if i:  # the first takes memory from the system
                    products.append(middle - start)
                    samples.append(time.perf_counter() - middle)
            operations, size = predict(batch, side, model)
            rate = 2 * 2048**3 / best(products)
            temporary = compiled.memory_analysis().temp_size_in_bytes
            key = f"{name} {value}"
            result["samples"][key] = {"step": samples, "product": products}
            result["predicted"][key] = {"operations": operations, "bytes": size}
            result["temporary_bytes"][key] = temporary
            share = operations / rate / best(samples)
            rows.append(
                (value, f"{1e3 * best(samples):.0f}", f"{1e3 * operations / rate:.0f}", f"{100 * share:.0f} %",
                 f"{size / 1e6:.0f}", f"{temporary / 1e6:.0f}")
            )  # fmt: skip
            ratios[f"{key}: predicted / measured"] = share
        print("\n" + table(rows, (name, "step, ms", "products at the large product's rate, ms", "share",
                                  "x and h, MB", "temporary, MB")), flush=True)  # fmt: skip
    write("growth", {**result, "ratios": ratios}, args.out)


if __name__ == "__main__":
    main()
