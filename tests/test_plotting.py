"""The style of pictures: colours of the networks, labels at the ends of lines, files."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from deepnmf_jax import plotting


def test_a_label_has_the_colour_of_the_network_it_names() -> None:
    assert len(set(plotting.NETWORKS.values())) == 4
    for name, colour in plotting.NETWORKS.items():
        assert plotting.network_colour(f"blocks: {name}, border and cutout") == colour
    with pytest.raises(ValueError, match=r"'MLP' names no network; known are CNMF\+1x1"):
        plotting.network_colour("MLP")


def test_lines_are_dark_enough_on_white() -> None:
    """A contrast of 3, which WCAG 2 asks of graphics; the two networks without 1x1 convolutions are paler."""

    def luminance(colour: str) -> float:
        channels = np.array(to_rgb(colour))
        linear = np.where(channels <= 0.03928, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    for colour in (plotting.BLUE, plotting.VERMILLION, plotting.GREEN, plotting.GREY, plotting.BLACK):
        assert 1.05 / (luminance(colour) + 0.05) > 3


@pytest.mark.parametrize("ends", [[1.0, 1.0, 1.0], [9.0, 5.0, 1.0], [5.0, 5.2, 5.1], [10.0, 9.9, 0.0]])
def test_labels_at_the_ends_keep_their_order_and_distance(ends: list[float]) -> None:
    axes = Figure().subplots()
    for i, end in enumerate(ends):
        axes.plot([0, 1], [0, end], label=str(i))
    axes.set(xlim=(0, 1), ylim=(0, 10))
    plotting.label_ends(axes, gap=0.1)
    heights = {int(text.get_text()): text.get_position()[1] for text in axes.texts}
    ranked = sorted(heights, key=lambda i: heights[i])
    assert ranked == sorted(range(3), key=lambda i: ends[i])
    assert np.diff([heights[i] for i in ranked]).min() >= 0.1 - 1e-9
    if ends == [9.0, 5.0, 1.0]:
        assert heights == pytest.approx({0: 0.9, 1: 0.5, 2: 0.1})


@plotting.styled
def draw(value: float) -> Figure:
    """One line."""
    figure = Figure()
    figure.subplots().plot([0, value])
    return figure


def test_a_styled_figure_has_the_style_and_leaves_matplotlib_as_it_was(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    figure = draw(1.0)
    (axes,) = figure.axes
    assert not axes.spines["top"].get_visible() and axes.lines[0].get_color() == plotting.BLUE
    plotting.save(figure, tmp_path / "new" / "a.png")
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(("ending", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_the_same_picture_gives_the_same_bytes(ending: str, start: bytes, tmp_path: Path) -> None:
    first, second = (plotting.save(draw(2.0), tmp_path / f"{name}.{ending}").read_bytes() for name in "ab")
    assert first == second and first.startswith(start)
    assert len(list(tmp_path.iterdir())) == 2
