"""The pictures of README and docs: one command draws all that are committed, in a size for a page."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from deepnmf_jax.experiments import curves, sum_of_parts
from deepnmf_jax.plotting import save
from docs import draw


def test_every_committed_picture_is_drawn_by_the_command_and_small() -> None:
    committed = sorted(draw.FOLDER.iterdir())
    assert [path.name for path in committed] == sorted(f"{name}.png" for name in draw.PICTURES)
    for path in committed:
        assert path.stat().st_size < 100_000, path
        # Twice the width of a README at most, so that letters are neither blurred nor tiny.
        assert imread(path).shape[1] <= 1400, path


def test_a_picture_is_shrunk_without_a_difference_to_the_eye(tmp_path: Path) -> None:
    figure = curves.draw_quickstart()
    before = imread(save(figure, tmp_path / "a.png"))[..., :3]
    size = (tmp_path / "a.png").stat().st_size
    draw.shrink(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size < size / 2
    difference = np.abs(imread(tmp_path / "a.png")[..., :3] - before)
    assert difference.mean() < 0.002 and np.quantile(difference, 0.999) < 0.1


@pytest.mark.slow
def test_all_are_drawn_as_a_paper_wants_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, w, h = (a / a.sum(axis=1, keepdims=True) for a in map(rng.random, [(2, 16), (9, 16), (2, 9)]))
    # What is computed for a picture, and no file: tested where it is.
    monkeypatch.setattr(sum_of_parts, "explain", lambda: sum_of_parts.Explained(x, w, h))
    monkeypatch.setattr("sklearn.manifold.TSNE.fit_transform", lambda _, codes: codes[:, :2])
    paths = draw.draw_all(tmp_path, "pdf")
    assert [path.name for path in paths] == [f"{name}.pdf" for name in draw.PICTURES]
    assert all(path.read_bytes().startswith(b"%PDF") for path in paths)
