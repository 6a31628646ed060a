"""The networks of the paper."""

from deepnmf_jax.models.cut import Cut, cut_network
from deepnmf_jax.models.network import CNMF, CNN, CNMF1x1, CNN1x1, Network
from deepnmf_jax.models.pretrained import Pretrained, load_pretrained, pretrained_names
from deepnmf_jax.models.summary import summarize

__all__ = [
    "CNMF",
    "CNN",
    "CNMF1x1",
    "CNN1x1",
    "Cut",
    "Network",
    "Pretrained",
    "cut_network",
    "load_pretrained",
    "pretrained_names",
    "summarize",
]
