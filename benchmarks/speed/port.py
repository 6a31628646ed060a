"""Is the PyTorch port a fair rival? Its CNMF+1x1 step over its CNN+1x1 step, on one thread and on two.

python -m benchmarks.speed.port
"""

from benchmarks.harness import arguments, best, interleave, write
from deepnmf_jax.experiments.tables import table
from deepnmf_jax.programs import run


def main() -> None:
    """Measures, prints the table, writes port.json."""
    args = arguments(main.__doc__ or "")
    port = {"program": "port_step", "batch": 4 if args.quick else 50}
    specs = {
        f"{layer}, {n} threads": {**port, "layer": layer, "threads": n} for n in (1, 2) for layer in ("nmf", "conv")
    }
    samples = interleave(specs, 2 if args.quick else 10)
    ratios = {
        f"port / port's CNN, {n} threads": best(samples[f"nmf, {n} threads"]) / best(samples[f"conv, {n} threads"])
        for n in (1, 2)
    }
    print(table([(k, f"{1e3 * best(s):.0f}") for k, s in samples.items()], ("program", "ms (least)")))
    print(ratios)
    write("port", {"samples": samples, "ratios": ratios}, args.out)


if __name__ == "__main__":
    run(main)
