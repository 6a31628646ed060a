"""`Dn2MFGL` with what scikit-learn adds."""

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from deepnmf_jax import decomposition
from deepnmf_jax.decomposition.dn2mfgl.strengths import RULE, Rule
from deepnmf_jax.decomposition.protocol import AvailableIf
from deepnmf_jax.sklearn.checks import their_warnings, validated


def _has_clusters(model: "Dn2MFGL") -> None:
    if model.n_clusters is None:
        raise ValueError("needs n_clusters, the number of clusters")


class Dn2MFGL(ClassNamePrefixFeaturesOutMixin, decomposition.Dn2MFGL, ClusterMixin, TransformerMixin, BaseEstimator):
    """`deepnmf_jax.Dn2MFGL` with what scikit-learn adds: names of features, `set_output`, its own exceptions.

    The plain class follows the protocol too (`clone`, `Pipeline`, `GridSearchCV`). Arguments, attributes and errors are
    the same. `transform` of the training samples differs from `fit_transform`: codes of a fit know their neighbours.
    """

    def fit(self, X: Any, y: Any = None, init: Any = None, rule: Rule = RULE) -> Self:
        """See `deepnmf_jax.Dn2MFGL.fit`."""
        X = validated(self, X, reset=True)
        with their_warnings():
            return super().fit(X, y, init, rule)

    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """`fit`, and the codes (n, r_l) of the training samples."""
        return self.fit(X).embedding_

    def transform(self, X: Any) -> np.ndarray:
        """See `deepnmf_jax.Dn2MFGL.transform`."""
        check_is_fitted(self)
        return super().transform(validated(self, X, reset=False))

    @AvailableIf(_has_clusters)
    def fit_predict(self, X: Any, y: Any = None) -> np.ndarray:
        """`fit`, and the cluster (n,) of every sample. UnavailableError (a ValueError) without n_clusters."""
        return self.fit(X).labels_

    @AvailableIf(_has_clusters)
    def predict(self, X: Any) -> np.ndarray:
        """See `deepnmf_jax.Dn2MFGL.predict`. UnavailableError (a ValueError) without n_clusters."""
        check_is_fitted(self, "cluster_centers_", msg="this %(name)s has no clusters yet; call fit first")
        return super().predict(X)

    @property
    def _n_features_out(self) -> int:
        return self.components_.shape[0]
