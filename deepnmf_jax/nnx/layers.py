"""The layers as NNX modules: parameters and random keys around what `deepnmf_jax.layers.fields` computes."""

import math
from dataclasses import InitVar, dataclass, field, fields
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from deepnmf_jax.core import initializers
from deepnmf_jax.core.checks import check_integer
from deepnmf_jax.core.dtypes import plain
from deepnmf_jax.core.patches import has_axes, per_axis
from deepnmf_jax.layers.fields import (
    ConvFields,
    MixingFields,
    NMFFields,
    NormalizedConvFields,
    PoolFields,
    rectified,
)
from deepnmf_jax.layers.whitening import WhiteningFields

# Where keys come from: a container of streams, one of its streams, or the key itself.
Keys = nnx.Rngs | nnx.RngStream | Array | None


@dataclass(eq=False, repr=False)
class Inputs:
    """The field that comes first.

    Attributes:
        in_features: channels of the input, its last axis.
    """

    in_features: int


@dataclass(eq=False, repr=False)
class InputsAndOutputs(Inputs):
    """The fields that come first.

    Attributes:
        in_features: channels of the input, its last axis.
        out_features: channels of the output; of an NMF layer, the number of units k.
    """

    out_features: int


def fix_fields(module: Any) -> None:
    """Makes constants of a module's fields: sequences tuples, because they must be hashable, and scalars of numpy and
    JAX Python's numbers, because arrays would belong to the module's state."""
    for each in fields(module):
        value = _fixed(getattr(module, each.name))
        # NNX remembers of an attribute that it was an array.
        delattr(module, each.name)
        setattr(module, each.name, value)


def _fixed(value: Any) -> Any:
    return tuple(map(_fixed, value)) if has_axes(value) and not isinstance(value, str) else plain(value)


def own_stream(rngs: nnx.Rngs) -> nnx.Rngs | None:
    """A stream "spikes" of a module's own, begun with a key of the given one; None where there is none to give it."""
    try:
        return nnx.Rngs(spikes=rngs.spikes())
    except AttributeError:
        return None


def spike_key(name: str, number: int, own: nnx.Rngs | None, rngs: Keys) -> Array:
    """The next key for the `number` of spikes that the field `name` asks for: from `rngs`, or else from `own`.

    Raises:
        ValueError: neither is there.
    """
    source = own if rngs is None else rngs
    if isinstance(source, nnx.Rngs):
        key: Array = source.spikes()
        return key
    if isinstance(source, nnx.RngStream):
        return source()
    if source is None:
        raise ValueError(
            f"{name} = {number}, but there is no key for the spikes; make the module with rngs=nnx.Rngs(0, spikes=1), "
            "or pass rngs=nnx.Rngs(spikes=1) when calling it"
        )
    return source


def _check_channels(inputs: ArrayLike, in_features: int) -> None:
    shape = jnp.shape(inputs)
    if shape[-1:] != (in_features,):
        raise ValueError(f"inputs have shape {shape}; the last axis must have in_features = {in_features} entries")


def _entries(layer: ConvFields, in_features: int, groups: int) -> int:
    """Of a patch of one group."""
    rank = len(layer.kernel_size) if has_axes(layer.kernel_size) else 1
    return math.prod(per_axis("kernel_size", layer.kernel_size, rank)) * in_features // groups


@dataclass(eq=False, repr=False)
class NMFLayer(NMFFields, nnx.Module):
    """A layer whose outputs are NMF codes. Its fields: see `NMFFields` and `InferenceFields`.

    Attributes:
        rngs: gives the initial u (stream "params") and, with num_spikes, the keys of the spikes (stream "spikes").
    """

    rngs: InitVar[nnx.Rngs] = field(kw_only=True)

    def start(self, features: int, groups: int, n: int, rngs: nnx.Rngs) -> None:
        """Checks the fields and makes the parameter u (features, n)."""
        self.check_fields(features, groups)
        self.u = nnx.Param(self.u_init(rngs.params(), (features, n), self.param_dtype))
        self.spikes = own_stream(rngs) if self.num_spikes else None

    def activity(self, patches: Array, rngs: Keys) -> Array:
        """NMF code of non-negative patches (..., groups, n), each group on its own -> (..., features)."""
        u = self.u[...]
        self.check_fields(u.shape[0], patches.shape[-2])
        key = spike_key("num_spikes", self.num_spikes, self.spikes, rngs) if self.num_spikes else None
        return self.codes(patches, u, key)


@dataclass(eq=False, repr=False)
class NMFDense(NMFLayer, InputsAndOutputs):
    """NMF code of a feature vector: ReLU, sum 1, inference (paper, section 2.2).

    The parameter u has shape (out_features, in_features). Other fields: see `NMFFields`.

    Raises:
        ValueError: settings outside what they allow.
    """

    def __post_init__(self, rngs: nnx.Rngs) -> None:
        fix_fields(self)
        check_integer("in_features", self.in_features, 1)
        self.start(self.out_features, 1, self.in_features, rngs)

    def __call__(self, inputs: ArrayLike, *, rngs: Keys = None) -> Array:
        """inputs (..., in_features) of any sign -> activities (..., out_features), non-negative, summing to 1 (0
        without input).

        Args:
            inputs: real numbers in any unit.
            rngs: gives the key of the spikes in place of the layer's own stream: an `nnx.Rngs`, a stream, or a key.

        Raises:
            ValueError: settings outside what they allow; inputs of other channels, or of complex numbers; num_spikes
                without a key.
        """
        _check_channels(inputs, self.in_features)
        return self.activity(rectified(inputs)[..., None, :], rngs)


@dataclass(eq=False, repr=False)
class NMFConv(NMFLayer, ConvFields, InputsAndOutputs):
    """Convolutional NMF: every patch of the input has its own NMF code (paper, section 2.4.1).

    ReLU, patches, sum 1, inference. The parameter u has shape (out_features, prod(kernel_size) * in_features /
    feature_group_count), ordered like a flattened HWIO kernel. The codes of several groups share a total of 1. Fields
    of the patches: see `ConvFields`; other fields: see `NMFFields`.

    Raises:
        ValueError: settings outside what they allow, groups that do not divide.
    """

    def __post_init__(self, rngs: nnx.Rngs) -> None:
        fix_fields(self)
        check_integer("in_features", self.in_features, 1)
        groups = self.check_groups(self.out_features, self.in_features)
        self.start(self.out_features, groups, _entries(self, self.in_features, groups), rngs)

    def __call__(self, inputs: ArrayLike, *, rngs: Keys = None) -> Array:
        """inputs (..., *spatial, in_features) of any sign -> activities (..., *positions, out_features).

        They sum to 1 over the features, or are 0 where the patch is black. `rngs`: as in `NMFDense`.

        Raises:
            ValueError: settings outside what they allow, a kernel larger than the map, inputs of other channels or of
                complex numbers; num_spikes without a key.
        """
        _check_channels(inputs, self.in_features)
        return self.activity(self.grouped_patches(inputs, self.out_features), rngs)


@dataclass(eq=False, repr=False)
class NMFPool(NMFLayer, PoolFields, Inputs):
    """Pooling by NMF: each window of all channels is coded by as many units as there are channels (authors' code).

    The parameter u has shape (in_features, prod(window_shape) * in_features). Fields of the windows: see `PoolFields`;
    other fields: see `NMFFields`.

    Raises:
        ValueError: settings outside what they allow.
    """

    def __post_init__(self, rngs: nnx.Rngs) -> None:
        fix_fields(self)
        check_integer("in_features", self.in_features, 1)
        entries = math.prod(per_axis("window_shape", self.window, len(self.window)))
        self.start(self.in_features, 1, entries * self.in_features, rngs)

    def __call__(self, inputs: ArrayLike, *, rngs: Keys = None) -> Array:
        """inputs (..., *spatial, in_features) of any sign -> (..., *positions, in_features), summing to 1.

        `rngs`: as in `NMFDense`.

        Raises:
            ValueError: settings outside what they allow, a window larger than the map, inputs of other channels or of
                complex numbers; num_spikes without a key.
        """
        _check_channels(inputs, self.in_features)
        return self.activity(self.windows(inputs), rngs)


@dataclass(eq=False, repr=False)
class LocalMixing(MixingFields, Inputs, nnx.Module):
    """The 1x1 convolution after an NMF layer: weights of both signs among the features of one position (paper, 2.4.2).

    ReLU, sum 1 over all channels, product with a square kernel, bias. It starts at the identity + U(-0.5e-4, 0.5e-4).
    Fields: see `MixingFields`.

    Attributes:
        rngs: gives the initial values (stream "params").

    Raises:
        ValueError: groups that do not divide the channels.
    """

    rngs: InitVar[nnx.Rngs] = field(kw_only=True)

    def __post_init__(self, rngs: nnx.Rngs) -> None:
        fix_fields(self)
        check_integer("in_features", self.in_features, 1)
        shape = self.kernel_shape(self.in_features)
        self.kernel = nnx.Param(initializers.identity_plus_noise(rngs.params(), shape, self.param_dtype))
        self.bias = nnx.Param(initializers.centred_noise(rngs.params(), (self.in_features,), self.param_dtype))

    def __call__(self, inputs: ArrayLike) -> Array:
        """inputs (..., in_features) of any sign -> (..., in_features).

        Raises:
            ValueError: inputs of other channels, or of complex numbers.
        """
        _check_channels(inputs, self.in_features)
        return self.mixed(rectified(inputs), self.kernel[...], self.bias[...])


@dataclass(eq=False, repr=False)
class NormalizedConv(NormalizedConvFields, InputsAndOutputs, nnx.Module):
    """A convolution with bias of patches that sum to 1: the module of the CNN in the paper's comparison (figure 3 b).

    ReLU, patches, sum 1, product with a kernel of both signs. Initial values as in PyTorch's convolution: kernel and
    bias U(-b, b) with b = 1 / sqrt(entries of a patch). The kernel has shape (groups, n, out_features / groups).
    Fields: see `NormalizedConvFields` and `ConvFields`.

    Attributes:
        rngs: gives the initial values (stream "params").

    Raises:
        ValueError: groups that do not divide.
    """

    rngs: InitVar[nnx.Rngs] = field(kw_only=True)

    def __post_init__(self, rngs: nnx.Rngs) -> None:
        fix_fields(self)
        check_integer("in_features", self.in_features, 1)
        groups = self.check_groups(self.out_features, self.in_features)
        n = _entries(self, self.in_features, groups)
        init = initializers.fan_in_uniform(n)
        self.kernel = nnx.Param(init(rngs.params(), (groups, n, self.out_features // groups), self.param_dtype))
        self.bias = nnx.Param(init(rngs.params(), (self.out_features,), self.param_dtype)) if self.use_bias else None

    def __call__(self, inputs: ArrayLike) -> Array:
        """inputs (..., *spatial, in_features) of any sign -> (..., *positions, out_features).

        Raises:
            ValueError: a kernel larger than the map, inputs of other channels or of complex numbers.
        """
        _check_channels(inputs, self.in_features)
        patches = self.grouped_patches(inputs, self.out_features)
        return self.product(patches, self.kernel[...], None if self.bias is None else self.bias[...])


@dataclass(eq=False, repr=False)
class PatchWhitening(WhiteningFields, nnx.Module):
    """Cosine components of patches around the pixels, lowest frequencies first; nothing is trained.

    As `deepnmf_jax.PatchWhitening`. Fields: see `WhiteningFields`.
    """

    def __call__(self, inputs: ArrayLike) -> Array:
        """inputs (batch, height, width, c) -> (batch, height / strides, width / strides, features), of both signs.

        Raises:
            ValueError: as `WhiteningFields.components`.
        """
        return self.components(inputs)
