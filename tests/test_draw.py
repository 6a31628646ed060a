"""The pictures of README and docs: one command draws all that are committed, in a size for a page."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from deepnmf_jax.experiments import sum_of_parts
from docs import draw


def test_every_committed_picture_is_drawn_by_the_command_and_small() -> None:
    committed = sorted(draw.FOLDER.iterdir())
    assert [path.name for path in committed] == sorted(f"{name}.png" for name in draw.PICTURES)
    for path in committed:
        assert path.stat().st_size < 200_000, path
        # Twice the width of a README at most, so that letters are neither blurred nor tiny.
        assert imread(path).shape[1] <= 1400, path


@pytest.mark.slow
def test_all_are_drawn_as_a_paper_wants_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, w, h = (a / a.sum(axis=1, keepdims=True) for a in map(rng.random, [(2, 16), (9, 16), (2, 9)]))
    monkeypatch.setattr(sum_of_parts, "explain", lambda: sum_of_parts.Explained(x, w, h))
    paths = draw.draw_all(tmp_path, "pdf")
    assert [path.name for path in paths] == [f"{name}.pdf" for name in draw.PICTURES]
    assert all(path.read_bytes().startswith(b"%PDF") for path in paths)
