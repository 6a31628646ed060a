import colorsys
import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv

from deepnmf_jax.data.augmentation import Augmentation, alternating_flips, augment, center_crop

AUTHORS = Augmentation(crop=28, flip=True, brightness=0.5, contrast=0.1, saturation=0.1, hue=0.15)
KEY = jax.random.key(3)
compiled = jax.jit(augment, static_argnums=2)


# Each number of channels is another compilation.
OTHER_CHANNELS = [pytest.param(2, marks=pytest.mark.slow), pytest.param(5, marks=pytest.mark.slow)]


def make_images(batch: int = 6, height: int = 32, width: int = 32, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (batch, height, width, channels), dtype=np.uint8)


def as_float(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float32) * np.float32(1 / 255)


def adjusted(name: str, image: np.ndarray, factor: np.ndarray | float) -> np.ndarray:
    """One colour step of an image (height, width, 3) with matplotlib's HSV; several factors (m,): (m, height, ...)."""
    factors = np.asarray(factor)[..., None, None, None]
    if name == "contrast":
        mean = image.mean(axis=(0, 1))
        return np.clip(mean + factors * (image - mean), 0, 1)
    hsv = np.broadcast_to(rgb_to_hsv(image), np.broadcast_shapes(image.shape, factors.shape[:-3] + image.shape)).copy()
    if name == "saturation":
        hsv[..., 1] = np.clip(hsv[..., 1] * factors[..., 0], 0, 1)
    else:
        hsv[..., 0] = (hsv[..., 0] + factors[..., 0]) % 1
    return hsv_to_rgb(hsv)


def windows(image: np.ndarray, crop: int) -> np.ndarray:
    """All windows of an image: (rows, columns, crop, crop, channels)."""
    view = np.lib.stride_tricks.sliding_window_view(image, (crop, crop), axis=(0, 1))
    return np.moveaxis(view, 2, -1)


def offsets(image: np.ndarray, window: np.ndarray) -> tuple[int, int]:
    """Where in the image the window lies; it must lie in exactly one place."""
    (place,) = np.argwhere((windows(image, window.shape[0]) == window).all(axis=(2, 3, 4)))
    return tuple(place.tolist())


@pytest.mark.parametrize("channels", [3, *OTHER_CHANNELS])
def test_a_crop_is_a_window_of_its_image_and_all_windows_occur(channels):
    images = make_images(100, 8, 7, channels)
    cropped = np.asarray(compiled(KEY, jnp.asarray(images), Augmentation(crop=5)))
    assert cropped.dtype == np.float32
    found = {offsets(as_float(image), window) for image, window in zip(images, cropped, strict=True)}
    # 4 x 3 places; 100 draws miss a given one with probability 0.0002.
    assert found == {(row, column) for row in range(4) for column in range(3)}


def test_windows_reach_into_a_mirrored_border():
    images = make_images(200, 6, 6, 2)
    bordered = np.pad(as_float(images), ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
    cropped = np.asarray(compiled(KEY, jnp.asarray(images), Augmentation(crop=6, pad=2)))
    found = {offsets(image, window) for image, window in zip(bordered, cropped, strict=True)}
    # 5 x 5 places; 200 draws miss a given one with probability 0.0003.
    assert found == {(row, column) for row in range(5) for column in range(5)}


def test_cutout_sets_a_square_to_the_mean_colour_and_leaves_the_rest():
    images = make_images(300, 9, 7)
    cut = np.asarray(compiled(KEY, jnp.asarray(images), Augmentation(cutout=4)))
    plain = as_float(images)
    changed = (cut != plain).any(axis=3)
    np.testing.assert_allclose(
        cut[changed], np.broadcast_to(plain.mean((1, 2))[:, None, None], plain.shape)[changed], rtol=1e-5
    )
    rows, columns = changed.any(axis=2), changed.any(axis=1)
    assert (changed == rows[:, :, None] & columns[:, None, :]).all()
    # The centre is anywhere in the window: whole squares, and what the edges leave of them.
    assert set(rows.sum(1)) == set(columns.sum(1)) == {2, 3, 4}
    assert len({tuple(row) for row in rows}) == 9 and len({tuple(column) for column in columns}) == 7


def test_a_border_and_cutout_leave_the_other_draws_alone():
    images = jnp.asarray(make_images(20))
    before = compiled(KEY, images, AUTHORS)
    cut = compiled(KEY, images, dataclasses.replace(AUTHORS, cutout=8))
    assert 0.9 < np.isclose(cut, before, atol=1e-6).all(axis=3).mean() < 0.97


def test_flips_mirror_left_and_right_half_of_the_time():
    images = make_images(400, 3, 4)
    flipped = np.asarray(compiled(KEY, jnp.asarray(images), Augmentation(flip=True)))
    plain, mirrored = as_float(images), as_float(images)[:, :, ::-1]
    is_plain = (flipped == plain).all(axis=(1, 2, 3))
    is_mirrored = (flipped == mirrored).all(axis=(1, 2, 3))
    assert (is_plain ^ is_mirrored).all()
    # 200 expected, standard deviation 10.
    assert abs(is_mirrored.sum() - 200) < 45


def test_brightness_multiplies_by_a_factor_around_one():
    images = make_images(300, 2, 2) // 2 + 1
    bright = np.asarray(compiled(KEY, jnp.asarray(images), Augmentation(brightness=0.5)))
    factors = (bright / as_float(images)).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(bright, as_float(images) * factors[:, None, None, None], rtol=1e-6)
    # U(0.5, 1.5): both ends are approached, neither is passed, the mean has standard deviation 0.017.
    assert 0.5 <= factors.min() < 0.55 and 1.45 < factors.max() <= 1.5
    assert abs(factors.mean() - 1.0) < 0.08


@pytest.mark.slow
def test_brightness_clips_and_cannot_become_negative():
    images = jnp.full((300, 2, 2, 3), 200, jnp.uint8)
    bright = np.asarray(compiled(KEY, images, Augmentation(brightness=2.0)))
    assert bright.max() == 1.0
    # The factor is U(0, 3): often small, never so small that an image goes black.
    assert 0 < bright.min() < 0.1


@pytest.mark.parametrize(
    ("name", "augmentation"),
    [
        ("contrast", Augmentation(contrast=0.3)),
        ("saturation", Augmentation(saturation=0.3)),
        ("hue", Augmentation(hue=0.3)),
    ],
)
def test_a_colour_step_is_that_of_hsv_with_a_factor_in_its_range(name, augmentation):
    images = jnp.asarray(make_images(8, 6, 6))
    changed = compiled(KEY, images, augmentation)
    low, high = (-0.3, 0.3) if name == "hue" else (0.7, 1.3)
    candidates = np.linspace(low, high, 1201, dtype=np.float32)
    best = []
    for image, result in zip(as_float(np.asarray(images)), changed, strict=True):
        errors = np.abs(adjusted(name, image, candidates) - np.asarray(result)).max(axis=(1, 2, 3))
        # The grid is 0.0005 fine, and no step's slope in its factor is above 6.
        assert errors.min() < 2e-3
        best.append(candidates[errors.argmin()])
    assert len(np.unique(best)) == len(images)


@pytest.mark.slow
def test_colour_steps_come_in_the_stated_order_with_the_draws_that_each_has_alone():
    # Mid-grey noise, which no step takes out of range, gives away the factor of each step alone ...
    probes = np.random.default_rng(1).integers(100, 150, (6, 8, 8, 3), dtype=np.uint8)
    x = as_float(probes)

    def alone(augmentation: Augmentation) -> np.ndarray:
        return np.asarray(compiled(KEY, jnp.asarray(probes), augmentation))

    brightness = (alone(Augmentation(brightness=0.5)) / x).mean(axis=(1, 2, 3))
    contrast = alone(Augmentation(contrast=0.4))[..., 0].std(axis=(1, 2)) / x[..., 0].std(axis=(1, 2))
    pixel = [colorsys.rgb_to_hsv(*image[0, 0]) for image in x]
    saturation = [
        colorsys.rgb_to_hsv(*image[0, 0])[1] / before[1]
        for image, before in zip(alone(Augmentation(saturation=0.4)), pixel, strict=True)
    ]
    turn = [
        (colorsys.rgb_to_hsv(*image[0, 0])[0] - before[0] + 0.5) % 1 - 0.5
        for image, before in zip(alone(Augmentation(hue=0.15)), pixel, strict=True)
    ]
    # No step may use the draw of another.
    uniform = [
        brightness - 1,
        (contrast - 1) / 0.8,
        (np.asarray(saturation) - 1) / 0.8,
        np.asarray(turn) / 0.3,
    ]
    assert all(np.abs(a - b).max() > 0.1 for a, b in itertools.combinations(uniform, 2))
    # ... and full-range noise, which every step clips, shows the order.
    images = make_images(6, 8, 8)
    setting = Augmentation(brightness=0.5, contrast=0.4, saturation=0.4, hue=0.15)
    together = compiled(KEY, jnp.asarray(images), setting)
    for i, image in enumerate(as_float(images)):
        expected = np.clip(image * brightness[i], 0, 1)
        for name, factors in (("contrast", contrast), ("saturation", saturation), ("hue", turn)):
            expected = adjusted(name, expected, factors[i])
        np.testing.assert_allclose(together[i], expected, atol=1e-4)


def test_per_batch_gives_all_images_one_draw_and_per_image_each_its_own():
    images = jnp.asarray(np.repeat(make_images(1), 6, axis=0))
    per_batch = dataclasses.replace(AUTHORS, per="batch")
    same = np.asarray(compiled(KEY, images, per_batch))
    assert (same == same[0]).all()
    assert np.abs(np.asarray(compiled(jax.random.key(4), images, per_batch)) - same).max() > 0.01
    different = np.asarray(compiled(KEY, images, AUTHORS))
    assert len(np.unique(different.reshape(6, -1), axis=0)) == 6
    # Image 0 has the batch's draw, whichever way it is drawn.
    np.testing.assert_allclose(different[0], same[0], atol=1e-6)


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**31),
    augmentation=st.sampled_from([Augmentation(3, True, 3.0, 3.0, 3.0, 0.5), Augmentation(3, hue=0.5, per="batch")]),
    levels=st.sampled_from([(0, 0), (255, 255), (128, 128), (0, 255), (0, 2)]),
)
def test_results_are_finite_and_in_range_whatever_the_image(seed, augmentation, levels):
    images = np.random.default_rng(seed).integers(levels[0], levels[1] + 1, (2, 4, 4, 3), np.uint8)
    result = np.asarray(compiled(jax.random.key(seed), jnp.asarray(images), augmentation))
    assert result.shape == (2, 3, 3, 3) and result.dtype == np.float32
    assert np.isfinite(result).all() and result.min() >= 0 and result.max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("per", ["image", "batch"])
def test_jit_gives_what_eager_gives(per):
    images = jnp.asarray(make_images())
    augmentation = dataclasses.replace(AUTHORS, per=per)
    np.testing.assert_allclose(compiled(KEY, images, augmentation), augment(KEY, images, augmentation), atol=1e-5)


@pytest.mark.slow
def test_vmap_over_keys_gives_each_seed_its_own_augmentation():
    images = jnp.asarray(make_images())
    keys = jax.random.split(KEY, 2)
    both = jax.jit(jax.vmap(lambda key: augment(key, images, AUTHORS)))(keys)
    for key, result in zip(keys, both, strict=True):
        np.testing.assert_allclose(result, compiled(key, images, AUTHORS), atol=1e-5)


@pytest.mark.parametrize("channels", [1, *OTHER_CHANNELS])
def test_saturation_and_hue_leave_images_without_three_channels_alone(channels):
    images = jnp.asarray(make_images(4, 5, 5, channels))
    with_colour = compiled(KEY, images, Augmentation(4, True, 0.5, 0.1, 0.9, 0.5))
    without = compiled(KEY, images, Augmentation(4, True, 0.5, 0.1, 0.0, 0.0))
    np.testing.assert_array_equal(with_colour, without)


def test_nothing_switched_on_is_only_the_division_by_255():
    images = make_images()
    np.testing.assert_array_equal(compiled(KEY, jnp.asarray(images), Augmentation()), as_float(images))
    np.testing.assert_allclose(as_float(images), images / 255, rtol=2e-7)


@pytest.mark.slow
def test_switching_one_setting_off_leaves_the_other_draws_alone():
    images = make_images()
    cropped = np.asarray(compiled(KEY, jnp.asarray(images), Augmentation(crop=28)))
    both = np.asarray(compiled(KEY, jnp.asarray(images), Augmentation(crop=28, flip=True)))
    flipped = np.asarray(compiled(KEY, jnp.asarray(images), Augmentation(flip=True)))
    is_flipped = (flipped != as_float(images)).any(axis=(1, 2, 3))
    assert 0 < is_flipped.sum() < len(images)
    np.testing.assert_array_equal(both[~is_flipped], cropped[~is_flipped])
    np.testing.assert_array_equal(both[is_flipped], cropped[is_flipped][:, :, ::-1])


def test_an_image_s_draw_depends_on_its_place_and_not_on_the_rest_of_the_batch():
    images = make_images()
    whole = compiled(KEY, jnp.asarray(images), AUTHORS)
    fewer = compiled(KEY, jnp.asarray(images[:3]), AUTHORS)
    np.testing.assert_allclose(fewer, whole[:3], atol=1e-6)


def test_the_centre_crop_is_the_middle_window():
    images = make_images(2, 32, 30)
    np.testing.assert_array_equal(center_crop(jnp.asarray(images), 28), as_float(images)[:, 2:30, 1:29])
    np.testing.assert_array_equal(center_crop(jnp.asarray(images), 0), as_float(images))


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"crop": -1}, r"augmentation.crop = -1, .* at least 0"),
        ({"crop": 2.5}, r"crop = 2.5, .* whole number"),
        ({"pad": -1, "crop": 2}, r"pad = -1, .* at least 0"),
        ({"pad": 2}, "pad = 2 needs a crop"),
        ({"cutout": True}, r"cutout = True, .* whole number"),
        ({"brightness": -0.1}, r"brightness = -0.1, .* at least 0"),
        ({"contrast": float("nan")}, r"contrast = nan, .* at least 0"),
        ({"saturation": float("inf")}, r"saturation = inf, .* at least 0"),
        ({"hue": 0.6}, r"hue = 0.6, .* in \[0, 0.5\]"),
        ({"per": "epoch"}, "per = 'epoch' is unknown; use one of 'image', 'batch'"),
    ],
)
def test_settings_outside_their_range_are_refused(given_, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**given_)


def test_images_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="crop 33 is larger than the images of 40x32 pixels"):
        augment(KEY, jnp.zeros((1, 40, 32, 3), jnp.uint8), Augmentation(crop=33))
    with pytest.raises(ValueError, match="pad = 7 must be less than the side of the images, 7"):
        augment(KEY, jnp.zeros((1, 9, 7, 3), jnp.uint8), Augmentation(crop=5, pad=7))
    with pytest.raises(ValueError, match="crop 33"):
        center_crop(jnp.zeros((1, 32, 40, 3), jnp.uint8), 33)
    with pytest.raises(ValueError, match=r"shape \(batch, height, width, channels\), got \(32, 32, 3\)"):
        compiled(KEY, jnp.zeros((32, 32, 3), jnp.uint8), Augmentation())
    with pytest.raises(ValueError, match=r"must be uint8.* got float32"):
        compiled(KEY, jnp.zeros((1, 32, 32, 3), jnp.float32), Augmentation())


def test_alternating_flips_show_each_image_from_both_sides_in_two_epochs():
    indices = jnp.arange(4000)
    first, second, third = (alternating_flips(KEY, indices, jnp.int32(epoch)) for epoch in (0, 1, 2))
    np.testing.assert_array_equal(first, ~second)
    np.testing.assert_array_equal(first, third)
    assert 0.45 < float(first.mean()) < 0.55
    # An image's turn depends neither on its place in the batch nor on its company.
    np.testing.assert_array_equal(alternating_flips(KEY, indices[::-1][:7], jnp.int32(0)), first[::-1][:7])


def test_given_flips_replace_the_draw():
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)), jnp.uint8)
    mirrored = jnp.asarray([True, False, False, True])
    flipped = augment(KEY, images, Augmentation(flip=True), mirrored)
    expected = jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
    np.testing.assert_allclose(flipped, expected / 255, atol=1e-6)
