"""Writes every table of README.md and of the pages in docs/ from the committed records.

python docs/pages.py          or, with the pictures (docs/draw.py): make pages

A table stands between a line `<!-- name -->` and a line `<!-- end -->`, on any page; `TABLES` has the names.
"""

import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gpu import roofline
from benchmarks.gpu.tables import report
from benchmarks.harness import REMOVED, provenance, record
from benchmarks.speed import (
    dn2mfgl,
    factorization,
    first_fit,
    growth,
    inference,
    layer,
    profile,
    sparse,
    sparse_levels,
    startup,
    step,
    transform,
)
from benchmarks.speed import spikes as speed_of_spikes
from deepnmf_jax.experiments import (
    acceleration,
    accuracy_figure,
    accuracy_rows,
    claims,
    clustering_studies,
    cost_pages,
    gradients,
    jpeg_cost,
    local_learning,
    model_cards,
    robustness_pages,
    spikes_tables,
    trials,
    variants,
)
from deepnmf_jax.experiments.cells import on_page
from deepnmf_jax.experiments.tables import ROOT, render
from deepnmf_jax.files import write_atomically
from docs import attacks


def measured(question: str, write: Callable[[Mapping[str, Any]], str], command: str | None = None) -> str:
    """What a benchmark writes of its committed result, and before it where that is from."""
    result = record(question)
    where = provenance(command or f"speed.{question}", result["machine"])
    return f"{where}; every sample in benchmarks/results/{question}.json.\n\n{write(result)}"


def step_of(machine: str, flags: str = "") -> str:
    """The training step on another machine, with the programs that were measured there at batch 50."""
    question = f"step-{machine}"
    if "--programs" in flags:
        names = record(question)["samples"]["50"]
        flags += "".join(f" '{name}'" for name in names if REMOVED not in name)
    return measured(question, step.step_table, f"speed.step {flags}")


SPEED: dict[str, Callable[[], str]] = {
    "step": partial(measured, "step", step.step_table),
    # Beside the authors' released code.
    "step_authors": partial(step_of, "authors", "--authors=FOLDER --programs"),
    # On a processor that multiplies bfloat16 numbers itself, on one whose float32 products are slow, and there with
    # multistep iterations that end where 20 plain ones do.
    "step_amx": partial(step_of, "amx", "--batches 50 --programs"),
    "step_avx2": partial(step_of, "avx2", "--batches 128"),
    "step_multistep": partial(step_of, "multistep", "--programs"),
    "profile": partial(measured, "profile", profile.profile_table),
    "throughput": partial(measured, "layer", layer.rates_table),
    "backward": lambda: layer.backward_table(record("layer")),
    "memory": lambda: layer.memory_table(record("layer")),
    "growth": partial(measured, "growth", growth.growth_table),
    "inference": partial(measured, "inference", inference.inference_table),
    "startup": partial(measured, "startup", startup.startup_table),
    "factorization": partial(measured, "factorization", factorization.factorization_table),
    "first_fit": partial(measured, "first_fit", first_fit.first_fit_table),
    "transform": partial(measured, "transform", transform.transform_table),
    "sparse": partial(measured, "sparse", sparse.sparse_table),
    "sparse_levels": partial(measured, "sparse_levels", sparse_levels.sparse_levels_table),
    "structure": partial(measured, "dn2mfgl", lambda result: dn2mfgl.summary(result["problems"])),
    "speed_of_spikes": partial(measured, "spikes", speed_of_spikes.spikes_table),
    "counts": roofline.counts,
    "predictions": roofline.predictions,
    "measured": partial(measured, "gpu", report, "gpu.measure"),
}
SOURCES: tuple[Mapping[str, Callable[[], str]], ...] = (
    accuracy_rows.tables(),
    {
        "results": accuracy_rows.results_table,
        "plateau_epochs": accuracy_rows.epochs_table,
        "jpeg_cost": jpeg_cost.sentence,
    },
    trials.tables(),
    {
        "acceleration": lambda: acceleration.acceleration_table(json.loads(acceleration.FILE.read_text())),
        "trainings": lambda: acceleration.trainings_table(json.loads(acceleration.TRAININGS.read_text())),
    },
    clustering_studies.TABLES,
    {
        "spikes_digits": spikes_tables.digits_table,
        "spikes": partial(on_page, "spikes", spikes_tables.spikes_table),
        "spikes_residual": partial(on_page, "spikes/residual", spikes_tables.spikes_table),
    },
    {
        "claims": claims.claims_table,
        "model_cards": model_cards.cards,
        "cost": partial(on_page, "cost", cost_pages.cost_table),
        "accuracy_figure": accuracy_figure.committed_table,
        "fashion_figure": partial(accuracy_figure.committed_table, "fashion_mnist", 5),
        "gradients_angles": partial(on_page, "gradients", gradients.gradients_table),
        "variants": partial(on_page, "variants", variants.variants_table),
        "robustness": partial(on_page, "robustness", robustness_pages.robustness_table),
        "robustness_digits": partial(on_page, "robustness/digits", robustness_pages.robustness_table),
        "local_learning": partial(on_page, "local_learning", local_learning.local_learning_table),
    },
    {
        "attacks": lambda: attacks.attacks_table(attacks.read(attacks.ATTACKS)),
        "growth_of_loops": lambda: attacks.growth_table(attacks.read(attacks.GROWTH)),
    },
    SPEED,
)
TABLES = {name: write for source in SOURCES for name, write in source.items()}


def pages() -> list[Path]:
    """Every page that may hold a table."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def main() -> None:
    """Renders the pages in place."""
    for page in pages():
        text = page.read_text()
        try:
            rendered = render(text, TABLES)
        except ValueError as error:
            sys.exit(f"{page.relative_to(ROOT)}: {error}")
        if rendered != text:
            write_atomically(page, rendered)
            print(f"{page.relative_to(ROOT)} is written anew")


if __name__ == "__main__":
    main()
