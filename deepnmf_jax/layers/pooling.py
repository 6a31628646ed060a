"""NMF in place of pooling."""

import flax.linen as nn
from jax import Array

from deepnmf_jax.layers.fields import PoolFields
from deepnmf_jax.layers.nmf_layer import NMFLayer


class NMFPool(NMFLayer, PoolFields):
    """Pooling by NMF: each window of all channels is coded by as many units as there are channels (authors' code).

    Fields: see `PoolFields` and `NMFFields`.
    """

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """inputs (..., *spatial, c) of any sign -> (..., *positions, c), summing to 1 over the channels.

        Raises:
            ValueError: settings outside what they allow, a window larger than the map, inputs without channels or of
                complex numbers.
        """
        windows = self.windows(inputs)
        return self.activity(windows, self.channels(windows))
