"""Fixed filters against SciPy's cosine transform, and what the sign split keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import fft

from deepnmf_jax import PatchWhitening
from deepnmf_jax.layers.whitening import cosine_filters

rng = np.random.default_rng(0)


@pytest.mark.parametrize("side, channels", [(3, 3), (5, 1), (1, 4)])
def test_the_filters_are_those_of_scipys_cosine_transform(side, channels):
    patch = rng.random((side, side, channels))
    count = side * side * channels
    ours = patch.ravel() @ cosine_filters(side, channels, count)
    theirs = fft.dctn(patch, norm="ortho")
    np.testing.assert_allclose(np.sort(ours), np.sort(theirs.ravel()), atol=1e-12)
    np.testing.assert_allclose(ours[0], theirs[0, 0, 0], atol=1e-12)


def test_low_frequencies_come_first():
    filters = cosine_filters(3, 3, 4).reshape(3, 3, 3, 4)
    assert np.ptp(filters[..., 0]) < 1e-12
    # Then one change of sign along an axis: brightness along width and height before colour.
    for component, axis in ((1, 1), (2, 0), (3, 2)):
        others = tuple(a for a in range(3) if a != axis)
        assert np.ptp(filters[..., component], axis=others).max() < 1e-12 < np.ptp(filters[..., component])


def test_a_plain_image_has_no_contrast_up_to_its_border():
    images = jnp.broadcast_to(jnp.asarray([0.2, 0.2, 0.2]), (2, 6, 5, 3))
    components = PatchWhitening().apply({}, images)
    assert components.shape == (2, 6, 5, 10)
    np.testing.assert_allclose(components[..., 0], 0.2 * np.sqrt(27), rtol=1e-6)
    np.testing.assert_allclose(components[..., 1:], 0, atol=1e-6)


def test_a_component_sees_the_patch_around_its_pixel():
    images = rng.random((1, 5, 5, 3)).astype(np.float32)
    components = PatchWhitening(features=27).apply({}, images)
    patch = images[0, 1:4, 2:5].ravel() @ cosine_filters(3, 3, 27)
    np.testing.assert_allclose(components[0, 2, 3], patch, atol=1e-5)


@pytest.mark.parametrize("side, strides, size", [(4, 2, 14), (2, 2, 14), (3, 1, 28), (5, 4, 7)])
def test_strides_alone_shrink_the_map(side, strides, size):
    layer = PatchWhitening(kernel_size=side, strides=strides, features=4)
    assert layer.apply({}, jnp.zeros((1, 28, 28, 3))).shape == (1, size, size, 4)


@pytest.mark.parametrize(
    "settings, message",
    [({"kernel_size": 2, "strides": 3}, "would skip"), ({"features": 28}, "1 to 27"), ({"features": 0}, "1 to 27")],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        PatchWhitening(**settings).init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)))
