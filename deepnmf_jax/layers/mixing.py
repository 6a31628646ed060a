"""Local interactions of both signs."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from deepnmf_jax.core import initializers
from deepnmf_jax.core.checks import check_integer
from deepnmf_jax.core.dtypes import promoted
from deepnmf_jax.core.normalization import unit_rows
from deepnmf_jax.layers.nmf_layer import rectified


class LocalMixing(nn.Module):
    """The 1x1 convolution after an NMF layer: weights of both signs among the features of one position (paper, 2.4.2).

    ReLU, sum 1 over all channels, product with a square kernel, bias. It starts at the identity + U(-0.5e-4, 0.5e-4).

    Attributes:
        dtype: of the computation; None takes that of the input.
        param_dtype: of kernel and bias.
        feature_group_count: contiguous groups of channels that are mixed among themselves only. The kernel has shape
            (c, c), with several groups (groups, c / groups, c / groups): the blocks on the diagonal of the former.
    """

    dtype: Any = None
    param_dtype: Any = jnp.float32
    feature_group_count: int = 1

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """inputs (..., c) of any sign -> (..., c).

        Raises:
            ValueError: inputs without entries, or of complex numbers; groups that do not divide the channels.
        """
        check_integer("feature_group_count", self.feature_group_count, 1)
        x = rectified(inputs)
        channels, groups = x.shape[-1], int(self.feature_group_count)
        if channels % groups:
            raise ValueError(f"feature_group_count = {groups} must divide the {channels} input channels")
        dtype = self.dtype or promoted(x.dtype, self.param_dtype)
        # One leading axis, so that the kernel's gradient is a plain product of two matrices.
        rows = unit_rows(x).reshape(-1, channels)
        if groups > 1:
            return self._grouped(rows.astype(dtype), groups).reshape(x.shape)
        dense = nn.Dense(
            channels,
            kernel_init=initializers.identity_plus_noise,
            bias_init=initializers.centred_noise,
            dtype=dtype,
            param_dtype=self.param_dtype,
        )
        nn.share_scope(self, dense)
        return dense(rows).reshape(x.shape)

    def _grouped(self, rows: Array, groups: int) -> Array:
        """rows (number, c) -> (number, c)."""
        channels = rows.shape[-1]
        side = channels // groups
        kernel = self.param("kernel", initializers.identity_plus_noise, (groups, side, side), self.param_dtype)
        bias = self.param("bias", initializers.centred_noise, (channels,), self.param_dtype)
        mixed = jnp.einsum("rgi,gio->rgo", rows.reshape(-1, groups, side), kernel.astype(rows.dtype))
        return mixed.reshape(-1, channels) + bias.astype(rows.dtype)
