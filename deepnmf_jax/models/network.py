"""The four-block classifier (paper, section 2.5) and its four configurations."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from deepnmf_jax.core.checks import check_choice, check_integer, is_concrete
from deepnmf_jax.core.iteration import Settings
from deepnmf_jax.models.blocks import LAYERS, POOLINGS, STATISTICS, Block

FEATURES = (32, 64, 96)
# The third kernel covers the whole map, whatever its size.
KERNELS = (5, 5, None, 1)
NUM_BLOCKS = len(KERNELS)


class Network(nn.Module):
    """Four blocks, the first two pooled, the third over the whole map, the fourth with one unit a class.

    Attributes:
        num_classes: of the images.
        layer: "nmf" or "conv", in all blocks.
        mixing: whether a 1x1 convolution follows each layer (the paper's "+1x1").
        width: factor on the 32, 64 and 96 features of the first three blocks.
        groups: of channels in the first layer of each block: one number a block, each dividing the input and output
            channels; or one integer (or a sequence of one), which applies where it divides both while other blocks
            keep 1.
        pooling: "average" (the paper's), "max", "nmf", "conv" (the authors' code's learned variants) or "none".
        batch_statistics: "running", or "batch" for the statistics of the batch at hand also in evaluation
            (authors' code).
        batch_norm_momentum: share of the old running statistics that each step keeps.
        use_bias: of the convolutions that stand in place of NMF.
        num_iters, epsilon, gradient, cg_steps, acceleration, exponent, tolerance, products: of the NMF layers; see
            `deepnmf_jax.infer`.
        local_learning: of the NMF layers, "none", "kl" or "mse"; one for all or one a block. See `deepnmf_jax.NMFConv`.
    """

    num_classes: int = 10
    layer: str = "nmf"
    mixing: bool = True
    width: float = 1
    groups: int | Sequence[int] = 1
    pooling: str = "average"
    batch_statistics: str = "running"
    batch_norm_momentum: float = 0.9
    use_bias: bool = True
    num_iters: int = 20
    epsilon: float = 1.0
    gradient: str = "approximate"
    cg_steps: int = 4
    acceleration: str = "none"
    exponent: float = 8.0
    tolerance: float = 0.0
    products: str = "full"
    local_learning: str | Sequence[str] = "none"

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Array:
        """images (batch, height, width, channels), float in [0, 1], of any size -> logits (batch, num_classes).

        With `train` the batch's own statistics are used and the running ones updated: pass `mutable=["batch_stats"]`.

        Raises:
            ValueError: images of another rank, not float, or (where they are not traced) outside [0, 1]; settings
                outside what they allow; groups that do not divide.
        """
        images = jnp.asarray(images)
        _check_images(images)
        self._check_settings()
        features = [*(max(1, round(f * self.width)) for f in FEATURES), self.num_classes]
        groups = block_groups(self.groups, [images.shape[-1], *features])
        nmf = {name: getattr(self, name) for name in Settings._fields}
        x = images
        for i, kernel in enumerate(KERNELS):
            block = Block(
                features=features[i],
                kernel_size=x.shape[1:3] if kernel is None else (kernel, kernel),
                layer=self.layer,
                mixing=self.mixing,
                pooling=self.pooling if i < 2 else "none",
                groups=groups[i],
                use_bias=self.use_bias,
                batch_norm={"statistics": self.batch_statistics, "momentum": self.batch_norm_momentum},
                nmf={**nmf, "local_learning": per_block(self.local_learning)[i]},
                name=f"block{i + 1}",
            )
            x = block(x, train=train)
        return x.reshape(x.shape[0], self.num_classes)

    def _check_settings(self) -> None:
        check_integer("num_classes", self.num_classes, 1)
        check_choice("layer", self.layer, LAYERS)
        check_choice("pooling", self.pooling, POOLINGS)
        check_choice("batch_statistics", self.batch_statistics, STATISTICS)
        if not self.width > 0:
            raise ValueError(f"width = {self.width}, but it must be positive")
        if not 0 <= self.batch_norm_momentum < 1:
            raise ValueError(f"batch_norm_momentum = {self.batch_norm_momentum}, but it must lie in [0, 1)")


def per_block(setting: str | Sequence[str]) -> tuple[str, ...]:
    """One value for each of the four blocks, from one value or four; ValueError for any other number."""
    values = (setting,) * NUM_BLOCKS if isinstance(setting, str) else tuple(setting)
    if len(values) != NUM_BLOCKS:
        raise ValueError(f"local_learning = {setting!r}; give one rule, or one for each of {NUM_BLOCKS} blocks")
    return values


def block_groups(groups: int | Sequence[int], channels: Sequence[int]) -> tuple[int, ...]:
    """Groups of each block, whose channels go from channels[i] to channels[i + 1].

    Raises:
        ValueError: a count below 1, a sequence of a length other than 1 and the number of blocks, or one of the
            latter with an entry that does not divide its block's channels.
    """
    counts = [groups] if isinstance(groups, int) else list(groups)
    blocks = list(pairwise(channels))
    for count in counts:
        check_integer("groups", count, 1)
    if len(counts) == 1:
        return tuple(counts[0] if a % counts[0] == b % counts[0] == 0 else 1 for a, b in blocks)
    if len(counts) != len(blocks):
        raise ValueError(f"groups = {groups!r}; give one integer, or one for each of {len(blocks)} blocks")
    for i, (count, (a, b)) in enumerate(zip(counts, blocks, strict=True)):
        if a % count or b % count:
            raise ValueError(
                f"groups = {groups!r}: {count} groups do not divide block {i + 1}, which has {a} input and {b} output "
                "channels; one integer for all blocks skips the blocks that it does not divide"
            )
    return tuple(counts)


def _check_images(images: Array) -> None:
    if images.ndim != 4:
        raise ValueError(f"images have shape {images.shape}; they must be (batch, height, width, channels)")
    if 0 in images.shape:
        raise ValueError(f"images have shape {images.shape}; no axis may be empty")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images have dtype {images.dtype}; they must be float in [0, 1] (divide 8-bit images by 255)")
    if not is_concrete(images):
        return
    # numpy, because jax would trace the comparison of an image that a jitted function closes over.
    values = np.asarray(images, np.float32)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"images range from {values.min():.3g} to {values.max():.3g}; they must lie in [0, 1]")


CNN = partial(Network, layer="conv", mixing=False)
CNMF = partial(Network, layer="nmf", mixing=False)
CNN1x1 = partial(Network, layer="conv", mixing=True)
CNMF1x1 = partial(Network, layer="nmf", mixing=True)
