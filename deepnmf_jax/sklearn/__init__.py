"""The estimators in scikit-learn's protocol, thin over `decomposition`. Needs scikit-learn (the extra `sklearn`)."""

try:
    from sklearn.utils.validation import validate_data as _validate_data
except ImportError as error:
    raise ImportError(
        f"deepnmf_jax.sklearn needs scikit-learn 1.6 or newer ({error}): pip install 'scikit-learn>=1.6'"
    ) from None

from deepnmf_jax.sklearn.dn2mfgl import Dn2MFGL
from deepnmf_jax.sklearn.factorization import non_negative_factorization
from deepnmf_jax.sklearn.minibatch import MiniBatchNMF
from deepnmf_jax.sklearn.nmf import NMF

__all__ = ["NMF", "Dn2MFGL", "MiniBatchNMF", "non_negative_factorization"]
