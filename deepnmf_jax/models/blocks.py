"""The module that the network is built of (paper, figure 3 b to e)."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from deepnmf_jax.layers import LocalMixing, NMFConv, NMFPool, NormalizedConv


class BatchNorm(nn.Module):
    """Batch normalisation with running statistics, or with those of the batch at hand in evaluation too.

    Attributes:
        statistics: "running" (moving averages, used where `train` is false) or "batch" (as in the authors' code,
            where the accuracy depends on which images share a batch).
        momentum: of the moving averages: the share of the old value that is kept at each step.
        affine: whether a trainable scale and offset follow.
    """

    statistics: str = "running"
    momentum: float = 0.9
    affine: bool = True

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """x (..., channels) -> the same shape, normalised over all axes but the last, then scaled and shifted."""
        # The variance before the first normalisation is about 1e-5, the square of the mean 1e-3: E[x^2] - E[x]^2
        # would lose it.
        settings: dict[str, Any] = {
            "epsilon": 1e-5, "use_fast_variance": False, "use_scale": self.affine, "use_bias": self.affine
        }  # fmt: skip
        norm: nn.Module
        if self.statistics == "batch":
            norm = nn.LayerNorm(reduction_axes=tuple(range(x.ndim - 1)), feature_axes=-1, **settings)
            nn.share_scope(self, norm)
            return norm(x)
        # An empty batch has no statistics.
        train = bool(train) and 0 not in x.shape
        # Keeps its input alone for the backward, which an NMF layer below keeps in any case, and not twice the
        # difference to the mean, which is cheap to compute anew. Where forward and backward are one program, XLA may
        # still share what they have in common.
        norm = nn.remat(nn.BatchNorm, prevent_cse=False)(
            use_running_average=not train, momentum=self.momentum, **settings
        )
        nn.share_scope(self, norm)
        return norm(x)


class Block(nn.Module):
    """NMF or convolution, batch norm, 1x1 mixing, batch norm, pooling. Each layer starts with a ReLU of its own.

    Attributes:
        features: output channels.
        kernel_size: of the first layer; one larger than the map is cut to the map.
        padding: of the first layer, "VALID" or "SAME".
        layer: "nmf" or "conv".
        mixing: whether a `LocalMixing` follows.
        split: whether the positive and the negative part of the input are coded side by side, as twice as many
            channels, in place of the positive part alone.
        residual: whether the input, times a trainable positive number a channel, is added before the pooling, where
            shapes allow.
        pooling: "average", "max", "nmf", "conv" (learned, with batch norm) or "none"; 2x2, on maps of at least 2x2.
        groups: of channels, of the first layer.
        mixing_groups: of channels, of the `LocalMixing`.
        use_bias: of the first layer, if it is a convolution.
        batch_norm: settings of `BatchNorm`, which stands where the map is larger than one position.
        nmf: settings of the NMF layers, those of `deepnmf_jax.infer` and `local_learning`.
    """

    features: int
    kernel_size: Sequence[int]
    padding: str = "VALID"
    layer: str = "nmf"
    mixing: bool = True
    split: bool = False
    residual: bool = False
    pooling: str = "none"
    groups: int = 1
    mixing_groups: int = 1
    use_bias: bool = True
    batch_norm: Mapping[str, Any] | None = None
    nmf: Mapping[str, Any] | None = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """x (batch, height, width, channels) of any sign -> (batch, height', width', features)."""
        kernel = tuple(min(k, size) for k, size in zip(self.kernel_size, x.shape[1:3], strict=True))
        shape: dict[str, Any] = {
            "features": self.features,
            "kernel_size": kernel,
            "padding": self.padding,
            "feature_group_count": self.groups,
        }
        y = jnp.concatenate([x, -x], axis=-1) if self.split else x
        if self.layer == "nmf":
            y = NMFConv(**shape, name="nmf", **(self.nmf or {}))(y)
        else:
            y = NormalizedConv(**shape, use_bias=self.use_bias, name="conv")(y)
        y = self._normalize(y, "bn_a", train)
        if self.mixing:
            y = self._normalize(LocalMixing(feature_group_count=self.mixing_groups, name="mix")(y), "bn_b", train)
        if self.residual and y.shape == x.shape:
            skip = self.param("skip", nn.initializers.ones, (self.features,), jnp.float32)
            y = y + (jnp.sign(skip) * skip).reshape(1, 1, 1, -1) * x
        return self._pool(y, train)

    def _normalize(self, x: Array, name: str, train: bool) -> Array:
        if x.shape[1:3] == (1, 1):
            return x
        return BatchNorm(name=name, **(self.batch_norm or {}))(x, train=train)

    def _pool(self, x: Array, train: bool) -> Array:
        if self.pooling == "none" or min(x.shape[1:3]) < 2:
            return x
        if self.pooling == "average":
            # nn.avg_pool divides by an integer, which JAX's strict promotion of types refuses.
            return nn.pool(x, 0.0, jax.lax.add, (2, 2), (2, 2), "VALID") / 4
        if self.pooling == "max":
            return nn.max_pool(x, (2, 2), strides=(2, 2))
        if self.pooling == "nmf":
            x = NMFPool(name="pool", **(self.nmf or {}))(x)
        else:
            x = NormalizedConv(x.shape[-1], (2, 2), strides=2, use_bias=False, name="pool")(x)
        return self._normalize(x, "bn_pool", train)
