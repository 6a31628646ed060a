"""The networks of the paper."""

from deepnmf_jax.models.network import CNMF, CNN, CNMF1x1, CNN1x1, Network
from deepnmf_jax.models.summary import summarize

__all__ = ["CNMF", "CNN", "CNMF1x1", "CNN1x1", "Network", "summarize"]
