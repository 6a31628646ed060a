"""The estimators in scikit-learn's protocol, thin over `decomposition`. Needs scikit-learn (the extra `sklearn`)."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
from scipy.sparse import issparse

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils import check_array, check_random_state
    from sklearn.utils.validation import check_is_fitted, check_non_negative, validate_data
except ImportError as error:
    raise ImportError(
        f"deepnmf_jax.sklearn needs scikit-learn 1.6 or newer ({error}): pip install 'scikit-learn>=1.6'"
    ) from None

from deepnmf_jax import decomposition
from deepnmf_jax.core.checks import check_choice, check_integer
from deepnmf_jax.decomposition.dn2mfgl.strengths import RULE, Rule
from deepnmf_jax.decomposition.io.reading import has_hidden
from deepnmf_jax.decomposition.protocol import AvailableIf, DtypeError
from deepnmf_jax.decomposition.updates.beta_divergence import beta_of
from deepnmf_jax.decomposition.updates.solvers import SOLVERS, SolverSettings, check_batches

# Their names of solvers, and ours.
THEIR_SOLVERS = {"cd": "hals"}
FLOATS = [np.float64, np.float32]


def _takes_batches(model: "NMF") -> None:
    check_choice("solver", model._solver, tuple(SOLVERS))
    check_batches(SolverSettings(model._solver, beta_of(model.beta_loss)))


def _has_clusters(model: "Dn2MFGL") -> None:
    if model.n_clusters is None:
        raise ValueError("needs n_clusters, the number of clusters")


class NMF(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Non-negative matrix factorization X ~ W H with scikit-learn's names and its objective; solved by JAX.

    Args:
        n_components: k; None: as many as features; "auto": as many as rows of H with init="custom", else as features.
        init: None ("nndsvda"), "nndsvda", "nndsvd", "random", or "custom" with W and H given to `fit`.
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
        n_iter_: sweeps; after `partial_fit` the batches since the last `fit`.
        reconstruction_err_: root of twice the divergence; there is none after `partial_fit`.
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
        """Learn H from X (n, p). Returns self. Arguments and errors as in `fit_transform`."""
        self.fit_transform(X, y, W, H)
        return self

    def fit_transform(self, X: Any, y: Any = None, W: Any = None, H: Any = None) -> np.ndarray:
        """Learn H from X and return W (n, k).

        Args:
            X: (n, p), non-negative; dense, or with the squared error sparse.
            y: ignored.
            W: with init="custom" the start (n, k), of the dtype of X; otherwise ignored with a RuntimeWarning.
            H: with init="custom" the start (k, p), likewise.

        Raises:
            ValueError: X, or a start, of another shape, with entries that are negative, NaN or infinite, or masked; a
                start that is missing or full of zeros; an argument of the constructor outside what it allows.
            TypeError: (a ValueError too) a start of another dtype than X.
        """
        X = _validated(self, X, reset=True)
        start = self._read_start(X, W, H)
        core = self._make_core(X.shape[1] if start is None else len(start[1]))
        with _their_warnings():
            codes, components = core.fit(X, init=start)
        self._core, self._n_batches = core, 0
        self._publish(components, max(1, core.n_iter_ or 0), core.reconstruction_err_)
        return codes

    @AvailableIf(_takes_batches)
    def partial_fit(self, X: Any, y: Any = None, W: Any = None, H: Any = None) -> Self:
        """One step on the batch X (b, p), from the statistics of all batches so far. Returns self.

        The first batch makes the start, or the last `fit` is it.

        Raises:
            ValueError: as in `fit_transform`; W or H, or init="custom" before any fit.
            UnavailableError: (a ValueError and AttributeError) a solver or divergence that takes no batches.
        """
        first = not hasattr(self, "components_")
        if W is not None or H is not None or (first and self.init == "custom"):
            raise ValueError(
                "partial_fit starts from its first batch and uses no W and H, which belong to fit and fit_transform; "
                f"call it without them, with init=None, 'nndsvda', 'nndsvd' or 'random' (now {self.init!r})"
            )
        X = _validated(self, X, reset=first)
        core = self._make_core(X.shape[1]) if first else self._core
        core.partial_fit(X)
        # Only now: a batch that was refused leaves no estimator that looks fitted.
        self._core, self._n_batches = core, getattr(self, "_n_batches", 0) + 1
        self._publish(core.D, self._n_batches, None)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """W (n, k) of X (n, p) for the learned H."""
        check_is_fitted(self)
        return self._core.encode(_validated(self, X, reset=False))

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Data (n, p) from codes W (n, k), dense or sparse. ValueError for codes of another width, NaN or infinite."""
        check_is_fitted(self)
        codes = check_array(_unmasked(X), accept_sparse=("csr", "csc"), dtype=FLOATS, ensure_min_samples=0)
        if codes.shape[1] != self.n_components_:
            wrong = f"X has {codes.shape[1]} columns, but there are {self.n_components_} components"
            raise ValueError(f"{wrong}; pass codes (n_samples, {self.n_components_}), as transform returns them")
        return np.asarray(codes @ self.components_)

    def _read_start(self, X: Any, W: Any, H: Any) -> tuple[np.ndarray, np.ndarray] | None:
        """The start that is given, checked as scikit-learn does; None without init="custom"."""
        if self.init != "custom":
            if W is not None or H is not None:
                warnings.warn(
                    "When init!='custom', provided W or H are ignored. Set init='custom' to start from them.",
                    RuntimeWarning,
                    stacklevel=_level_of_caller(),
                )
            return None
        missing = " and ".join(name for name, given in (("W", W), ("H", H)) if given is None)
        if missing:
            raise ValueError(f"init='custom' starts from W and H, but {missing} is missing; give both to fit")
        n, p = X.shape
        k = None if self.n_components == "auto" else self._width(p)
        H = _read_factor("H", H, (k, p), X.dtype)
        return _read_factor("W", W, (n, len(H)), X.dtype), H

    def _width(self, otherwise: int) -> int:
        if self.n_components in (None, "auto"):
            return otherwise
        check_integer("n_components (unless None or 'auto')", self.n_components, 1)
        return int(self.n_components)

    def _make_core(self, width: int) -> decomposition.NMF:
        if self.solver != "mu" and not self._squared_error:
            wrong = f"solver {self.solver!r} does not handle beta_loss = {self.beta_loss!r}"
            raise ValueError(f"Invalid beta_loss parameter: {wrong}; use solver='mu'")
        return decomposition.NMF(
            self._width(width),
            solver=self._solver,
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

    @property
    def _squared_error(self) -> bool:
        return self.beta_loss in (2, "frobenius")

    @property
    def _solver(self) -> str:
        return THEIR_SOLVERS.get(self.solver, self.solver)

    def _publish(self, components: np.ndarray, n_iter: int, error: float | None) -> None:
        self.components_, self.n_components_, self.n_iter_ = components, len(components), n_iter
        self.__dict__.pop("reconstruction_err_", None)
        if error is not None:
            self.reconstruction_err_ = error

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "components_")

    @property
    def _n_features_out(self) -> int:
        return self.components_.shape[0]

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn may expect: non-negative input, with the squared error also sparse; dtypes kept."""
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.input_tags.sparse = self._squared_error
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

    @AvailableIf(_has_clusters)
    def fit_predict(self, X: Any, y: Any = None) -> np.ndarray:
        """`fit`, and the cluster (n,) of every sample. UnavailableError (a ValueError) without n_clusters."""
        return self.fit(X).labels_

    @AvailableIf(_has_clusters)
    def predict(self, X: Any) -> np.ndarray:
        """See `deepnmf_jax.Dn2MFGL.predict`. UnavailableError (a ValueError) without n_clusters."""
        check_is_fitted(self)
        return super().predict(X)

    @property
    def _n_features_out(self) -> int:
        return self.components_.shape[0]


def _validated(estimator: Any, X: Any, reset: bool) -> Any:
    """X as scikit-learn checks it, non-negative; dense or sparse."""
    if issparse(X) and not estimator.__sklearn_tags__().input_tags.sparse:
        raise ValueError(
            f"X is sparse, but beta_loss = {estimator.beta_loss!r} needs the reconstruction of every entry, so dense "
            "data: X.toarray()"
        )
    X = validate_data(estimator, _unmasked(X), accept_sparse=("csr", "csc"), dtype=FLOATS, reset=reset)
    check_non_negative(X, f"{type(estimator).__name__} (input X)")
    return X


def _unmasked(X: Any, name: str = "X") -> Any:
    """X itself. ValueError for a masked array: scikit-learn's checks would take its hidden numbers for data."""
    if has_hidden(X):
        raise ValueError(
            f"{name} is a masked array, and scikit-learn's protocol has no masks; fill it ({name}.filled(0)), or for "
            "data use deepnmf_jax.NMF, whose fit takes mask="
        )
    return X


def _read_factor(name: str, given: Any, shape: tuple[int | None, int], dtype: np.dtype) -> np.ndarray:
    """W or H to start from, of that shape (None: any) and dtype. Raises and says what scikit-learn's NMF does."""
    factor = check_array(_unmasked(given, name), input_name=name)
    for which, wanted, got in zip(("first", "second"), shape, factor.shape, strict=True):
        if wanted not in (None, got):
            raise ValueError(
                f"Array with wrong {which} dimension passed to NMF (input {name}). Expected {wanted}, but got {got}."
            )
    check_non_negative(factor, f"NMF (input {name})")
    if not factor.any():
        raise ValueError(f"Array passed to NMF (input {name}) is full of zeros.")
    # Lists and tables have no dtype of their own.
    if hasattr(given, "dtype") and factor.dtype.newbyteorder("=") != dtype:
        raise DtypeError(
            f"H and W should have the same dtype as X, {dtype}, but {name} has {factor.dtype}; convert it: "
            f"{name}.astype('{dtype}')"
        )
    return factor.astype(dtype, copy=False)


@contextmanager
def _their_warnings() -> Iterator[None]:
    """Our ConvergenceWarning as scikit-learn's."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        yield
    for warning in seen:
        ours = issubclass(warning.category, decomposition.ConvergenceWarning)
        warnings.warn(
            str(warning.message), ConvergenceWarning if ours else warning.category, stacklevel=_level_of_caller()
        )


def _level_of_caller() -> int:
    """The `stacklevel` of a warning that points at the user's line, beyond this package and scikit-learn's wrappers."""
    level, frame = 1, sys._getframe(1)
    inner = {"deepnmf_jax", "sklearn", "contextlib"}
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in inner:
        level, frame = level + 1, frame.f_back
    return level
