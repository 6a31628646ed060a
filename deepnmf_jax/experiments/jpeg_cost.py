"""What would CNMF+1x1 reach on images without JPEG's quantisation? A line through the accuracies of the qualities.

The steps of JPEG's quantiser are those of its tables times a scale that the quality says, 0 at quality 100. Against the
root of that scale the accuracies lie on a line. What colours at half the resolution cost is in all of them.
"""

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from deepnmf_jax.experiments.accuracy_rows import ROWS
from deepnmf_jax.plotting import BLACK, GREY, WIDTH, network_colour, styled


class Line(NamedTuple):
    """qualities (n,), accuracies and their standard errors (n,) in %, coefficients (2,) against the root of the scale
    and their covariance (2, 2), chi^2."""

    qualities: np.ndarray
    accuracies: np.ndarray
    errors: np.ndarray
    coefficients: np.ndarray
    covariance: np.ndarray
    chi_squared: float

    def at(self, roots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The line at roots of the scale (m,), and its standard error."""
        powers = np.stack([np.ones_like(roots), roots], axis=1)
        return powers @ self.coefficients, np.sqrt(np.einsum("mi,ij,mj->m", powers, self.covariance, powers))


def root_of_scale(quality: float) -> float:
    """Root of the scale of the quantiser's steps, as libjpeg makes it of a quality of 1 ... 100."""
    return float(np.sqrt(50 / quality if quality < 50 else 2 - quality / 50))


def fitted(qualities: np.ndarray, accuracies: np.ndarray, count: int) -> Line:
    """The line through accuracies in % of `count` test images each, weighted by their standard errors."""
    errors = np.sqrt(accuracies * (100 - accuracies) / count)
    roots = np.array([root_of_scale(q) for q in qualities])
    slope_first, covariance = np.polyfit(roots, accuracies, 1, w=1 / errors, cov="unscaled")
    chi_squared = float(np.sum(((accuracies - np.polyval(slope_first, roots)) / errors) ** 2))
    return Line(qualities, accuracies, errors, slope_first[::-1], covariance[::-1, ::-1], chi_squared)


def committed() -> Line:
    """The line of the records of the table of qualities."""
    rows = [row for row in ROWS if row.table == "quality"]
    qualities = np.array([float(row.label.split()[0]) for row in rows])
    results = [row.results()[0] for row in rows]
    accuracies = np.array([100 * result["test_accuracy"] for result in results])
    return fitted(qualities, accuracies, results[0]["dataset"]["test_images"])


def sentence() -> str:
    """What the line says, for the report."""
    line = committed()
    (end,), (error,) = line.at(np.zeros(1))
    root = root_of_scale(75)
    cost, uncertainty = -root * line.coefficients[1], root * np.sqrt(line.covariance[1, 1])
    return (
        f"A line against the root of the quantiser's scale fits all four (chi² {line.chi_squared:.1f} with "
        f"{len(line.qualities) - 2} degrees of freedom). At quality 100 it is at {end:.1f} ± {error:.1f} %: **the "
        f"copy's quality costs {cost:.1f} ± {uncertainty:.1f} points**, after five epochs and if the line holds there."
    )


@styled
def draw() -> Figure:
    """The accuracies with their standard errors, the line, and its error up to quality 100."""
    line = committed()
    figure = Figure(figsize=(0.7 * WIDTH, 3.2), layout="constrained")
    axes = figure.subplots()
    roots = np.linspace(0, 1.05 * root_of_scale(line.qualities.min()), 50)
    height, error = line.at(roots)
    axes.plot(roots, height, color=BLACK, lw=1)
    axes.fill_between(roots, height - error, height + error, color=GREY, alpha=0.3, lw=0)
    places = [root_of_scale(q) for q in line.qualities]
    colour = network_colour("CNMF+1x1")
    axes.errorbar(places, line.accuracies, line.errors, fmt="o", color=colour, capsize=3)
    ticks = [100, *line.qualities.astype(int)]
    axes.set_xticks([root_of_scale(q) for q in ticks], [str(q) for q in ticks])
    axes.set(xlabel="JPEG quality (the axis: root of the quantiser's scale)", ylabel="CIFAR-10, test accuracy, %")
    axes.set_xlim(left=0)
    return figure
