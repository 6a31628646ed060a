"""The networks as NNX modules: the layers that `deepnmf_jax.models.parts` asks for, made for images of one shape."""

from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.core import FrozenDict
from jax import Array
from jax.typing import ArrayLike

from deepnmf_jax.core.checks import check_integer
from deepnmf_jax.core.dtypes import promoted
from deepnmf_jax.models.fields import NetworkFields, hashable
from deepnmf_jax.models.images import refusal
from deepnmf_jax.models.parts import BatchNormFields, BlockFields, Part, Parts
from deepnmf_jax.nnx.layers import (
    Keys,
    LocalMixing,
    NMFConv,
    NMFPool,
    NormalizedConv,
    fix_fields,
    own_stream,
    spike_key,
)


class BatchNorm(nnx.BatchNorm):
    """`nnx.BatchNorm` that leaves its statistics as they are for an empty batch, and keeps less for the backward."""

    def __call__(self, x: Array, use_running_average: bool | None = None, *, mask: Array | None = None) -> Array:
        """x (..., channels) -> the same shape, normalised over all axes but the last, then scaled and shifted."""
        still = self.use_running_average if use_running_average is None else use_running_average
        still = bool(still) or 0 in x.shape
        statistics = nnx.state(self, nnx.BatchStat)
        dtype = promoted(x.dtype, *(leaf.dtype for leaf in jax.tree.leaves(statistics)))
        if not still and dtype == jnp.float64:  # Flax would write the wider statistics into narrower ones.
            nnx.update(self, jax.tree.map(lambda leaf: leaf.astype(dtype), statistics))
        # Keeps its input alone for the backward, as the Linen one does.
        return nnx.remat(_normalized, prevent_cse=False, static_argnums=(2,))(self, x, still)


def _normalized(norm: nnx.BatchNorm, x: Array, use_running_average: bool) -> Array:
    y: Array = nnx.BatchNorm.__call__(norm, x, use_running_average)
    return y


def _batch_norm(channels: int, rngs: nnx.Rngs, **settings: Any) -> nnx.Module:
    own = BatchNormFields(**settings)
    if own.statistics == "batch":
        return nnx.LayerNorm(channels, reduction_axes=(0, 1, 2), feature_axes=-1, **own.normalization, rngs=rngs)
    return BatchNorm(channels, momentum=own.momentum, **own.normalization, rngs=rngs)


CONVOLUTIONS = {"NMFConv": NMFConv, "NormalizedConv": NormalizedConv}


def _made(part: Part, rngs: nnx.Rngs) -> nnx.Module:
    """The layer of a part."""
    if part.kind == "BatchNorm":
        return _batch_norm(part.channels, rngs, **part.fields)
    if part.kind == "LocalMixing":
        return LocalMixing(part.channels, **part.fields, rngs=rngs)
    if part.kind == "NMFPool":
        return NMFPool(part.channels, **part.fields, rngs=rngs)
    settings = {name: value for name, value in part.fields.items() if name != "features"}
    return CONVOLUTIONS[part.kind](part.channels, part.fields["features"], **settings, rngs=rngs)


@dataclass(eq=False, repr=False)
class Images:
    """The field that comes first.

    Attributes:
        image_shape: (height, width, channels) of the images that the network is for.
    """

    image_shape: Sequence[int]


@dataclass(eq=False, repr=False)
class Block(BlockFields, Images, nnx.Module):
    """NMF or convolution, batch norm, 1x1 mixing, batch norm, pooling. Fields: see `BlockFields`.

    Attributes:
        rngs: gives the initial values (stream "params") and the keys of spikes (stream "spikes").
    """

    rngs: InitVar[nnx.Rngs] = field(kw_only=True)

    def __post_init__(self, rngs: nnx.Rngs) -> None:
        self.inference, self.batch_norm = FrozenDict(self.inference or {}), FrozenDict(self.batch_norm or {})
        parts = self.parts(self.image_shape)
        for part in (*parts.layers, *parts.pool):
            setattr(self, part.name, _made(part, rngs))
        if parts.residual:
            self.skip = nnx.Param(jnp.ones((self.features,), jnp.float32))
        self.output_shape = parts.output

    def __call__(self, x: Array, *, rngs: Keys = None) -> Array:
        """x (batch, *image_shape) of any sign -> (batch, *output_shape)."""

        def call(part: Part, y: Array) -> Array:
            layer = getattr(self, part.name)
            return layer(y, rngs=rngs) if part.kind in ("NMFConv", "NMFPool") else layer(y)

        return self.through(x, call, lambda: self.skip[...])


@dataclass(eq=False, repr=False)
class Network(NetworkFields, Images, nnx.Module):
    """Blocks in a row; by default the paper's four. Fields: see `NetworkFields`.

    Its layers are `block1.nmf`, `block1.mix`, ... A new network is in training mode, as NNX's are: its batch norms use
    the batch at hand and update their running statistics. `eval()` and `train()` switch.

    Attributes:
        rngs: gives the initial values (stream "params") and the keys of spikes (stream "spikes").

    Raises:
        ValueError: settings outside what they allow, groups that do not divide.
    """

    rngs: InitVar[nnx.Rngs] = field(kw_only=True)

    def __post_init__(self, rngs: nnx.Rngs) -> None:
        self.block_settings = hashable(self.block_settings)
        fix_fields(self)
        if len(self.image_shape) != 3:
            raise ValueError(f"image_shape = {self.image_shape!r}; give (height, width, channels)")
        for side in self.image_shape:
            check_integer("image_shape", side, 1)
        self.check_fields()
        shape = self._preprocessed(self.image_shape)
        if self.preprocessing != "none":
            self.bn_input = _made(self.input_norm(shape[-1]), rngs)
        for i, settings in enumerate(self.block_fields(shape[-1])):
            block = Block(shape, **settings, rngs=rngs)
            setattr(self, f"block{i + 1}", block)
            shape = block.output_shape
        self.spikes = own_stream(rngs) if self.input_spikes else None

    def __call__(self, images: ArrayLike, *, rngs: Keys = None) -> Array:
        """images (batch, *image_shape), float in [0, 1] -> logits (batch, num_classes).

        Images of other sides will do where no layer depends on the size of its map. An empty batch gives no logits and
        leaves the running statistics as they are.

        Args:
            images: of the size that the network was made for.
            rngs: gives the keys of spikes in place of the layers' own streams.

        Raises:
            ValueError: images of another rank, not float, or (where they are not traced) outside [0, 1]; of another
                size or of other channels than the network is for; settings outside what they allow; spikes without a
                key.
        """
        shape, (height, width, channels) = jnp.shape(images), self.image_shape
        # Whitening gives as many components of any channels.
        if (
            len(shape) == 4
            and 0 not in shape[1:]
            and (shape[3] != channels or self._layers(shape[1:]) != self._layers(self.image_shape))
        ):
            raise ValueError(refusal(shape, (height, width, channels), any_channels=False))

        def block(name: str, settings: Mapping[str, Any], x: Array) -> Array:
            output: Array = getattr(self, name)(x, rngs=rngs)
            return output

        def key() -> Array:
            return spike_key("input_spikes", self.input_spikes, self.spikes, rngs)

        return self.through(images, key, lambda part, x: getattr(self, part.name)(x), block)

    def _preprocessed(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Of what goes into the first block."""
        if self.preprocessing != "whitening":
            return tuple(shape)
        _, stride, components = self.whitening
        return shape[0] // stride, shape[1] // stride, components

    def _layers(self, shape: Sequence[int]) -> list[Parts] | None:
        """All layers for images of a shape, but for the sizes of the maps; None where there can be none."""
        found: list[Parts] = []
        shape = self._preprocessed(shape)
        try:
            for settings in self.block_fields(shape[-1]):
                parts = BlockFields(**settings).parts(shape)
                shape = parts.output
                found.append(parts._replace(output=(0, 0, shape[-1])))
        except ValueError:  # groups that do not divide such channels
            return None
        return found


@dataclass(eq=False, repr=False)
class CNN(Network):
    """Convolutions of normalised patches: what the paper holds CNMF against. Fields: see `Network`."""

    layer: str = "conv"
    mixing: bool = False


@dataclass(eq=False, repr=False)
class CNMF(Network):
    """NMF layers alone. Fields: see `Network`."""

    layer: str = "nmf"
    mixing: bool = False


@dataclass(eq=False, repr=False)
class CNN1x1(Network):
    """CNN with a 1x1 convolution after each layer (the paper's "CNN + 1x1"). Fields: see `Network`."""

    layer: str = "conv"
    mixing: bool = True


@dataclass(eq=False, repr=False)
class CNMF1x1(Network):
    """NMF layers with a 1x1 convolution after each: the paper's best network. Fields: see `Network`."""

    layer: str = "nmf"
    mixing: bool = True
