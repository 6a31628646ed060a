"""Images to patches, features last."""

import itertools
import math
from collections.abc import Sequence
from typing import Any, TypeGuard

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from deepnmf_jax.core.dtypes import plain

Padding = str | int | Sequence[int | tuple[int, int]]


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether it is a whole number of Python or numpy; truth values are none."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def has_axes(value: Any) -> TypeGuard[Sequence[Any]]:
    """Whether it is a sequence or an array of one entry an axis; an array without axes is a number."""
    return isinstance(value, Sequence) or (isinstance(value, np.ndarray) and value.ndim > 0)


def per_axis(name: str, value: int | Sequence[int] | None, rank: int, default: int = 1) -> tuple[int, ...]:
    """One positive number for each of `rank` spatial axes. ValueError if there are more, fewer, or a smaller one."""
    if value is None:
        value = default
    values: tuple[Any, ...] = tuple(map(plain, value)) if has_axes(value) else (plain(value),) * rank
    if len(values) != rank or not all(is_whole(v) and v >= 1 for v in values):
        raise ValueError(f"{name} = {value!r}, but it must be one positive number for each of {rank} spatial axes")
    return tuple(int(v) for v in values)


def pads(
    padding: Padding, size: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilation: Sequence[int]
) -> list[tuple[int, int]]:
    """Rows to add (before, after) on each spatial axis: "SAME", "VALID", a number, or one number or pair an axis."""
    window = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    if isinstance(padding, str):
        if padding not in ("SAME", "VALID"):
            raise ValueError(f"padding = {padding!r}; use 'SAME', 'VALID', a number, or one number or pair an axis")
        return [(int(a), int(b)) for a, b in lax.padtype_to_pads(size, window, strides, padding)]
    entries = list(padding) if has_axes(padding) else [plain(padding)] * len(kernel)
    pairs: list[tuple[Any, ...]] = [tuple(p) if has_axes(p) else (p, p) for p in entries]
    if len(pairs) != len(kernel) or any(len(p) != 2 or not all(is_whole(n) and n >= 0 for n in p) for p in pairs):
        raise ValueError(
            f"padding = {padding!r}; use non-negative numbers or pairs, one for each of {len(kernel)} axes"
        )
    return [(int(before), int(after)) for before, after in pairs]


def extract_patches(
    images: Array,
    kernel_size: int | Sequence[int],
    *,
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    kernel_dilation: int | Sequence[int] | None = None,
) -> Array:
    """All patches of `images` (..., *spatial, c), zero-padded -> (..., *positions, prod(kernel_size) * c).

    `kernel_size` has one number a spatial axis; an integer is one axis, as in Flax. Sizes that `jax.export` leaves open
    are taken to be large enough. Entries of a patch are ordered (kernel position, channel), as in a flattened HWIO
    kernel. Built of shifted slices: their transpose on a CPU costs a tenth of that of
    `lax.conv_general_dilated_patches`.

    Raises:
        ValueError: too few axes, settings of another length than `kernel_size`, or a kernel larger than the map.
    """
    images = jnp.asarray(images)
    rank = len(kernel_size) if has_axes(kernel_size) else 1
    kernel = per_axis("kernel_size", kernel_size, rank)
    if images.ndim < rank + 1:
        raise ValueError(
            f"images have shape {images.shape}; a kernel of size {kernel} needs {rank} spatial axes and channels"
        )
    strides = per_axis("strides", strides, rank)
    dilation = per_axis("kernel_dilation", kernel_dilation, rank)
    lead = images.ndim - 1 - rank
    margins = pads(padding, images.shape[lead:-1], kernel, strides, dilation)
    if any(a or b for a, b in margins):
        images = jnp.pad(images, [(0, 0)] * lead + margins + [(0, 0)])
    size = images.shape[lead:-1]
    positions = [(s - (k - 1) * d - 1) // st + 1 for s, k, st, d in zip(size, kernel, strides, dilation, strict=True)]
    if any(isinstance(p, int) and p < 1 for p in positions):
        raise ValueError(f"kernel_size = {kernel} with dilation {dilation} does not fit a padded map of size {size}")
    if not all(isinstance(side, int) for side in size):
        return _convolved_patches(images, kernel, strides, dilation)
    if kernel == size and set(dilation) == {1}:
        return images.reshape(*images.shape[:lead], *positions, math.prod(kernel) * images.shape[-1])
    shifts = []
    for offset in itertools.product(*map(range, kernel)):
        start = [o * d for o, d in zip(offset, dilation, strict=True)]
        stop = [a + (p - 1) * st + 1 for a, p, st in zip(start, positions, strides, strict=True)]
        shifts.append(
            lax.slice(
                images,
                [0] * lead + start + [0],
                [*images.shape[:lead], *stop, images.shape[-1]],
                [1] * lead + list(strides) + [1],
            )
        )
    return jnp.concatenate(shifts, axis=-1)


def _convolved_patches(images: Array, kernel: Sequence[int], strides: Sequence[int], dilation: Sequence[int]) -> Array:
    """The patches of padded maps with sides that `jax.export` leaves open, of which slices cannot be taken."""
    lead, channels = images.shape[: images.ndim - 1 - len(kernel)], images.shape[-1]
    axes = "WHD"[: len(kernel)]
    patches = lax.conv_general_dilated_patches(
        images.reshape(math.prod(lead), *images.shape[len(lead) :]),
        kernel,
        strides,
        "VALID",
        rhs_dilation=dilation,
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
        precision=lax.Precision.HIGHEST,
    )
    positions = patches.shape[1:-1]
    by_channel = patches.reshape(*lead, *positions, channels, math.prod(kernel))
    return jnp.swapaxes(by_channel, -1, -2).reshape(*lead, *positions, -1)


def split_groups(patches: Array, kernel_positions: int, groups: int) -> Array:
    """Channels of patches (..., positions * c) in contiguous parts -> (..., groups, positions * c / groups)."""
    *lead, n = patches.shape
    channels = n // kernel_positions
    split = patches.reshape(*lead, kernel_positions, groups, channels // groups)
    return jnp.moveaxis(split, -2, -3).reshape(*lead, groups, n // groups)
