"""NMF in place of a dense layer."""

import flax.linen as nn
from jax import Array

from deepnmf_jax.layers.fields import rectified
from deepnmf_jax.layers.nmf_layer import NMFLayer


class NMFDense(NMFLayer):
    """NMF code of a feature vector: ReLU, sum 1, inference (paper, section 2.2).

    The parameter u has shape (features, n). Other fields: see `NMFFields`.

    Attributes:
        features: number of units k.
    """

    features: int

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """inputs (..., n) of any sign -> activities (..., features), non-negative, summing to 1 (0 without input).

        Raises:
            ValueError: settings outside what they allow; inputs without entries, or of complex numbers.
        """
        return self.activity(rectified(inputs)[..., None, :], self.features)
