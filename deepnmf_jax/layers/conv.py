"""NMF in place of a convolution, and the convolution that it is compared with."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from deepnmf_jax.core import initializers
from deepnmf_jax.core.checks import check_integer
from deepnmf_jax.core.dtypes import promoted
from deepnmf_jax.core.normalization import unit_rows
from deepnmf_jax.core.patches import Padding, extract_patches, has_axes, split_groups
from deepnmf_jax.layers.nmf_layer import NMFLayer, rectified


def _grouped_patches(layer: "NMFConv | NormalizedConv", inputs: Array) -> Array:
    """ReLU and patches of the inputs (..., *spatial, c), channels split in groups -> (..., *positions, groups, n)."""
    check_integer("features", layer.features, 1)
    check_integer("feature_group_count", layer.feature_group_count, 1)
    kernel = layer.kernel_size
    rank = len(kernel) if has_axes(kernel) else 1
    inputs = rectified(inputs, axes=rank + 1)
    channels, groups = inputs.shape[-1], int(layer.feature_group_count)
    if channels % groups or layer.features % groups:
        raise ValueError(
            f"feature_group_count = {groups} must divide the {channels} input channels and features = {layer.features}"
        )
    patches = extract_patches(
        inputs, kernel, strides=layer.strides, padding=layer.padding, kernel_dilation=layer.kernel_dilation
    )
    return split_groups(patches, patches.shape[-1] // channels, groups)


class NMFConv(NMFLayer):
    """Convolutional NMF: every patch of the input has its own NMF code (paper, section 2.4.1).

    ReLU, patches, sum 1, inference. The fields are those of `flax.linen.Conv`. The parameter u has shape
    (features, prod(kernel_size) * channels / feature_group_count), ordered like a flattened HWIO kernel.
    Other fields: see `NMFLayer`.

    Attributes:
        features: number of units k.
        kernel_size: of the patches, one number a spatial axis; an integer is one axis, as in `flax.linen.Conv`.
        strides: None is 1.
        padding: "SAME", "VALID" (the default, as in the paper), a number, or one number or pair an axis.
        kernel_dilation: None is 1.
        feature_group_count: groups of channels that are coded independently; the groups' codes share a total of 1.
    """

    features: int
    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] | None = None
    padding: Padding = "VALID"
    kernel_dilation: int | Sequence[int] | None = None
    feature_group_count: int = 1

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """inputs (..., *spatial, c) of any sign -> activities (..., *positions, features).

        They sum to 1 over the features, or are 0 where the patch is black.

        Raises:
            ValueError: settings outside what they allow, groups that do not divide, a kernel larger than the map,
                inputs without channels or of complex numbers.
        """
        return self.activity(_grouped_patches(self, inputs), self.features)


class NormalizedConv(nn.Module):
    """A convolution with bias of patches that sum to 1: the module of the CNN in the paper's comparison (figure 3 b).

    ReLU, patches, sum 1, product with a kernel of both signs. Fields and initial values as in PyTorch's convolution:
    kernel and bias U(-b, b) with b = 1 / sqrt(entries of a patch). The kernel has shape (groups, n, features / groups).
    """

    features: int
    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] | None = None
    padding: Padding = "VALID"
    kernel_dilation: int | Sequence[int] | None = None
    feature_group_count: int = 1
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """inputs (..., *spatial, c) of any sign -> (..., *positions, features). Errors as in `NMFConv`."""
        patches = _grouped_patches(self, inputs)
        groups, n = patches.shape[-2:]
        init = initializers.fan_in_uniform(n)
        kernel = self.param("kernel", init, (groups, n, self.features // groups), self.param_dtype)
        dtype = self.dtype or promoted(patches.dtype, kernel.dtype)
        if groups == 1:
            y = jnp.matmul(unit_rows(patches[..., 0, :].astype(dtype)), kernel[0].astype(dtype))
        else:
            x = unit_rows(patches.astype(dtype))
            y = jnp.einsum("...gn,gnk->...gk", x, kernel.astype(dtype))
            y = y.reshape(*y.shape[:-2], self.features)
        if self.use_bias:
            bias = self.param("bias", init, (self.features,), self.param_dtype).astype(dtype)
            y = y + bias.reshape((1,) * (y.ndim - 1) + bias.shape)
        return y
