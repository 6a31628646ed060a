"""The module that the network is built of (paper, figure 3 b to e), in Linen."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from deepnmf_jax.layers import LocalMixing, NMFConv, NMFPool, NormalizedConv
from deepnmf_jax.models.parts import BatchNormFields, BlockFields, Part


class BatchNorm(BatchNormFields, nn.Module):
    """Batch normalisation with running statistics, or with those of the batch at hand in evaluation too.

    Fields: see `BatchNormFields`.
    """

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """x (..., channels) -> the same shape, normalised over all axes but the last, then scaled and shifted."""
        norm: nn.Module
        if self.statistics == "batch":
            norm = nn.LayerNorm(reduction_axes=tuple(range(x.ndim - 1)), feature_axes=-1, **self.normalization)
            nn.share_scope(self, norm)
            return norm(x)
        # An empty batch has no statistics.
        train = bool(train) and 0 not in x.shape
        # Keeps its input alone for the backward, which an NMF layer below keeps in any case, and not twice the
        # difference to the mean, which is cheap to compute anew. Where forward and backward are one program, XLA may
        # still share what they have in common.
        norm = nn.remat(nn.BatchNorm, prevent_cse=False)(
            use_running_average=not train, momentum=self.momentum, **self.normalization
        )
        nn.share_scope(self, norm)
        return norm(x)


LAYERS: dict[str, type[nn.Module]] = {
    "NMFConv": NMFConv,
    "NMFPool": NMFPool,
    "NormalizedConv": NormalizedConv,
    "LocalMixing": LocalMixing,
}


class Block(BlockFields, nn.Module):
    """NMF or convolution, batch norm, 1x1 mixing, batch norm, pooling. Fields: see `BlockFields`."""

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """x (batch, height, width, channels) of any sign -> (batch, height', width', features)."""

        def call(part: Part, y: Array) -> Array:
            if part.kind == "BatchNorm":
                return BatchNorm(name=part.name, **part.fields)(y, train=train)
            return LAYERS[part.kind](name=part.name, **part.fields)(y)

        return self.through(x, call, lambda: self.param("skip", nn.initializers.ones, (self.features,), jnp.float32))
