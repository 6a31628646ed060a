"""`NMF` in scikit-learn's protocol."""

from typing import Any, Self

import numpy as np
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted

from deepnmf_jax import decomposition
from deepnmf_jax.decomposition.protocol import AvailableIf
from deepnmf_jax.decomposition.updates.solvers import check_batches, settings_of
from deepnmf_jax.sklearn.base import Factorization
from deepnmf_jax.sklearn.checks import (
    FLOATS,
    check_init,
    read_start,
    readable,
    their_warnings,
    validated,
    width_of,
)

# Their names of solvers, and ours.
THEIR_SOLVERS = {"cd": "hals"}


def _takes_batches(model: "NMF") -> None:
    check_batches(settings_of(model._solver, model.beta_loss))


class NMF(Factorization):
    """Non-negative matrix factorization X ~ W H with scikit-learn's names and its objective; solved by JAX.

    Args:
        n_components: k; None: as many as features; "auto": as many as rows of H with init="custom", else as features.
        init: None ("nndsvda"), "nndsvda", "nndsvd", "nndsvdar", "random", or "custom" with W and H given to `fit`.
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
        shuffle: whether "hals" goes through the components in an order drawn once a fit.
        known_H: (f, p), f <= k, what is known of the first f components: numbers stay as they are, NaN is found.

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
        shuffle: bool = False,
        known_H: Any = None,
    ) -> None:
        self.n_components, self.init, self.solver, self.beta_loss = n_components, init, solver, beta_loss
        self.tol, self.max_iter, self.random_state = tol, max_iter, random_state
        self.alpha_W, self.alpha_H, self.l1_ratio = alpha_W, alpha_H, l1_ratio
        self.n_restarts, self.inner_iter, self.verbose, self.shuffle = n_restarts, inner_iter, verbose, shuffle
        self.known_H = known_H

    def fit_transform(self, X: Any, y: Any = None, W: Any = None, H: Any = None) -> np.ndarray:
        """Learn H from X and return W (n, k).

        Args:
            X: (n, p), non-negative, dense or sparse.
            y: ignored.
            W: with init="custom" the start (n, k), of the dtype of X; otherwise ignored with a RuntimeWarning.
            H: with init="custom" the start (k, p), likewise.

        Raises:
            ValueError: X, or a start, of another shape, with entries that are negative, NaN or infinite, or masked; a
                start that is missing or full of zeros; an argument of the constructor outside what it allows.
            TypeError: (a ValueError too) a start of another dtype than X.
        """
        X = validated(self, X, reset=True)
        start = read_start(self, X, W, H)
        core = self._make_core(X.shape[1] if start is None else len(start[1]))
        check_init(self.init, core.nb_concepts, X.shape)
        with their_warnings():
            codes, components = core.fit(X, init=start)
        self._core, self._n_batches = core, 0
        self._publish(components, max(1, core.n_iter_ or 0), core.reconstruction_err_)
        return codes

    @AvailableIf(_takes_batches)
    def partial_fit(self, X: Any, y: Any = None, W: Any = None, H: Any = None) -> Self:
        """One step on the batch X (b, p), from the sums over all batches so far. Returns self.

        The first batch makes the start, or the last `fit` is it.

        Raises:
            ValueError: as in `fit_transform`; W or H, or init="custom" before any fit.
            UnavailableError: (a ValueError and AttributeError) a solver that takes no batches.
        """
        first = not hasattr(self, "components_")
        if W is not None or H is not None or (first and self.init == "custom"):
            raise ValueError(
                "partial_fit starts from its first batch and uses no W and H, which belong to fit and fit_transform; "
                f"call it without them, with init=None, 'nndsvda', 'nndsvd' or 'random' (now {self.init!r})"
            )
        X = validated(self, X, reset=first)
        core = self._make_core(X.shape[1]) if first else self._core
        core.partial_fit(X)
        # Only now: a batch that was refused leaves no estimator that looks fitted.
        self._core, self._n_batches = core, getattr(self, "_n_batches", 0) + 1
        self._publish(core.D, self._n_batches, None)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """W (n, k) of X (n, p) for the learned H."""
        check_is_fitted(self)
        return self._core.encode(validated(self, X, reset=False))

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Data (n, p) from codes W (n, k), dense or sparse. ValueError for codes of another width, NaN or infinite."""
        check_is_fitted(self)
        codes = check_array(readable(X), accept_sparse=("csr", "csc"), dtype=FLOATS, ensure_min_samples=0)
        if codes.shape[1] != self.n_components_:
            wrong = f"X has {codes.shape[1]} columns, but there are {self.n_components_} components"
            raise ValueError(f"{wrong}; pass codes (n_samples, {self.n_components_}), as transform returns them")
        return np.asarray(codes @ self.components_)

    def _make_core(self, width: int) -> decomposition.NMF:
        if self.solver != "mu" and not self._squared_error:
            wrong = f"solver {self.solver!r} does not handle beta_loss = {self.beta_loss!r}"
            raise ValueError(f"Invalid beta_loss parameter: {wrong}; use solver='mu'")
        return decomposition.NMF(
            width_of(self, width),
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
            shuffle=self.shuffle,
            known_D=self.known_H,
        )

    @property
    def _squared_error(self) -> bool:
        return self.beta_loss in (2, "frobenius")

    @property
    def _solver(self) -> str:
        return THEIR_SOLVERS.get(self.solver, self.solver)

    def _publish(self, components: np.ndarray, n_iter: int, error: float | None) -> None:
        self.components_, self.n_components_, self.n_iter_ = components, len(components), n_iter
        self._n_components = self.n_components_
        self.__dict__.pop("reconstruction_err_", None)
        if error is not None:
            self.reconstruction_err_ = error
