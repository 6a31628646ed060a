"""Flax Linen layers over `deepnmf_jax.core`."""

from deepnmf_jax.layers.conv import NMFConv, NormalizedConv
from deepnmf_jax.layers.dense import NMFDense
from deepnmf_jax.layers.mixing import LocalMixing
from deepnmf_jax.layers.pooling import NMFPool
from deepnmf_jax.layers.whitening import PatchWhitening

__all__ = ["LocalMixing", "NMFConv", "NMFDense", "NMFPool", "NormalizedConv", "PatchWhitening"]
