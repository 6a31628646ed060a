"""Fixed filters that decorrelate the pixels of natural images."""

from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from deepnmf_jax.core.checks import check_integer
from deepnmf_jax.core.dtypes import floats, plain
from deepnmf_jax.core.patches import extract_patches


@dataclass(eq=False, repr=False)
class WhiteningFields:
    """Cosine components of patches around the pixels, lowest frequencies first.

    Attributes:
        kernel_size: side of the patches.
        strides: pixels between two patches, at most `kernel_size`.
        features: number of components, at most kernel_size * kernel_size * channels.
    """

    kernel_size: int = 3
    strides: int = 1
    features: int = 10

    def components(self, inputs: ArrayLike) -> Array:
        """inputs (batch, height, width, c) -> (batch, height / strides, width / strides, features), of both signs.

        Raises:
            ValueError: strides larger than the kernel, more features than a patch has entries, no room for one, complex
                numbers.
        """
        side = check_integer("kernel_size", self.kernel_size, 1)
        strides = check_integer("strides", self.strides, 1)
        if strides > side:
            raise ValueError(f"strides = {strides} with kernel_size = {side} would skip pixels")
        x = floats("inputs", inputs)
        if x.ndim != 4 or 0 in x.shape[1:]:
            raise ValueError(f"inputs have shape {x.shape}; it must be (batch, height, width, c) without a 0")
        filters = cosine_filters(side, x.shape[-1], plain(self.features))
        margin = side - strides
        pad = (margin // 2, margin - margin // 2)
        padded = jnp.pad(x, [(0, 0), pad, pad, (0, 0)], mode="edge")
        patches = extract_patches(padded, (side, side), strides=strides)
        return patches @ jnp.asarray(filters, x.dtype)


class PatchWhitening(WhiteningFields, nn.Module):
    """Cosine components of patches around the pixels, lowest frequencies first; nothing is trained.

    The principal components of patches of natural images are close to products of cosines along height, width and
    (over grey, red against blue, green against both) colour, so that a batch normalisation of the components, which
    gives each of them variance 1, completes the whitening. The border is continued by its last pixels, kernel_size -
    strides of them on each axis, so that the map shrinks by the factor `strides` alone. Fields: see `WhiteningFields`.
    """

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """inputs (batch, height, width, c) -> (batch, height / strides, width / strides, features), of both signs.

        Raises:
            ValueError: as `WhiteningFields.components`.
        """
        return self.components(inputs)


def cosine_filters(side: int, channels: int, count: int) -> np.ndarray:
    """The `count` components of lowest frequency of the cosine transform (DCT-II) of side x side x channels patches:
    orthonormal columns (side * side * channels, count), entries of a row ordered as those of `extract_patches`.

    Raises:
        ValueError: a count below 1 or above the number of entries.
    """
    entries = side * side * channels
    if not 1 <= count <= entries:
        raise ValueError(f"features = {count}, but patches of {side} x {side} x {channels} have 1 to {entries}")
    frequencies = list(np.ndindex(side, side, channels))
    # Colour last among equals: natural images vary more in brightness.
    frequencies.sort(key=lambda f: (sum(f), f[2], f))
    axes = [_cosines(side), _cosines(side), _cosines(channels)]
    columns = [np.einsum("a,b,c->abc", *(axis[f] for axis, f in zip(axes, fs, strict=True))) for fs in frequencies]
    return np.stack([column.ravel() for column in columns[:count]], axis=1)


def _cosines(size: int) -> np.ndarray:
    """Orthonormal rows cos(pi (s + 1/2) f / size), frequency f = 0 ... size - 1."""
    rows = np.cos(np.pi * np.outer(np.arange(size), np.arange(size) + 0.5) / size)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
