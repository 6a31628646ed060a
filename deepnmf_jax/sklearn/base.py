"""What `NMF` and `MiniBatchNMF` have in common in scikit-learn's protocol."""

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from deepnmf_jax.sklearn.checks import takes_zeros


class Factorization(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """A transformer by a dictionary `components_` (k, p), which its `fit_transform` learns."""

    components_: np.ndarray

    def fit(self, X: Any, y: Any = None, W: Any = None, H: Any = None) -> Self:
        """Learn H from X (n, p). Returns self. Arguments and errors as in `fit_transform`."""
        self.fit_transform(X, y, W, H)
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "components_")

    @property
    def _n_features_out(self) -> int:
        return self.components_.shape[0]

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn may expect: non-negative input, sparse where zeros are allowed; dtypes kept."""
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only, tags.input_tags.sparse = True, takes_zeros(self)
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
