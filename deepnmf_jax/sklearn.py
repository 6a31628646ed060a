"""The estimators in scikit-learn's protocol, thin over `decomposition`. Needs the extra `sklearn`."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, check_non_negative, validate_data

from deepnmf_jax import decomposition
from deepnmf_jax.decomposition.dn2mfgl.strengths import RULE, Rule

# Their names of solvers, and ours.
THEIR_SOLVERS = {"cd": "hals"}


class NMF(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Non-negative matrix factorization X ~ W H with scikit-learn's names and its objective; solved by JAX.

    Args:
        n_components: k; None or "auto": as many as features.
        init: None ("nndsvda"), "nndsvda", "nndsvd", "random", or "custom" with W and H given to `fit_transform`.
        solver: "hals" (scikit-learn's "cd" is accepted too), "mu", "anls", "pgd".
        beta_loss: "frobenius", "kullback-leibler", "itakura-saito" or a number; other than 2 needs "mu".
        tol: see `deepnmf_jax.NMF`.
        max_iter: sweeps at most.
        random_state: None, an integer or a numpy RandomState.
        alpha_W: strength of the penalties of W.
        alpha_H: strength of the penalties of H; "same": alpha_W.
        l1_ratio: share of the L1 norm in the penalties.
        n_restarts: starts solved at once, of which the best is kept.
        inner_iter: see `deepnmf_jax.NMF`.
        verbose: a progress bar.

    Attributes:
        components_: H (k, p).
        n_components_: k.
        n_iter_: sweeps.
        reconstruction_err_: root of twice the divergence.
        n_features_in_: p.
        feature_names_in_: names of the columns, where X had some.
    """

    def __init__(
        self,
        n_components: int | str | None = "auto",
        *,
        init: str | None = None,
        solver: str = "hals",
        beta_loss: float | str = "frobenius",
        tol: float = 1e-4,
        max_iter: int = 500,
        random_state: Any = None,
        alpha_W: float = 0.0,
        alpha_H: float | str = "same",
        l1_ratio: float = 0.0,
        n_restarts: int = 1,
        inner_iter: int = 3,
        verbose: int | bool = 0,
    ) -> None:
        self.n_components, self.init, self.solver, self.beta_loss = n_components, init, solver, beta_loss
        self.tol, self.max_iter, self.random_state = tol, max_iter, random_state
        self.alpha_W, self.alpha_H, self.l1_ratio = alpha_W, alpha_H, l1_ratio
        self.n_restarts, self.inner_iter, self.verbose = n_restarts, inner_iter, verbose

    def fit(self, X: Any, y: Any = None, W: Any = None, H: Any = None) -> Self:
        """Learn H from X (n, p), dense or sparse, non-negative. Returns self."""
        self.fit_transform(X, y, W, H)
        return self

    def fit_transform(self, X: Any, y: Any = None, W: Any = None, H: Any = None) -> np.ndarray:
        """Learn H from X (n, p) and return W (n, k); W and H are the start if init="custom"."""
        X = _validated(self, X, reset=True)
        if (self.init == "custom") != (W is not None and H is not None):
            raise ValueError(
                "init='custom' goes with W and H, and they with it; got "
                f"init={self.init!r}, W is {'' if W is None else 'not '}None, H likewise"
            )
        core = self._make_core(X.shape[1])
        with _their_warnings():
            codes, components = core.fit(X, init=(W, H) if self.init == "custom" else None)
        self._core = core
        self._publish(components)
        return codes

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """One step on the batch X (b, p), from the statistics of all batches so far. Returns self."""
        first = not hasattr(self, "_core")
        X = _validated(self, X, reset=first)
        if first:
            self._core = self._make_core(X.shape[1])
        self._core.partial_fit(X)
        self._publish(self._core.D)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """W (n, k) of X (n, p) for the learned H."""
        check_is_fitted(self)
        return self._core.encode(_validated(self, X, reset=False))

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Data (n, p) from W (n, k)."""
        check_is_fitted(self)
        return np.asarray(X) @ self.components_

    def _make_core(self, features: int) -> decomposition.NMF:
        k = features if self.n_components in (None, "auto") else self.n_components
        return decomposition.NMF(
            k,  # type: ignore[arg-type]
            solver=THEIR_SOLVERS.get(self.solver, self.solver),
            tol=self.tol,
            verbose=bool(self.verbose),
            init="nndsvda" if self.init in (None, "custom") else self.init,
            max_iter=self.max_iter,
            random_state=int(check_random_state(self.random_state).randint(2**31 - 1)),
            beta_loss=self.beta_loss,
            alpha_W=self.alpha_W,
            alpha_H=self.alpha_H,
            l1_ratio=self.l1_ratio,
            n_restarts=self.n_restarts,
            inner_iter=self.inner_iter,
        )

    def _publish(self, components: np.ndarray) -> None:
        self.components_ = components
        self.n_components_ = len(components)
        self.n_iter_ = max(1, self._core.n_iter_ or 0)
        if self._core.reconstruction_err_ is not None:
            self.reconstruction_err_ = self._core.reconstruction_err_

    @property
    def _n_features_out(self) -> int:
        return self.components_.shape[0]

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn may expect: sparse and non-negative input, dtypes kept."""
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class Dn2MFGL(ClassNamePrefixFeaturesOutMixin, decomposition.Dn2MFGL, ClusterMixin, TransformerMixin, BaseEstimator):
    """`deepnmf_jax.Dn2MFGL` with what scikit-learn adds: names of features, `set_output`, its own exceptions.

    The plain class follows the protocol too (`clone`, `Pipeline`, `GridSearchCV`). Arguments, attributes and errors are
    the same. `transform` of the training samples differs from `fit_transform`: codes of a fit know their neighbours.
    """

    def fit(self, X: Any, y: Any = None, init: Any = None, rule: Rule = RULE) -> Self:
        """See `deepnmf_jax.Dn2MFGL.fit`."""
        X = _validated(self, X, reset=True)
        with _their_warnings():
            return super().fit(X, y, init, rule)

    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """`fit`, and the codes (n, r_l) of the training samples."""
        return self.fit(X).embedding_

    def transform(self, X: Any) -> np.ndarray:
        """See `deepnmf_jax.Dn2MFGL.transform`."""
        check_is_fitted(self)
        return super().transform(_validated(self, X, reset=False))

    def predict(self, X: Any) -> np.ndarray:
        """See `deepnmf_jax.Dn2MFGL.predict`."""
        check_is_fitted(self)
        return super().predict(X)

    @property
    def _n_features_out(self) -> int:
        return self.components_.shape[0]


def _validated(estimator: Any, X: Any, reset: bool) -> Any:
    """X as scikit-learn checks it, non-negative; dense or sparse."""
    X = validate_data(estimator, X, accept_sparse=("csr", "csc"), dtype=[np.float64, np.float32], reset=reset)
    check_non_negative(X, f"{type(estimator).__name__} (input X)")
    return X


@contextmanager
def _their_warnings() -> Iterator[None]:
    """Our ConvergenceWarning as scikit-learn's."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        yield
    for warning in seen:
        ours = issubclass(warning.category, decomposition.ConvergenceWarning)
        warnings.warn(str(warning.message), ConvergenceWarning if ours else warning.category, stacklevel=4)
