"""Draws the pictures of README and docs from the committed records.

    python -m docs.draw                               PNG into docs/pictures
    python -m docs.draw --out=paper --format=pdf      PDF for a paper

Nothing is measured or trained, but for the parts of the digits in `parts`, the places of the codes in
`digits_codes` and the spikes of `settling`, which take some seconds.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from benchmarks.harness import record
from benchmarks.speed import pictures as speed
from deepnmf_jax.experiments import (
    acceleration,
    accuracy_figure,
    cells,
    clustering_pictures,
    clustering_studies,
    cost_pages,
    curves,
    gradients,
    jpeg_cost,
    robustness_pages,
    spikes_tables,
    sum_of_parts,
)
from deepnmf_jax.experiments.tables import ROOT
from deepnmf_jax.files import write_atomically
from deepnmf_jax.models import load_pretrained
from deepnmf_jax.plotting import save
from deepnmf_jax.programs import home
from deepnmf_jax.training.pictures import draw_first_layer_parts

FOLDER = ROOT / "docs" / "pictures"


def first_layer() -> Figure:
    """The parts that the first layer of the CNMF+1x1 of the package learned from CIFAR-10."""
    weights = load_pretrained("cnmf_1x1").variables["params"]["block1"]["nmf"]["u"]
    return draw_first_layer_parts(weights, (5, 5, 3))


PICTURES: dict[str, Callable[[], Figure]] = {
    "parts": lambda: sum_of_parts.draw_sum_of_parts(sum_of_parts.explain()),
    "first_layer": first_layer,
    "quickstart": curves.draw_quickstart,
    "twenty_epochs": curves.draw_twenty_epochs,
    "fifty_epochs": curves.draw_fifty_epochs,
    "plateau": curves.draw_plateau,
    "jpeg": jpeg_cost.draw,
    "factorization": lambda: speed.draw_factorization(record("factorization")),
    "acceleration": lambda: curves.draw_acceleration(json.loads(acceleration.FILE.read_text())),
    "digits_codes": lambda: clustering_pictures.draw_codes_of(clustering_studies.RECORDS / "digits.npz"),
    "settling": spikes_tables.draw_settling,
    "accuracy": lambda: accuracy_figure.draw_accuracy(accuracy_figure.committed("cifar10", 20)),
    "cost": lambda: cost_pages.draw_cost(cells.stored("cost")),
    "gradients": lambda: gradients.draw_gradients(cells.stored("gradients")),
    "robustness": lambda: robustness_pages.draw_robustness(cells.stored("robustness")),
    "growth": lambda: speed.draw_growth(record("growth")),
}


def draw_all(folder: Path = FOLDER, format: str = "png") -> list[Path]:
    """Writes every picture to a folder, as "png" or "pdf". Returns the paths."""
    paths = [save(draw(), folder / f"{name}.{format}") for name, draw in PICTURES.items()]
    for path in paths if format == "png" else ():
        shrink(path)
    return paths


def shrink(path: Path) -> None:
    """Gives a PNG a palette of 64 colours: a quarter of the bytes, and no difference that the eye sees."""
    with Image.open(path) as picture:
        few = picture.convert("RGB").quantize(64, dither=Image.Dither.NONE)
    write_atomically(path, partial(few.save, format="PNG", optimize=True))


def main() -> None:
    """Draws all pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=home, default=FOLDER, help="folder of the pictures (docs/pictures)")
    parser.add_argument("--format", default="png", choices=("png", "pdf"))
    args = parser.parse_args()
    for path in draw_all(args.out, args.format):
        print(path)


if __name__ == "__main__":
    main()
