"""NMF in place of pooling."""

from collections.abc import Sequence

import flax.linen as nn
from jax import Array

from deepnmf_jax.core.dtypes import plain
from deepnmf_jax.core.patches import Padding, extract_patches, has_axes
from deepnmf_jax.layers.nmf_layer import NMFLayer, rectified


class NMFPool(NMFLayer):
    """Pooling by NMF: each window of all channels is coded by as many units as there are channels (authors' code).

    Other fields: see `NMFLayer`.

    Attributes:
        window_shape: of the windows, one number a spatial axis; an integer is both sides of a square.
        strides: None is the window's shape, so that windows do not overlap.
        padding: as in `NMFConv`.
    """

    window_shape: int | Sequence[int] = (2, 2)
    strides: int | Sequence[int] | None = None
    padding: Padding = "VALID"

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """inputs (..., *spatial, c) of any sign -> (..., *positions, c), summing to 1 over the channels.

        Raises:
            ValueError: settings outside what they allow, a window larger than the map, inputs without channels or of
                complex numbers.
        """
        given = self.window_shape
        window = tuple(given) if has_axes(given) else (plain(given),) * 2
        strides = window if self.strides is None else self.strides
        x = rectified(inputs, axes=len(window) + 1)
        patches = extract_patches(x, window, strides=strides, padding=self.padding)
        return self.activity(patches[..., None, :], x.shape[-1])
