"""How many images a second does a trained network answer, one at a time and many at once, beside PyTorch?

python -m benchmarks.speed.inference [--authors=FOLDER] [--batches 1 50 500]

With --authors, a clone of the authors' released code (`benchmarks.speed.step` says which), their network stands there
too.
"""

from collections.abc import Mapping
from typing import Any

from benchmarks.harness import argument_parser, best, compiled_once, interleave, write
from benchmarks.speed import step
from benchmarks.speed.step import PEERS, PROCESSES, clone
from deepnmf_jax.experiments.tables import table
from deepnmf_jax.programs import home, run

OURS = {name: step.OURS[name] for name in ("ours", "ours, multistep by block", "ours, 5 iterations", "our CNN")}


def measure(batch: int, rounds: int, processes: int, authors: str) -> dict[str, list[float]]:
    """Seconds of an inference of a batch by each program; `authors` is a clone of their code, empty for none."""
    specs: dict[str, dict[str, Any]] = {
        name: {"program": "inference", "batch": batch, **model} for name, model in OURS.items()
    }
    for peer in PEERS[not authors :]:
        specs[peer] = {"program": "port_inference", "batch": batch, "layer": "nmf"}
    if authors:
        specs["authors"]["authors"] = authors
    return interleave(specs, rounds, processes)


def ratios(batch: str, samples: Mapping[str, list[float]]) -> dict[str, float]:
    """How many times faster than those in PyTorch each of ours is."""
    return {
        f"batch {batch}: {peer} / {name}": best(samples[peer]) / best(samples[name])
        for peer in PEERS
        if peer in samples
        for name in OURS
    }


def inference_table(result: Mapping[str, Any]) -> str:
    """Images a second at each batch size, by the least of the samples."""
    names = list(dict.fromkeys(name for samples in result["samples"].values() for name in samples))
    rows = [
        [name, *(f"{int(batch) / best(samples[name]):,.0f}" for batch, samples in result["samples"].items())]
        for name in names
    ]
    return table(rows, ["images a second", *(f"batch {batch}" for batch in result["samples"])])


def main() -> None:
    """Measures, prints the table, writes inference.json."""
    parser = argument_parser(main.__doc__ or "")
    parser.add_argument("--batches", type=int, nargs="+", default=(1, 50, 500), help="images in a batch")
    parser.add_argument("--authors", type=home, help="a clone of the authors' code, to be timed too")
    args = parser.parse_args()
    authors = clone(args.authors) if args.authors else ""
    result: dict[str, Any] = {"samples": {}, "ratios": {}}
    with compiled_once():
        for batch in (2,) if args.quick else args.batches:
            rounds = 2 if args.quick else max(6, min(50, 500 // batch))
            samples = measure(batch, rounds, 1 if args.quick else PROCESSES, authors)
            result["samples"][str(batch)] = samples
            result["ratios"] |= ratios(str(batch), samples)
            print(f"batch {batch} is measured", flush=True)
    print(inference_table(result))
    write("inference", result, args.out)


if __name__ == "__main__":
    run(main)
