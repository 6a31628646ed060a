"""The layers and the networks as Flax NNX modules, which are made with their weights: no sample batch, no `init`.

Fields, settings and results are those of the Linen ones in `deepnmf_jax` and `deepnmf_jax.models`; the computation is
the same code. Not loaded by `import deepnmf_jax`.
"""

from deepnmf_jax.nnx.layers import LocalMixing, NMFConv, NMFDense, NMFPool, NormalizedConv, PatchWhitening
from deepnmf_jax.nnx.networks import CNMF, CNN, CNMF1x1, CNN1x1, Network
from deepnmf_jax.nnx.weights import from_linen, load_pretrained, to_linen

__all__ = [
    "CNMF",
    "CNN",
    "CNMF1x1",
    "CNN1x1",
    "LocalMixing",
    "NMFConv",
    "NMFDense",
    "NMFPool",
    "Network",
    "NormalizedConv",
    "PatchWhitening",
    "from_linen",
    "load_pretrained",
    "to_linen",
]
