"""Local interactions of both signs."""

import flax.linen as nn
from jax import Array

from deepnmf_jax.core import initializers
from deepnmf_jax.layers.fields import MixingFields, rectified


class LocalMixing(MixingFields, nn.Module):
    """The 1x1 convolution after an NMF layer: weights of both signs among the features of one position (paper, 2.4.2).

    ReLU, sum 1 over all channels, product with a square kernel, bias. It starts at the identity + U(-0.5e-4, 0.5e-4).
    Fields: see `MixingFields`.
    """

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """inputs (..., c) of any sign -> (..., c).

        Raises:
            ValueError: inputs without entries, or of complex numbers; groups that do not divide the channels.
        """
        x = rectified(inputs)
        channels = x.shape[-1]
        kernel = self.param("kernel", initializers.identity_plus_noise, self.kernel_shape(channels), self.param_dtype)
        bias = self.param("bias", initializers.centred_noise, (channels,), self.param_dtype)
        return self.mixed(x, kernel, bias)
