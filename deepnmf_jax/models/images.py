"""What a network says of images that it cannot take: which shape is wanted, and how to get there."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from deepnmf_jax.core.checks import is_concrete

# Sides and channels that are tried to find the images that a network's variables are for.
MOST_PIXELS, CHANNELS = 1024, (3, 1, 2, 4, *range(5, 65))


def check_images(images: Array) -> None:
    """ValueError for images that are no batch, not float, or (where they are not traced) outside [0, 1]."""
    if images.ndim != 4:
        hint = {3: ": images[None] is a batch of one, images[..., None] of grey images"}.get(images.ndim, "")
        raise ValueError(f"images have shape {images.shape}; they must be (batch, height, width, channels){hint}")
    if 0 in images.shape[1:]:
        raise ValueError(f"images have shape {images.shape}; no axis but the first may be empty")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images have dtype {images.dtype}; they must be float in [0, 1] (divide 8-bit images by 255)")
    if not is_concrete(images):
        return
    # numpy, because jax would trace the comparison of an image that a jitted function closes over.
    values = np.asarray(images, np.float32)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"images range from {values.min():.3g} to {values.max():.3g}; they must lie in [0, 1]")


class BlockShape(NamedTuple):
    """What decides on the shape of a block's first weights and of its output."""

    kernel: int  # side; 0 is the whole map
    same: bool  # whether it is padded so that the map keeps its size
    split: bool
    groups: int
    features: int
    pooled: bool


def patch_sizes(blocks: Sequence[BlockShape], shape: tuple[int, int, int]) -> list[int]:
    """Entries of a patch of one group, block by block, for what goes into the first block (height, width, c)."""
    height, width, channels = shape
    found = []
    for block in blocks:
        rows, columns = min(block.kernel or height, height), min(block.kernel or width, width)
        found.append(rows * columns * channels * (1 + block.split) // block.groups)
        if not block.same:
            height, width = height - rows + 1, width - columns + 1
        if block.pooled and min(height, width) >= 2:
            height, width = height // 2, width // 2
        channels = block.features
    return found


def wanted_images(
    blocks: Callable[[int], Sequence[BlockShape]],
    params: Mapping[str, Any],
    given: tuple[int, int, int],
    stride: int,
    components: int | None,
) -> tuple[int, int, int] | None:
    """The smallest square images (height, width, c) that fit the variables of a network.

    Args:
        blocks: the blocks' shapes, by the channels of what goes into the first.
        params: of the network, one entry a block.
        given: the images that came.
        stride: of the filters before the first block.
        components: channels that these filters give; None where there are none.

    Returns:
        None where no images fit, or those that came do: then the variables are of another network.
    """
    layers = [params[name] for name in sorted(params, key=lambda name: (len(name), name)) if name.startswith("block")]
    weights = [layer["nmf"]["u"] if "nmf" in layer else layer["conv"]["kernel"] for layer in layers]
    entries = [weight.shape[1] for weight in weights]
    units = [weight.shape[0] * (1 if weight.ndim == 2 else weight.shape[2]) for weight in weights]

    def sizes(side: tuple[int, int], channels: int) -> list[int]:
        height, width = (pixels // stride for pixels in side)
        return patch_sizes(blocks(channels), (height, width, channels)) if height and width else []

    for c in CHANNELS if components is None else (components,):
        try:
            if [block.features for block in blocks(c)] != units:
                return None
        except ValueError:  # groups that do not divide so many channels
            continue
        if c == (components or given[2]) and sizes(given[:2], c) == entries:
            return None
        for side in range(stride, MOST_PIXELS + 1):
            found = sizes((side, side), c)
            if found == entries:
                return side, side, c
            if any(size > weight for size, weight in zip(found, entries, strict=True)):
                break
    return None


def refusal(shape: tuple[int, ...], wanted: tuple[int, int, int] | None, any_channels: bool) -> str:
    """The sentence that says which images a network's variables are for, what came, and what to do."""
    if wanted is None:
        return (
            f"images have shape {shape}, for which the network's layers have other shapes than its variables: "
            "use images as in its training, and its settings"
        )
    side, _, c = wanted
    given = "c" if any_channels else c
    sentence = f"images have shape {shape}, but the network's variables are for (batch, {side}, {side}, {given})"
    height, width, channels = shape[1:]
    if not any_channels and height == c != channels:
        return f"{sentence}: put the channels last, jnp.moveaxis(images, 1, -1)"
    if not any_channels and channels == 1 < c:
        return f"{sentence}: of grey images repeat the channel, jnp.repeat(images, {c}, axis=-1)"
    if not any_channels and channels != c:
        return f"{sentence}: give {c} channels"
    if min(height, width) >= side:
        return (
            f"{sentence}: cut them, for example by deepnmf_jax.data.augmentation.center_crop(images, {side}), which "
            "takes uint8 images and gives floats in [0, 1]"
        )
    return f"{sentence}: enlarge them, for example by jax.image.resize"
