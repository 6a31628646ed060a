"""The four-block classifier (paper, section 2.5) and its four configurations, in Linen."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.errors import ScopeParamShapeError
from jax import Array

from deepnmf_jax.layers.nmf_layer import spike_key
from deepnmf_jax.models.blocks import BatchNorm, Block
from deepnmf_jax.models.fields import NetworkFields, hashable
from deepnmf_jax.models.parts import Part


class Network(NetworkFields, nn.Module):
    """Blocks in a row; by default the paper's four: the first two pooled, the third over the whole map, the fourth
    with one unit a class. Fields: see `NetworkFields`.
    """

    def __post_init__(self) -> None:
        self.block_settings = hashable(self.block_settings)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Array:
        """images (batch, height, width, channels), float in [0, 1], of any size -> logits (batch, num_classes).

        With `train` the batch's own statistics are used and the running ones updated: pass `mutable=["batch_stats"]`.
        An empty batch gives no logits and leaves the running statistics as they are. With spikes pass
        `rngs={"spikes": key}`.

        Raises:
            ValueError: images of another rank, not float, or (where they are not traced) outside [0, 1]; images of
                another size or of other channels than the variables are for; settings outside what they allow; groups
                that do not divide.
        """

        def normalize(part: Part, x: Array) -> Array:
            # Flax leaves the shapes of statistics unchecked: one channel would be taken as all of them.
            known = self.variables.get("batch_stats", {}).get(part.name)
            if known and known["mean"].shape != x.shape[-1:]:
                raise ValueError(self.refusal(jnp.shape(images), self.variables["params"]))
            return BatchNorm(name=part.name, **part.fields)(x, train=train)

        def block(name: str, fields: dict[str, Any], x: Array) -> Array:
            try:
                return Block(name=name, **fields)(x, train=train)
            except ScopeParamShapeError:
                raise ValueError(self.refusal(jnp.shape(images), self.variables["params"])) from None

        return self.through(images, lambda: spike_key(self, "input_spikes"), normalize, block)


class CNN(Network):
    """Convolutions of normalised patches: what the paper holds CNMF against. Fields: see `Network`."""

    layer: str = "conv"
    mixing: bool = False


class CNMF(Network):
    """NMF layers alone. Fields: see `Network`."""

    layer: str = "nmf"
    mixing: bool = False


class CNN1x1(Network):
    """CNN with a 1x1 convolution after each layer (the paper's "CNN + 1x1"). Fields: see `Network`."""

    layer: str = "conv"
    mixing: bool = True


class CNMF1x1(Network):
    """NMF layers with a 1x1 convolution after each: the paper's best network. Fields: see `Network`."""

    layer: str = "nmf"
    mixing: bool = True
