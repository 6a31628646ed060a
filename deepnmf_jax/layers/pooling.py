"""NMF in place of pooling."""

from collections.abc import Sequence

import flax.linen as nn
from jax import Array

from deepnmf_jax.core.patches import Padding
from deepnmf_jax.layers.conv import NMFConv
from deepnmf_jax.layers.dense import NMFLayer


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
        settings = {name: getattr(self, name) for name in NMFLayer.__annotations__ if name not in ("name", "parent")}
        conv = NMFConv(
            features=inputs.shape[-1],
            kernel_size=tuple(self.window_shape),
            strides=self.strides or tuple(self.window_shape),
            padding=self.padding,
            **settings,
        )
        nn.share_scope(self, conv)
        return conv(inputs)
