"""Copies of images in lower JPEG quality."""

import numpy as np

from deepnmf_jax.experiments import jpeg_quality


def test_images_are_encoded_anew_at_a_quality() -> None:
    rng = np.random.default_rng(0)
    smooth = np.repeat(np.repeat(rng.integers(0, 256, (3, 4, 4, 3), np.uint8), 8, 1), 8, 2)
    fine = np.abs(jpeg_quality.encoded(smooth, 90).astype(int) - smooth).mean()
    coarse = np.abs(jpeg_quality.encoded(smooth, 10).astype(int) - smooth).mean()
    assert 0 < fine < coarse < 64
