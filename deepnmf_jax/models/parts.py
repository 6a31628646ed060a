"""A block of the network in whichever of Flax's interfaces: which layers it has, and the way through them.

`models.blocks` (Linen) and `deepnmf_jax.nnx` make the layers; what they are and in which order is said here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array


@dataclass(eq=False, repr=False)
class BatchNormFields:
    """Batch normalisation with running statistics, or with those of the batch at hand in evaluation too.

    Attributes:
        statistics: "running" (moving averages, used in evaluation) or "batch" (as in the authors' code, where the
            accuracy depends on which images share a batch).
        momentum: of the moving averages: the share of the old value that is kept at each step.
        affine: whether a trainable scale and offset follow.
    """

    statistics: str = "running"
    momentum: float = 0.9
    affine: bool = True

    @property
    def normalization(self) -> dict[str, Any]:
        """What Flax's layers of normalisation are given."""
        # The variance before the first normalisation is about 1e-5, the square of the mean 1e-3: E[x^2] - E[x]^2
        # would lose it.
        return {"epsilon": 1e-5, "use_fast_variance": False, "use_scale": self.affine, "use_bias": self.affine}


class Part(NamedTuple):
    """One layer: its name in the block, its class, the channels of its input, and its fields by their Linen names."""

    name: str
    kind: str  # "NMFConv", "NormalizedConv", "LocalMixing", "NMFPool" or "BatchNorm"
    channels: int
    fields: dict[str, Any]


class Parts(NamedTuple):
    """The layers of a block for inputs of one shape."""

    layers: list[Part]  # before the pooling
    residual: bool  # whether the input is added behind them
    pooling: str  # "average", "max", "layers" or "none"
    pool: list[Part]  # of "layers"
    output: tuple[int, int, int]  # height, width, channels


@dataclass(eq=False, repr=False)
class BlockFields:
    """NMF or convolution, batch norm, 1x1 mixing, batch norm, pooling. Each layer starts with a ReLU of its own.

    Attributes:
        features: output channels.
        kernel_size: of the first layer; 0 is the whole map, and one larger than the map is cut to the map.
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
        inference: settings of the NMF layers, those of `deepnmf_jax.infer` and `local_learning`.
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
    inference: Mapping[str, Any] | None = None

    def parts(self, shape: Sequence[int]) -> Parts:
        """The layers for inputs of the shape (height, width, channels)."""
        *size, channels = shape
        kernel = tuple(min(k or side, side) for k, side in zip(self.kernel_size, size, strict=True))
        fields: dict[str, Any] = {
            "features": self.features,
            "kernel_size": kernel,
            "padding": self.padding,
            "feature_group_count": self.groups,
        }
        inputs = channels * (1 + self.split)
        if self.layer == "nmf":
            layers = [Part("nmf", "NMFConv", inputs, {**fields, **(self.inference or {})})]
        else:
            layers = [Part("conv", "NormalizedConv", inputs, {**fields, "use_bias": self.use_bias})]
        if self.padding == "VALID":
            size = [side - k + 1 for side, k in zip(size, kernel, strict=True)]
        layers += self._norm("bn_a", size)
        if self.mixing:
            layers.append(Part("mix", "LocalMixing", self.features, {"feature_group_count": self.mixing_groups}))
            layers += self._norm("bn_b", size)
        residual = self.residual and (*size, self.features) == tuple(shape)
        pooling, pool = "none", []
        if self.pooling != "none" and min(size) >= 2:
            size = [side // 2 for side in size]
            pooling = self.pooling if self.pooling in ("average", "max") else "layers"
            pool = [] if pooling != "layers" else [self._learned_pooling(), *self._norm("bn_pool", size)]
        height, width = size
        return Parts(layers, residual, pooling, pool, (height, width, self.features))

    def _norm(self, name: str, size: Sequence[int]) -> list[Part]:
        if tuple(size) == (1, 1):
            return []
        return [Part(name, "BatchNorm", self.features, dict(self.batch_norm or {}))]

    def _learned_pooling(self) -> Part:
        if self.pooling == "nmf":
            return Part("pool", "NMFPool", self.features, dict(self.inference or {}))
        fields = {"features": self.features, "kernel_size": (2, 2), "strides": 2, "use_bias": False}
        return Part("pool", "NormalizedConv", self.features, fields)

    def through(self, x: Array, call: Callable[[Part, Array], Array], skip: Callable[[], Array]) -> Array:
        """The output of the block for x (batch, height, width, channels).

        Args:
            x: of any sign.
            call: gives the output of a layer.
            skip: gives the number a channel that the input is multiplied by, where it is added.
        """
        parts = self.parts(x.shape[1:])
        y = jnp.concatenate([x, -x], axis=-1) if self.split else x
        for part in parts.layers:
            y = call(part, y)
        if parts.residual:
            weight = skip()
            y = y + (jnp.sign(weight) * weight).reshape(1, 1, 1, -1) * x
        if parts.pooling == "average":
            # nn.avg_pool divides by an integer, which JAX's strict promotion of types refuses.
            return nn.pool(y, 0.0, jax.lax.add, (2, 2), (2, 2), "VALID") / 4
        if parts.pooling == "max":
            return nn.max_pool(y, (2, 2), strides=(2, 2))
        for part in parts.pool:
            y = call(part, y)
        return y
