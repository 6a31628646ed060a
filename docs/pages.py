"""Writes the tables of docs/performance.md, decomposition.md, dn2mfgl.md and gpu.md from the committed JSON.

python docs/pages.py
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.roofline import counts, predictions
from benchmarks.gpu.tables import committed
from benchmarks.harness import RESULTS, ROOT, best
from benchmarks.speed import dn2mfgl
from benchmarks.speed.profile import summary as parts
from deepnmf_jax.experiments import clustering_studies as clustering
from deepnmf_jax.experiments.tables import render, table

PAGE = ROOT / "docs" / "performance.md"
DECOMPOSITION = ROOT / "docs" / "decomposition.md"
DN2MFGL = ROOT / "docs" / "dn2mfgl.md"
GPU = ROOT / "docs" / "gpu.md"


def _result(question: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{question}.json").read_text())


def _from(question: str, command: str | None = None) -> str:
    m = _result(question)["machine"]
    return (
        f"`python -m benchmarks.{command or question}`; {m['cpu']}, {m['cores']} cores, Python {m['python']}, "
        f"jax {m['jax']}; commit {m['commit'].replace('+', ' with ')}; every sample in "
        f"benchmarks/results/{question}.json.\n\n"
    )


def step(question: str = "step", command: str | None = None) -> str:
    """Training step and inference at each batch size: least and median time, and the port's over it."""
    samples = _result(question)["samples"]
    rows = []
    for name in {name: None for batch in reversed(samples) for name in samples[batch]}:
        row: list[str] = [name]
        for batch in samples:
            if name not in samples[batch]:
                row += ["", "", ""]
                continue
            kind = "inference: port" if name.startswith("inference") else "port"
            s, port = samples[batch][name], samples[batch][kind]
            comparable = not name.startswith(("product", "data"))
            ratio = f"{best(port) / best(s):.2f} / {np.median(port) / np.median(s):.2f}" if comparable else ""
            row += [f"{1e3 * best(s):.0f}", f"{1e3 * np.median(s):.0f}", ratio]
        rows.append(row)
    head = ["program"]
    for batch in samples:
        head += [f"{batch}: least, ms", "median, ms", "port / this: least / median"]
    return _from(question, command) + table(rows, head)


def _programs(question: str) -> str:
    """The flag that names the programs of a run at batch 50."""
    return "--programs " + " ".join(f"'{name}'" for name in _result(question)["samples"]["50"])


def step_amx() -> str:
    """The same on a processor that multiplies bfloat16 numbers itself, some programs at batch 50."""
    return step("step-amx", f"step --batches 50 {_programs('step-amx')}")


def step_multistep() -> str:
    """There too: multistep iterations, set block by block to end where 20 plain ones do."""
    return step("step-multistep", f"step {_programs('step-multistep')}")


def step_avx2() -> str:
    """The same on a processor whose float32 products are slow, at batch 128."""
    return step("step-avx2", "step --batches 128")


def rates() -> str:
    """Inference of the first two blocks against a large product."""
    result = _result("layer")
    rows = [
        (name.removeprefix("rate: "), f"{100 * share:.0f} %")
        for name, share in result["ratios"].items()
        if name.startswith("rate: ")
    ]
    return _from("layer") + table(rows, ("program", "operations a second, over those of the large product"))


def backward() -> str:
    """Backward of block 1 alone, by gradient and number of iterations."""
    samples = _result("layer")["backward"]
    ways = list(dict.fromkeys(name.split(", ")[0] for name in samples))
    rows = []
    for n in dict.fromkeys(name.split(", ")[1] for name in samples):
        ms = {way: 1e3 * best(samples[f"{way}, {n}"]) for way in ways}
        rows.append((n, *(f"{v:.1f}" for v in ms.values()), f"{ms['unrolled'] / ms['approximate']:.1f}"))
    return table(rows, ("iterations", *(f"{way}, ms" for way in ways), "unrolled / approximate"))


def memory() -> str:
    """Bytes kept for the backward, and the compiler's temporary ones."""
    rows = []
    for name, found in (kept := _result("layer")["memory"]).items():
        block = name.split(":")[0]
        over = found["kept"] / kept[f"{block}: convolution"]["kept"]
        rows.append((name, f"{found['kept'] / 1e6:.1f}", f"{over:.2f}", f"{found['temporary'] / 1e6:.1f}"))
    return table(rows, ("layer and gradient", "kept, MB", "over the convolution's", "temporary, MB"))


def growth() -> str:
    """Time and memory of the step against each setting."""
    result = _result("growth")
    rows = []
    for key, samples in result["samples"].items():
        predicted = result["predicted"][key]
        products = predicted["operations"] / (2 * 2048**3 / best(samples["product"]))
        measured = best(samples["step"])
        rows.append(
            (key, f"{1e3 * products:.0f}", f"{1e3 * measured:.0f}", f"{measured / products:.1f}",
             f"{predicted['bytes'] / 1e6:.0f}", f"{result['temporary_bytes'][key] / 1e6:.0f}")
        )  # fmt: skip
    head = ("setting", "products alone, ms", "step, ms", "ratio", "x and h, MB", "temporary, MB")
    return _from("growth") + table(rows, head)


def acceleration() -> str:
    """Accuracy and divergence of a trained network against the pairs of products."""
    result = _result("acceleration")
    parts = []
    for quantity, title, scale, digits in (
        ("accuracy", "validation accuracy, %", 100, 2),
        ("kl", "mean KL of the four layers, nats", 1, 4),
        ("l1", "mean L1 distance to the converged h", 1, 3),
    ):
        rows = [
            (name, *(f"{scale * np.mean(v):.{digits}f}" for v in found[quantity]))
            for name, found in result["methods"].items()
        ]
        parts.append(f"{title}:\n\n" + table(rows, ("pairs", *result["pairs"])))
    rows = [
        (name, f"{100 * b['accuracy']:.2f}", b["other answers"], f"{100 * b['operations']:.0f} %",
         ", ".join(f"{v:.4f}" for v in b["kl"]), ", ".join(f"{v:.3f}" for v in b["l1"]))
        for name, b in result["by_block"].items()
    ]  # fmt: skip
    head = (
        "settings",
        "accuracy, %",
        "other answers",
        "operations",
        "KL of each layer, nats",
        "L1 distance to 20 plain",
    )
    parts.append("settings by block:\n\n" + table(rows, head))
    return "\n\n".join(parts)


def startup() -> str:
    """Seconds to the first training step."""
    samples = _result("startup")["samples"]
    rows = [(name, ", ".join(f"{v:.1f}" for v in s)) for name, s in samples.items()]
    return _from("startup") + table(rows, ("start", "s to the first step"))


def factorization() -> str:
    """Error against seconds of the factorizations, their compile time and memory, and the sweep with many concepts."""
    from benchmarks.speed.factorization import summary

    if not (RESULTS / "factorization.json").exists():
        return "Not measured yet."
    result = _result("factorization")
    parts = [_from("factorization").rstrip(), "![Relative error against seconds](pictures/factorization.png)"]
    for name, found in result["problems"].items():
        levels = found["levels"]
        sooner = sum(record["sooner"] for record in levels)
        parts.append(
            f"{name}, {' x '.join(map(str, found['shape']))}, {found['k']} concepts: ours is there sooner at "
            f"{sooner} of {len(levels)} error levels.\n\n{summary(found)}"
        )
    last = list(result["problems"].values())[-1]
    rows = [
        (name, f"{c['compile_seconds']:.1f}", f"{(c['memory'] - c['memory_before']) / 1e6:.0f}")
        for name, c in last["curves"].items()
    ]
    head = (
        "method, last problem",
        "first call - second call (compilation), s",
        "peak memory over that at the start, MB",
    )
    many = result["many"]
    parts += [
        table(rows, head),
        f"{many['k']:,} concepts on {many['n']:,} x {many['p']}: {many['seconds']:.1f} s a sweep, "
        f"{many['memory'] / 1e9:.1f} GB at most, of which A, Z and D are {many['arrays'] / 1e9:.1f} GB; "
        f"{many['compile_seconds']:.1f} s to compile.",
    ]
    return "\n\n".join(parts)


def profile() -> str:
    """Where the time of a training step goes."""
    batches = _result("profile")["batches"].items()
    columns = {f"{name}, {batch}": step for batch, steps in batches for name, step in steps.items()}
    return _from("profile") + parts(columns)


TABLES: dict[str, Callable[[], str]] = {
    f.__name__: f
    for f in (
        step,
        step_amx,
        step_avx2,
        step_multistep,
        profile,
        rates,
        backward,
        memory,
        growth,
        acceleration,
        startup,
    )
}


def structure() -> str:
    """Time and memory of Dn2MFGL and of the plain loops."""
    if not (RESULTS / "dn2mfgl.json").exists():
        return "Not measured yet."
    return _from("dn2mfgl") + dn2mfgl.summary(_result("dn2mfgl")["problems"])


GPU_TABLES: dict[str, Callable[[], str]] = {"counts": counts, "predictions": predictions, "measured": committed}
PAGES: dict[Path, dict[str, Callable[[], str]]] = {
    PAGE: TABLES,
    DECOMPOSITION: {"factorization": factorization},
    DN2MFGL: {**clustering.TABLES, "structure": structure},
    GPU: GPU_TABLES,
}


def main() -> None:
    """Renders the pages in place."""
    for page, tables in PAGES.items():
        page.write_text(render(page.read_text(), tables))


if __name__ == "__main__":
    main()
