"""Contrast, saturation and hue of images, as pure functions of arrays (..., height, width, 3) in [0, 1].

The formulas of TensorFlow's and dm_pix's steps of the same names: contrast about each channel's mean, saturation and
hue in HSV. Both of the latter are done on one way to HSV and back.
"""

import jax
import jax.numpy as jnp


def adjust_contrast(images: jax.Array, factor: jax.Array) -> jax.Array:
    """Multiplies the distances from each channel's mean; any number of channels, the result may leave [0, 1]."""
    mean = jnp.mean(images, axis=(-3, -2), keepdims=True)
    return factor * (images - mean) + mean


def adjust_saturation_and_hue(images: jax.Array, factor: jax.Array, turns: jax.Array) -> jax.Array:
    """Multiplies the saturation by `factor`, at most to 1, and turns the hue by `turns` of the colour circle.

    Both broadcast against (..., height, width). By the last bit of rounding the result may leave [0, 1].
    """
    hue, saturation, value = _rgb_to_hsv(images)
    return _hsv_to_rgb(hue + turns, jnp.clip(saturation * factor, 0.0, 1.0), value)


def _rgb_to_hsv(images: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Hue in turns from 0 (red; grey has this one too), saturation and value in [0, 1]: each (..., height, width)."""
    red, green, blue = images[..., 0], images[..., 1], images[..., 2]
    # Not jnp.max along the channels: a reduction over three entries is slow on a CPU.
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    safe = jnp.where(chroma > 0, chroma, 1)
    sixths = jnp.where(
        value == red,
        (green - blue) / safe,
        jnp.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    return sixths / 6, chroma / jnp.where(value > 0, value, 1), value


def _hsv_to_rgb(hue: jax.Array, saturation: jax.Array, value: jax.Array) -> jax.Array:
    turned = 6 * (hue - jnp.floor(hue))

    def channel(start: int) -> jax.Array:
        sixths = turned + start
        sixths = jnp.where(sixths >= 6, sixths - 6, sixths)
        return value * (1 - saturation * jnp.clip(jnp.minimum(sixths, 4 - sixths), 0, 1))

    return jnp.stack([channel(start) for start in (5, 3, 1)], axis=-1)
