"""A network in whichever of Flax's interfaces: its fields, what they allow, the blocks they ask for."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict
from jax import Array
from jax.typing import ArrayLike

from deepnmf_jax.core.checks import check_choice, check_integer, check_number
from deepnmf_jax.core.dtypes import accumulated
from deepnmf_jax.core.initializers import uniform_power
from deepnmf_jax.core.iteration import Settings
from deepnmf_jax.core.spiking import SpikeSettings, replace_by_spikes
from deepnmf_jax.layers.fields import InferenceFields
from deepnmf_jax.layers.whitening import WhiteningFields
from deepnmf_jax.models.images import BlockShape, check_images, refusal, wanted_images
from deepnmf_jax.models.parts import Part

# Of the fields that are one of a few words.
CHOICES = {
    "layer": ("nmf", "conv"),
    "padding": ("VALID", "SAME"),
    "preprocessing": ("none", "on_off", "whitening"),
    "rectification": ("relu", "on_off"),
    "batch_statistics": ("running", "batch"),
}
POOLINGS = ("average", "max", "nmf", "conv", "none")


@dataclass(eq=False, repr=False)
class NetworkFields(InferenceFields):
    """Blocks in a row, in whichever of Flax's interfaces; by default the paper's four: the first two pooled, the
    third over the whole map, the fourth with one unit a class.

    Attributes:
        num_classes: of the images.
        layer: "nmf" or "conv", in all blocks.
        mixing: whether a 1x1 convolution follows each layer (the paper's "+1x1").
        features: of all blocks but the last, which has one unit a class.
        kernels: sides of the first layer's kernels, one a block; 0 for the whole map, whatever its size.
        padding: of these layers, "VALID" (the paper's) or "SAME".
        width: factor on `features`.
        groups: of channels in the first layer of each block: one number a block, each dividing the input and output
            channels; or one integer (or a sequence of one), which applies where it divides both while other blocks
            keep 1. It must divide those of a block at least.
        mixing_groups: of channels in the 1x1 convolution of each block, by the same rule.
        pooling: "average" (the paper's), "max", "nmf", "conv" (the authors' code's learned variants) or "none"; one
            for all blocks but the last two, which have none, or one a block, separated by commas.
        preprocessing: of the images, without trainable parameters. "none"; or what follows is normalised to mean 0
            and variance 1 by batch statistics and split by sign into twice as many channels (ON and OFF): "on_off",
            the pixels; "whitening", the components of `deepnmf_jax.PatchWhitening`.
        whitening: its kernel_size, strides and features.
        rectification: what the blocks after the first start with: "relu" (the paper's), or "on_off", the positive
            and the negative part side by side, as twice as many channels.
        residual: whether a block adds its input, times a trainable positive number a channel, to its output before
            the pooling, where both have the same shape.
        batch_statistics: "running", or "batch" for the statistics of the batch at hand also in evaluation
            (authors' code).
        batch_norm_momentum: share of the old running statistics that each step keeps.
        use_bias: of the convolutions that stand in place of NMF.
        num_iters, epsilon, gradient, cg_steps, acceleration, exponent, tolerance, products, implementation: of the NMF
            layers; see `deepnmf_jax.infer`.
        num_spikes, spike_epsilon, spike_decay: of the NMF layers; see `deepnmf_jax.infer_spiking`. Each layer codes all
            of its spikes, and hands its last activities on. They need a key, see `InferenceFields`.
        input_spikes: above 0, each image is replaced by so many spikes drawn from its pixels and channels.
        block_settings: which of these differ in which block: one mapping a block, an empty one where none does, for
            example ({"num_iters": 40}, {}, {}, {}); () where all blocks have the same.
        logit_scale: factor on the outputs of the last block. Codes sum to 1, so that without a factor (1, the paper's)
            the probabilities are even until the last 1x1 convolution has grown.
        init_exponent: the raw weights of the NMF layers start at U(0, 1) to this power; 1 is the authors' start.
        local_learning: of the NMF layers, "none", "kl" or "mse"; one for all or one a block. See `deepnmf_jax.NMFConv`.
    """

    num_classes: int = 10
    layer: str = "nmf"
    mixing: bool = True
    features: Sequence[int] = (32, 64, 96)
    kernels: Sequence[int] = (5, 5, 0, 1)
    padding: str = "VALID"
    width: float = 1
    groups: int | Sequence[int] = (1,)
    mixing_groups: int | Sequence[int] = (1,)
    pooling: str = "average"
    preprocessing: str = "none"
    whitening: Sequence[int] = (3, 1, 10)
    rectification: str = "relu"
    residual: bool = False
    batch_statistics: str = "running"
    batch_norm_momentum: float = 0.9
    use_bias: bool = True
    block_settings: Sequence[Mapping[str, Any]] = ()
    logit_scale: float = 1.0
    init_exponent: float = 1.0
    input_spikes: int = 0
    local_learning: str | Sequence[str] = "none"

    @property
    def needs_spikes(self) -> bool:
        """Whether a pass through the network needs a key for spikes."""
        return bool(
            self.input_spikes
            or self.num_spikes
            or any(isinstance(own, Mapping) and own.get("num_spikes") for own in self.block_settings)
        )

    def _blocks(self, channels: int) -> list[BlockShape]:
        """The shapes of the blocks, of which the first is given `channels`."""
        features = [*(max(1, round(f * self.width)) for f in self.features), self.num_classes]
        blocks = len(features)
        split = [self.preprocessing != "none"] + [self.rectification == "on_off"] * (blocks - 1)
        inputs = [c * (1 + on_off) for c, on_off in zip([channels, *features], split, strict=False)]
        groups = block_groups(self.groups, inputs, features)
        pooled = [pooling != "none" for pooling in self._pooling(blocks)]
        same = [self.padding == "SAME" and kernel > 0 for kernel in self.kernels]
        return [BlockShape(*block) for block in zip(self.kernels, same, split, groups, features, pooled, strict=True)]

    def block_fields(self, channels: int) -> list[dict[str, Any]]:
        """The fields of the blocks block1, block2, ... (`BlockFields`), of which the first is given `channels`.

        Raises:
            ValueError: settings of single blocks that are none, groups that do not divide.
        """
        shapes = self._blocks(channels)
        nmf = self._nmf(len(shapes))
        pooling = self._pooling(len(shapes))
        outputs = [shape.features for shape in shapes]
        mixing_groups = block_groups(self.mixing_groups, outputs, outputs, "mixing_groups")
        return [
            {
                "features": shape.features,
                "kernel_size": (shape.kernel, shape.kernel),
                "padding": "SAME" if shape.same else "VALID",
                "layer": self.layer,
                "mixing": self.mixing,
                "split": shape.split,
                "residual": self.residual,
                "pooling": pooling[i],
                "groups": shape.groups,
                "mixing_groups": mixing_groups[i],
                "use_bias": self.use_bias,
                "batch_norm": self._batch_norm(),
                "inference": nmf[i],
            }
            for i, shape in enumerate(shapes)
        ]

    def input_norm(self, channels: int) -> Part:
        """The normalisation of preprocessed images."""
        return Part("bn_input", "BatchNorm", channels, {**self._batch_norm(), "affine": False})

    def _batch_norm(self) -> dict[str, Any]:
        return {"statistics": self.batch_statistics, "momentum": float(self.batch_norm_momentum)}

    def through(
        self,
        images: ArrayLike,
        spikes: Callable[[], Array],
        normalize: Callable[[Part, Array], Array],
        block: Callable[[str, dict[str, Any], Array], Array],
    ) -> Array:
        """The logits (batch, num_classes) of images (batch, height, width, channels), float in [0, 1].

        Args:
            images: of any size.
            spikes: gives a key, where the image is replaced by spikes.
            normalize: gives the output of the normalisation of preprocessed images.
            block: gives the output of a block, for its name and its fields.

        Raises:
            ValueError: images of another rank, not float, or (where they are not traced) outside [0, 1]; settings
                outside what they allow; groups that do not divide.
        """
        images = jnp.asarray(images)
        check_images(images)
        self.check_fields()
        if self.input_spikes:
            images = replace_by_spikes(spikes(), images, self.input_spikes)
        # Of narrower images the layers have float32 in any case, because the parameters are in it.
        x = accumulated(images)
        if self.preprocessing == "whitening":
            x = WhiteningFields(*self.whitening).components(x)
        if self.preprocessing != "none":
            x = normalize(self.input_norm(x.shape[-1]), x)
        for i, fields in enumerate(self.block_fields(x.shape[-1])):
            x = block(f"block{i + 1}", fields, x)
        batch, height, width, classes = x.shape
        return float(self.logit_scale) * x.reshape(batch, height * width, classes).mean(axis=1)

    def refusal(self, shape: tuple[int, ...], params: Mapping[str, Any]) -> str:
        """What is wrong with images of a shape (batch, height, width, channels) that the variables are not for."""
        whitened = self.preprocessing == "whitening"
        _, stride, components = self.whitening if whitened else (1, 1, None)
        _, height, width, channels = shape
        wanted = wanted_images(self._blocks, params, (height, width, channels), stride, components)
        return refusal(shape, wanted, whitened)

    def _pooling(self, blocks: int) -> tuple[str, ...]:
        pooling = self.pooling.split(",")
        if len(pooling) == 1:
            return (self.pooling,) * (blocks - 2) + ("none",) * min(blocks, 2)
        return per_block("pooling", pooling, blocks)

    def _nmf(self, blocks: int) -> list[dict[str, Any]]:
        """Settings of the NMF layers, block by block."""
        shared: dict[str, Any] = {**self.inference._asdict(), **self.spiking._asdict()}
        if self.init_exponent != 1:
            shared["u_init"] = uniform_power(float(self.init_exponent))
        rules = per_block("local_learning", self.local_learning, blocks)
        own: Sequence[Mapping[str, Any]] = self.block_settings or ({},) * blocks
        if len(own) != blocks or not all(isinstance(settings, Mapping) for settings in own):
            raise ValueError(
                f"block_settings = {self.block_settings!r}; give () or one mapping for each of {blocks} blocks"
            )
        known = (*Settings._fields, *SpikeSettings._fields)
        if unknown := {name for settings in own for name in settings} - set(known):
            raise ValueError(f"block_settings names {', '.join(sorted(map(repr, unknown)))}; use {', '.join(known)}")
        return [{**shared, "local_learning": rule, **settings} for rule, settings in zip(rules, own, strict=True)]

    def check_fields(self) -> None:
        """ValueError for settings outside what they allow."""
        check_integer("num_classes", self.num_classes, 1)
        check_integer("input_spikes", self.input_spikes, 0)
        for name, allowed in CHOICES.items():
            check_choice(name, getattr(self, name), allowed)
        for pooling in self.pooling.split(","):
            check_choice("pooling", pooling, POOLINGS)
        for name in ("width", "logit_scale", "init_exponent"):
            check_number(name, getattr(self, name), 0, above=True)
        check_number("batch_norm_momentum", self.batch_norm_momentum, 0, 1, below=True)
        if len(self.whitening) != 3:
            raise ValueError(f"whitening = {self.whitening!r}; give kernel_size, strides and features")
        for features in self.features:
            check_integer("features", features, 1)
        for kernel in self.kernels:
            check_integer("kernels", kernel, 0)
        if len(self.kernels) != len(self.features) + 1:
            raise ValueError(
                f"kernels = {self.kernels!r} with features = {self.features!r}; give one kernel more than features, "
                "for the last block, whose units are the classes"
            )


def hashable(block_settings: Sequence[Any]) -> tuple[Any, ...]:
    """The settings with frozen dictionaries. Flax freezes those of a module's fields, but not within a sequence."""
    return tuple(FrozenDict(settings) if isinstance(settings, Mapping) else settings for settings in block_settings)


def with_tuples(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings whose lists (JSON has no tuples) are tuples: a Flax module's fields must be hashable."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}


def per_block(name: str, setting: str | Sequence[str], blocks: int) -> tuple[str, ...]:
    """One value for each block, from one value or as many as there are blocks; ValueError for any other number."""
    values = (setting,) * blocks if isinstance(setting, str) else tuple(setting)
    if len(values) != blocks:
        raise ValueError(f"{name} = {setting!r}; give one value, or one for each of {blocks} blocks")
    return values


def _divisors(blocks: Sequence[tuple[int, int]]) -> str:
    """Which numbers of groups divide which block."""
    parts = []
    for i, (a, b) in enumerate(blocks):
        common = math.gcd(a, b)
        numbers = ", ".join(str(n) for n in range(1, common + 1) if common % n == 0)
        parts.append(f"block {i + 1} ({a} input and {b} output channels) can have {numbers}")
    return "; ".join(parts)


def block_groups(
    groups: int | Sequence[int], inputs: Sequence[int], outputs: Sequence[int], name: str = "groups"
) -> tuple[int, ...]:
    """Groups of each block, where a layer goes from inputs[i] to outputs[i] channels; `name` is that of the setting.

    Raises:
        ValueError: a count below 1, one integer that divides the channels of no block, a sequence of a length other
            than 1 and the number of blocks, or one of the latter with an entry that does not divide its block's
            channels.
    """
    counts = list(groups) if isinstance(groups, (Sequence, np.ndarray)) else [groups]
    blocks = list(zip(inputs, outputs, strict=True))
    for count in counts:
        check_integer(name, count, 1)
    counts = [int(count) for count in counts]
    if len(counts) == 1:
        found = tuple(counts[0] if a % counts[0] == b % counts[0] == 0 else 1 for a, b in blocks)
        if counts[0] > 1 and max(found) == 1:
            raise ValueError(f"{name} = {groups!r} divides the channels of no block; {_divisors(blocks)}")
        return found
    if len(counts) != len(blocks):
        raise ValueError(f"{name} = {groups!r}; give one integer, or one for each of {len(blocks)} blocks")
    for i, (count, (a, b)) in enumerate(zip(counts, blocks, strict=True)):
        if a % count or b % count:
            raise ValueError(
                f"{name} = {groups!r}: {count} groups do not divide block {i + 1}, which has {a} input and {b} output "
                "channels; one integer for all blocks skips the blocks that it does not divide"
            )
    return tuple(counts)
