"""Noise on images: it keeps the sum, grows with its level and repeats."""

import jax
import numpy as np
import pytest

from deepnmf_jax.experiments import noise

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
IMAGES = RNG.random((3, 8, 8, 3), np.float32)
PICTURES = RNG.random((5, 8, 8, 3), np.float32) ** 4


def with_noise(kind, level):
    return np.asarray(noise.add_noise(KEY, IMAGES, kind, level, PICTURES))


@pytest.mark.parametrize("kind", noise.KINDS)
def test_keeps_the_sum_grows_with_its_level_and_repeats(kind):
    none, some, much = (with_noise(kind, level) for level in (0.0, 0.2, 0.8))
    assert np.allclose(none, IMAGES, atol=1e-6)
    assert np.allclose(much.sum((1, 2, 3)), IMAGES.sum((1, 2, 3)), rtol=1e-4) and (much >= 0).all()
    assert np.abs(much - IMAGES).mean() > np.abs(some - IMAGES).mean() > 0
    assert (with_noise(kind, 0.8) == much).all()


def shares(images):
    return images / images.sum((1, 2, 3), keepdims=True)


def test_an_image_is_mixed_with_a_picture_in_shares_of_their_sums():
    mixed, own, others = shares(with_noise("picture", 0.3)), shares(IMAGES), shares(PICTURES)
    distances = np.abs(mixed[:, None] - 0.7 * own[:, None] - 0.3 * others).max((2, 3, 4))
    assert (distances.min(1) < 1e-7).all()
    assert len(set(distances.argmin(1))) > 1  # images have pictures of their own


@pytest.mark.parametrize("pictures", [None, PICTURES[:0], PICTURES[:, :4]])
def test_pictures_of_the_images_shape_are_needed(pictures):
    with pytest.raises(ValueError, match="training images"):
        noise.add_noise(KEY, IMAGES, "picture", 0.5, pictures)
