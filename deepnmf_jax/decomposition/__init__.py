"""Matrix factorization into parts: A ~ Z D, as functions of arrays and as estimators over them."""

from deepnmf_jax.decomposition.estimator import ConvergenceWarning, NotFittedError
from deepnmf_jax.decomposition.nmf import NMF

__all__ = ["NMF", "ConvergenceWarning", "NotFittedError"]
