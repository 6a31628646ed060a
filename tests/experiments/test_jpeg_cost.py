"""The line through the accuracies of JPEG qualities: its fit, its errors, and that the report says what it gives."""

import numpy as np
import pytest

from deepnmf_jax.experiments import jpeg_cost

QUALITIES = np.array([75.0, 50.0, 25.0, 10.0])


def test_the_scale_is_libjpegs() -> None:
    assert [jpeg_cost.root_of_scale(q) ** 2 for q in (100, 75, 50, 25, 10)] == pytest.approx([0, 0.5, 1, 2, 5])


def test_a_line_is_found_again() -> None:
    roots = np.array([jpeg_cost.root_of_scale(q) for q in QUALITIES])
    line = jpeg_cost.fitted(QUALITIES, 80 - 6 * roots, 10_000)
    np.testing.assert_allclose(line.coefficients, [80, -6], rtol=1e-9)
    assert line.chi_squared == pytest.approx(0, abs=1e-12)
    height, _ = line.at(roots)
    np.testing.assert_allclose(height, line.accuracies)


def test_the_errors_are_those_of_repeated_draws() -> None:
    rng, roots = np.random.default_rng(0), np.array([jpeg_cost.root_of_scale(q) for q in QUALITIES])
    true = 80 - 6 * roots
    ends, slopes, chi = [], [], []
    for _ in range(3000):
        line = jpeg_cost.fitted(QUALITIES, 100 * rng.binomial(10_000, true / 100) / 10_000, 10_000)
        ends.append(line.coefficients[0])
        slopes.append(line.coefficients[1])
        chi.append(line.chi_squared)
    (_,), (error,) = line.at(np.zeros(1))
    assert np.std(ends) == pytest.approx(error, rel=0.06)
    assert np.std(slopes) == pytest.approx(np.sqrt(line.covariance[1, 1]), rel=0.06)
    # Four points, two numbers fitted.
    assert np.mean(chi) == pytest.approx(2, rel=0.1)


def test_the_picture_shows_the_records_and_ends_at_quality_100() -> None:
    (axes,) = jpeg_cost.draw().axes
    line = jpeg_cost.committed()
    (points,) = [container.lines[0] for container in axes.containers]
    np.testing.assert_allclose(points.get_ydata(), line.accuracies)
    assert axes.get_xlim()[0] == 0 and axes.get_xticklabels()[0].get_text() == "100"
    assert line.qualities.tolist() == QUALITIES.tolist()
