"""NMF in place of a convolution, and the convolution that it is compared with."""

from dataclasses import dataclass

import flax.linen as nn
from jax import Array

from deepnmf_jax.core import initializers
from deepnmf_jax.core.checks import check_integer
from deepnmf_jax.layers.fields import ConvFields, NormalizedConvFields
from deepnmf_jax.layers.nmf_layer import NMFLayer


@dataclass(eq=False, repr=False)
class Units:
    """The field that comes before those of a convolution.

    Attributes:
        features: number of units k.
    """

    features: int


class NMFConv(NMFLayer, ConvFields, Units):
    """Convolutional NMF: every patch of the input has its own NMF code (paper, section 2.4.1).

    ReLU, patches, sum 1, inference. The fields are those of `flax.linen.Conv`: `features`, the number of units, and
    those of `ConvFields`. The parameter u has shape (features, prod(kernel_size) * channels / feature_group_count),
    ordered like a flattened HWIO kernel. The codes of several groups share a total of 1. Other fields: see `NMFFields`.
    """

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """inputs (..., *spatial, c) of any sign -> activities (..., *positions, features).

        They sum to 1 over the features, or are 0 where the patch is black.

        Raises:
            ValueError: settings outside what they allow, groups that do not divide, a kernel larger than the map,
                inputs without channels or of complex numbers.
        """
        return self.activity(self.grouped_patches(inputs, self.features), self.features)


class NormalizedConv(NormalizedConvFields, Units, nn.Module):
    """A convolution with bias of patches that sum to 1: the module of the CNN in the paper's comparison (figure 3 b).

    ReLU, patches, sum 1, product with a kernel of both signs. Fields and initial values as in PyTorch's convolution:
    kernel and bias U(-b, b) with b = 1 / sqrt(entries of a patch). The kernel has shape (groups, n, features / groups).
    Fields: `features`, the number of outputs, and those of `NormalizedConvFields`.
    """

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """inputs (..., *spatial, c) of any sign -> (..., *positions, features). Errors as in `NMFConv`."""
        features = check_integer("features", self.features, 1)
        patches = self.grouped_patches(inputs, features)
        groups, n = patches.shape[-2:]
        init = initializers.fan_in_uniform(n)
        kernel = self.param("kernel", init, (groups, n, features // groups), self.param_dtype)
        bias = self.param("bias", init, (features,), self.param_dtype) if self.use_bias else None
        return self.product(patches, kernel, bias)
