"""A digit as a sum of parts: the pictures add up."""

import numpy as np
import pytest

from deepnmf_jax.core.divergences import kl_divergence
from deepnmf_jax.data.datasets import load_dataset
from deepnmf_jax.experiments import sum_of_parts
from deepnmf_jax.experiments.sum_of_parts import Explained


def test_what_is_drawn_adds_up_to_the_sum() -> None:
    rng = np.random.default_rng(0)
    x, w, h = (a / a.sum(axis=1, keepdims=True) for a in map(rng.random, [(2, 16), (9, 16), (2, 9)]))
    # Not so strong that a colour saturates.
    figure = sum_of_parts.draw_sum_of_parts(Explained(4 * x, w, h))
    grid = np.reshape(figure.axes, (2, 9))
    for row, digit, activities in zip(grid, x, h, strict=True):
        first, *parts, total = (1 - np.asarray(axes.images[0].get_array()) for axes in row)
        np.testing.assert_allclose(sum(parts), total, atol=1e-12)
        np.testing.assert_allclose(first[..., 0].ravel(), digit / digit.max())
        percent = [axes.get_xlabel() for axes in row]
        largest = np.sort(activities)[::-1]
        assert percent[1:7] == [f"{100 * a:.0f} %" for a in largest[:6]]
        assert percent[7:] == [f"{100 * largest[6:].sum():.0f} %", "100 %"]
        # The first and largest is drawn in blue, which takes red from the paper and leaves most of the blue.
        ink = parts[0].reshape(-1, 3).sum(axis=0)
        assert ink[0] > ink[1] > ink[2] > 0


@pytest.mark.slow
def test_parts_of_the_digits_explain_others(monkeypatch: pytest.MonkeyPatch) -> None:
    digits = load_dataset("mnist5k")
    few = digits._replace(train_images=digits.train_images[:200])
    monkeypatch.setattr(sum_of_parts, "PARTS", 12)
    monkeypatch.setattr(sum_of_parts, "load_dataset", lambda name: few)
    x, w, h = sum_of_parts.explain()
    assert (x.shape, w.shape, h.shape) == ((3, 784), (12, 784), (3, 12))
    for rows in (x, w, h):
        assert (rows >= 0).all()
        np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-5)
    # The activities are the input's own: each digit is explained better than by all parts alike.
    own, alike = (np.asarray(kl_divergence(x, w, activities)) for activities in (h, np.full_like(h, 1 / 12)))
    assert (own < 0.95 * alike).all()
