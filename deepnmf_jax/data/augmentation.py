"""Crop, flip, colour jitter and cutout of a batch of images, as pure functions that run inside the jitted step.

Keys come first. Images are NHWC: uint8 in, float32 in [0, 1] out. `colors` has the arithmetic of contrast, saturation
and hue; brightness multiplies, as torchvision's (and so the paper's) does.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from deepnmf_jax.core.checks import check_choice, check_integer, check_number
from deepnmf_jax.data.colors import adjust_contrast, adjust_saturation_and_hue

_CUTOUT = ("cutout_row", "cutout_column")
# Each image draws all of these, used or not, so that switching one setting off leaves the other draws alone, as does a
# name that is added at the end.
_DRAWS = ("top", "left", "flip", "brightness", "contrast", "saturation", "hue", *_CUTOUT)


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What is done to a training image; hashable, so it can be a static argument of `jax.jit`.

    Attributes:
      crop: side of the square window cut out at a random place, in pixels; 0 keeps the whole image.
      flip: mirror left and right, with probability 1/2.
      brightness: b; the image is multiplied by U(max(0, 1 - b), 1 + b).
      contrast: c; distances from each channel's mean are multiplied by U(max(0, 1 - c), 1 + c).
      saturation: s; the saturation in HSV is multiplied by U(max(0, 1 - s), 1 + s).
      hue: t; U(-t, t) is added to the hue in HSV, in turns of the colour circle, so at most 0.5.
      per: "image" draws all of it anew for each image; "batch" once for the whole batch, as the authors'
        code does (MATH 6: crop 28, flip, 0.5, 0.1, 0.1, 0.15).
      alternate: in place of drawing the flip, mirror each image in every second epoch, half of them in the first
        (`alternating_flips`): after two epochs every image has been seen once in each direction.
      pad: width of a border that mirrors the image's edge, in pixels, from which the window may be cut too; training
        only, so that the windows keep the size of the centre crop of evaluation.
      cutout: side of a square, in pixels, that is set to the mean colour of its window; its centre is drawn anywhere in
        the window, so that some of the square may lie outside (DeVries and Taylor 2017, arXiv:1708.04552); 0: none.

    Raises:
      ValueError: a setting is outside its range.
    """

    crop: int = 0
    flip: bool = False
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    per: Literal["image", "batch"] = "image"
    alternate: bool = False
    pad: int = 0
    cutout: int = 0

    def __post_init__(self) -> None:
        for name in ("crop", "pad", "cutout"):
            check_integer(f"augmentation.{name}", getattr(self, name), 0)
        for name in ("brightness", "contrast", "saturation"):
            check_number(f"augmentation.{name}", getattr(self, name), 0)
        check_number("augmentation.hue", self.hue, 0, 0.5)
        check_choice("augmentation.per", self.per, ("image", "batch"))
        if self.pad and not self.crop:
            raise ValueError(f"augmentation.pad = {self.pad} needs a crop: set crop to the side of the window")


def alternating_flips(key: jax.Array, indices: jax.Array, epoch: jax.Array) -> jax.Array:
    """Whether the images `indices` (batch,) of the training set are mirrored in an epoch -> bool (batch,).

    `key` is the same for the whole training and draws which half begins.
    """
    # A stream of its own: the steps' keys are fold_in(key, step).
    key = jax.random.fold_in(key, 2**32 - 1)
    first = jax.vmap(lambda index: jax.random.bernoulli(jax.random.fold_in(key, index)))(indices)
    return first ^ (epoch % 2 == 1)


def augment(
    key: jax.Array, images: jax.Array, augmentation: Augmentation, mirrored: jax.Array | None = None
) -> jax.Array:
    """Augments a batch of training images.

    The order is pad, crop, flip, brightness, contrast, saturation, hue, cutout, with a clip to [0, 1] after each colour
    step that can leave it. torchvision's ColorJitter draws the order of the four colour steps at random,
    takes contrast about the mean grey level of the image, and blends with grey for saturation; here contrast
    is about each channel's mean and saturation is that of HSV, as in TensorFlow. Saturation and hue are
    skipped for images that do not have 3 channels.

    The draws of image i come from `fold_in(key, i)` with i the position in the whole batch, so they do not
    depend on the devices that share it.

    Args:
      key: a key of `jax.random`, one for each step.
      images: uint8 (batch, height, width, channels).
      augmentation: what to do; static under `jax.jit`.
      mirrored: bool (batch,), which images to mirror if `flip` is set; None draws it.

    Returns:
      float32 (batch, crop, crop, channels) in [0, 1]; height and width are kept when crop is 0.

    Raises:
      ValueError: `images` is not a uint8 batch, smaller than the crop, or no larger than the border.
    """
    _check_images(images, augmentation.crop)
    size, pad = augmentation.crop, augmentation.pad
    if pad >= min(images.shape[1:3]):
        raise ValueError(f"augmentation.pad = {pad} must be less than the side of the images, {min(images.shape[1:3])}")
    x = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect") if pad else images
    height, width, channels = x.shape[1:]
    positions = jnp.arange(images.shape[0], dtype=jnp.uint32)
    if augmentation.per == "batch":
        positions = jnp.zeros_like(positions)
    keys = jax.vmap(lambda position: jax.random.fold_in(key, position))(positions)
    drawn = jax.vmap(lambda k: jax.random.uniform(k, (len(_DRAWS),), jnp.float32))(keys)
    draws = dict(zip(_DRAWS, drawn.T, strict=True))  # each (batch,)

    if size:
        top = _integers(draws["top"], height - size + 1)
        left = _integers(draws["left"], width - size + 1)
        x = _crop(x, top, left, size)
    if augmentation.flip:
        x = jnp.where(_per_image(draws["flip"] < 0.5 if mirrored is None else mirrored), x[:, :, ::-1], x)
    x = _jitter(_to_float(x), draws, augmentation, coloured=channels == 3)
    return _cut_out(x, draws, augmentation.cutout) if augmentation.cutout else x


def center_crop(images: jax.Array, crop: int) -> jax.Array:
    """The square window in the middle, for evaluation.

    Args:
      images: uint8 (batch, height, width, channels).
      crop: side in pixels; 0 keeps the whole image.

    Returns:
      float32 (batch, crop, crop, channels) in [0, 1].

    Raises:
      ValueError: as for `augment`.
    """
    check_integer("crop", crop, 0)
    _check_images(images, crop)
    if not crop:
        return _to_float(images)
    top, left = (images.shape[1] - crop) // 2, (images.shape[2] - crop) // 2
    return _to_float(images[:, top : top + crop, left : left + crop])


def _jitter(x: jax.Array, draws: dict[str, jax.Array], augmentation: Augmentation, coloured: bool) -> jax.Array:
    def factor(name: str) -> jax.Array:
        strength = getattr(augmentation, name)
        return _between(draws[name], max(0.0, 1.0 - strength), 1.0 + strength)

    if augmentation.brightness:
        x = jnp.clip(x * _per_image(factor("brightness")), 0.0, 1.0)
    if augmentation.contrast:
        x = jnp.clip(adjust_contrast(x, _per_image(factor("contrast"))), 0.0, 1.0)
    if not (coloured and (augmentation.saturation or augmentation.hue)):
        return x
    turns = _between(draws["hue"], -augmentation.hue, augmentation.hue)
    x = adjust_saturation_and_hue(x, factor("saturation")[:, None, None], turns[:, None, None])
    # Rounding in the way to HSV and back can leave [0, 1] by the last bit.
    return jnp.clip(x, 0.0, 1.0)


def _cut_out(images: jax.Array, draws: dict[str, jax.Array], side: int) -> jax.Array:
    def inside(name: str, length: int) -> jax.Array:
        centre = _integers(draws[name], length)[:, None]
        first = centre - side // 2
        places = jnp.arange(length, dtype=first.dtype)
        return (places >= first) & (places < first + side)  # (batch, length)

    rows, columns = (inside(name, n) for name, n in zip(_CUTOUT, images.shape[1:3], strict=True))
    square = rows[:, :, None, None] & columns[:, None, :, None]
    return jnp.where(square, images.mean(axis=(1, 2), keepdims=True), images)


def _crop(images: jax.Array, top: jax.Array, left: jax.Array, size: int) -> jax.Array:
    window = (size, size, images.shape[-1])
    origin = jnp.zeros((), top.dtype)  # a plain 0 is int64 where x64 is on, and would not mix
    # The fastest of five ways tried on a CPU: 0.1 ms for 128 images, against 1.7 ms with one-hot products.
    return jax.vmap(lambda image, row, column: jax.lax.dynamic_slice(image, (row, column, origin), window))(
        images, top, left
    )


def _to_float(images: jax.Array) -> jax.Array:
    # XLA may turn a division by 255 into this product; written out, the bits are always the same.
    return images.astype(jnp.float32) * np.float32(1 / 255)


def _between(uniform: jax.Array, low: float, high: float) -> jax.Array:
    return low + (high - low) * uniform


def _integers(uniform: jax.Array, count: int) -> jax.Array:
    return jnp.minimum((uniform * count).astype(jnp.int32), count - 1)


def _per_image(values: jax.Array) -> jax.Array:
    return values[:, None, None, None]


def _check_images(images: jax.Array, crop: int) -> None:
    if images.ndim != 4:
        raise ValueError(f"images must have shape (batch, height, width, channels), got {images.shape}")
    if images.dtype != jnp.uint8:
        raise ValueError(f"images must be uint8, as the data sets hold them; got {images.dtype}")
    if crop > min(images.shape[1:3]):
        size = f"{images.shape[1]}x{images.shape[2]}"
        raise ValueError(f"crop {crop} is larger than the images of {size} pixels")
