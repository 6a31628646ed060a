"""Local interactions of both signs."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from deepnmf_jax.core import initializers
from deepnmf_jax.core.dtypes import promoted
from deepnmf_jax.core.normalization import unit_rows
from deepnmf_jax.layers.nmf_layer import rectified


class LocalMixing(nn.Module):
    """The 1x1 convolution after an NMF layer: weights of both signs among the features of one position (paper, 2.4.2).

    ReLU, sum 1 over the channels, product with a square kernel, bias. It starts at the identity + U(-0.5e-4, 0.5e-4).
    """

    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """inputs (..., c) of any sign -> (..., c). ValueError: inputs without entries, or of complex numbers."""
        x = rectified(inputs)
        channels = x.shape[-1]
        dense = nn.Dense(
            channels,
            kernel_init=initializers.identity_plus_noise,
            bias_init=initializers.centred_noise,
            dtype=self.dtype or promoted(x.dtype, self.param_dtype),
            param_dtype=self.param_dtype,
        )
        nn.share_scope(self, dense)
        # One leading axis, so that the kernel's gradient is a plain product of two matrices.
        return dense(unit_rows(x).reshape(-1, channels)).reshape(x.shape)
