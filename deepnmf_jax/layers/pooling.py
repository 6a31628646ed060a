"""NMF in place of pooling."""

from collections.abc import Sequence

import flax.linen as nn
import jax
from jax import Array

from deepnmf_jax.core.patches import Padding, extract_patches
from deepnmf_jax.layers.nmf_layer import NMFLayer


class NMFPool(NMFLayer):
    """Pooling by NMF: each window of all channels is coded by as many units as there are channels (authors' code).

    Other fields: see `NMFLayer`.

    Attributes:
        window_shape: of the windows, one number a spatial axis.
        strides: None is the window's shape, so that windows do not overlap.
        padding: as in `NMFConv`.
    """

    window_shape: Sequence[int] = (2, 2)
    strides: int | Sequence[int] | None = None
    padding: Padding = "VALID"

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """inputs (..., *spatial, c) of any sign -> (..., *positions, c), summing to 1 over the channels.

        Raises:
            ValueError: settings outside what they allow, or a window larger than the map.
        """
        window = tuple(self.window_shape)
        patches = extract_patches(jax.nn.relu(inputs), window, strides=self.strides or window, padding=self.padding)
        return self.activity(patches[..., None, :], inputs.shape[-1])
