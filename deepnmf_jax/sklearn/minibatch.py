"""`MiniBatchNMF` in scikit-learn's protocol."""

import itertools
import math
import warnings
from collections.abc import Iterator
from typing import Any, Self

import jax
import numpy as np
from scipy.sparse import issparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, check_random_state, gen_batches
from sklearn.utils.validation import check_is_fitted

from deepnmf_jax import decomposition
from deepnmf_jax.core.checks import check_integer, check_number
from deepnmf_jax.decomposition import minibatch
from deepnmf_jax.decomposition.io.arrays import to_jax, with_precision
from deepnmf_jax.decomposition.io.nonzeros import nonzeros_of
from deepnmf_jax.decomposition.updates.beta_divergence import beta_of
from deepnmf_jax.decomposition.updates.objective import Penalties, scaled_penalties
from deepnmf_jax.sklearn.base import Factorization
from deepnmf_jax.sklearn.checks import (
    FLOATS,
    check_init,
    level_of_caller,
    read_start,
    readable,
    validated,
    width_of,
)


class MiniBatchNMF(Factorization):
    """Non-negative matrix factorization X ~ W H by mini-batches, with scikit-learn's names and rule; solved by JAX.

    Any beta divergence. Of a sparse X one batch at a time is written out; for Kullback-Leibler nothing is.

    Args:
        n_components: k; None: as many as features; "auto": as many as rows of H with init="custom", else as features.
        init: None ("nndsvda"; "random" beyond the number of samples or features), "nndsvda", "nndsvd", "nndsvdar",
            "random", or "custom" with W and H given.
        batch_size: samples in a batch.
        beta_loss: "frobenius", "kullback-leibler", "itakura-saito" or a number.
        tol: the fit ends when H changes by less, relatively; 0: not for this reason.
        max_no_improvement: batches without a smaller mean cost that end the fit; None: not for this reason.
        max_iter: passes over X at most.
        alpha_W: strength of the penalties of W.
        alpha_H: strength of the penalties of H; "same": alpha_W.
        l1_ratio: share of the L1 norm in the penalties.
        forget_factor: what the sums over the batches are multiplied with in a pass.
        fresh_restarts: whether the codes of a batch are solved anew in each step.
        fresh_restarts_max_iter: steps of that.
        transform_max_iter: steps of `transform`; None: max_iter.
        random_state: None, an integer or a numpy RandomState.
        verbose: whether each step says its cost.

    Attributes:
        components_: H (k, p).
        n_components_: k.
        n_iter_: passes over X.
        n_steps_: batches.
        reconstruction_err_: root of twice the divergence; there is none after `partial_fit`.
        n_features_in_: p.
    """

    def __init__(
        self,
        n_components: int | str | None = "auto",
        *,
        init: str | None = None,
        batch_size: int = 1024,
        beta_loss: float | str = "frobenius",
        tol: float = 1e-4,
        max_no_improvement: int | None = 10,
        max_iter: int = 200,
        alpha_W: float = 0.0,
        alpha_H: float | str = "same",
        l1_ratio: float = 0.0,
        forget_factor: float = 0.7,
        fresh_restarts: bool = False,
        fresh_restarts_max_iter: int = 30,
        transform_max_iter: int | None = None,
        random_state: Any = None,
        verbose: int | bool = 0,
    ) -> None:
        self.n_components, self.init, self.batch_size, self.beta_loss = n_components, init, batch_size, beta_loss
        self.tol, self.max_no_improvement, self.max_iter = tol, max_no_improvement, max_iter
        self.alpha_W, self.alpha_H, self.l1_ratio, self.forget_factor = alpha_W, alpha_H, l1_ratio, forget_factor
        self.fresh_restarts, self.fresh_restarts_max_iter = fresh_restarts, fresh_restarts_max_iter
        self.transform_max_iter, self.random_state, self.verbose = transform_max_iter, random_state, verbose

    def fit_transform(self, X: Any, y: Any = None, W: Any = None, H: Any = None) -> np.ndarray:
        """Learn H from X and return W (n, k).

        Args:
            X: (n, p), non-negative, dense or sparse.
            y: ignored.
            W: with init="custom" the start (n, k), of the dtype of X.
            H: with init="custom" the start (k, p), likewise.

        Raises:
            ValueError: as `NMF.fit_transform`; zeros in X for a beta_loss of 0 or less.
            TypeError: (a ValueError too) a start of another dtype than X.
        """
        X = self._read(X, reset=True)
        with with_precision(X.dtype):
            W, H = self._start(X, W, H)
            W, self._memory, steps = self._descend(X, W, H)
            H, self._share = np.array(self._memory.h), min(self.batch_size, len(W)) / len(W)
            if self.fresh_restarts:
                W = self._codes(X, H, self._transform_limit())
            per_pass = math.ceil(len(W) / self.batch_size)
            self._publish(H, math.ceil(steps / per_pass), steps)
            self.reconstruction_err_ = self._error(X, W, H)
        if self.n_iter_ == self.max_iter and self.tol > 0:
            warnings.warn(
                f"Maximum number of iterations {self.max_iter} reached. Increase it to improve convergence. (Passes of "
                f"MiniBatchNMF over X; or raise tol = {self.tol:g}.)",
                ConvergenceWarning,
                stacklevel=level_of_caller(),
            )
        return W

    def partial_fit(self, X: Any, y: Any = None, W: Any = None, H: Any = None) -> Self:
        """One step on the batch X (b, p). Returns self. The first batch makes the start, or W and H given to it do.

        Raises:
            ValueError: as in `fit_transform`.
        """
        first = not hasattr(self, "components_")
        X = self._read(X, reset=first)
        with with_precision(X.dtype):
            if first:
                H = self._start(X, W, H)[1]
                self._memory, self._steps = minibatch.remembered(_on_device(H)), 0
                self._share = min(self.batch_size, X.shape[0]) / X.shape[0]
            batch = self._batch(X, len(self._memory.h), both=True)
            codes = minibatch.solve_codes(
                batch,
                self._memory.h,
                self._penalties(batch.shape[0]),
                self._beta,
                self.fresh_restarts_max_iter,
                self.tol,
            )
            self._memory = self._step(batch, codes, self._memory, self._share)[0]
            self._publish(np.array(self._memory.h), 1, self._steps + 1)
        self.__dict__.pop("reconstruction_err_", None)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """W (n, k) of X (n, p) for the learned H."""
        check_is_fitted(self)
        X = self._read(X, reset=False)
        with with_precision(X.dtype):
            return self._codes(X, self.components_.astype(X.dtype, copy=False), self._transform_limit())

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Data (n, p) from codes W (n, k), dense or sparse. ValueError for codes of another width."""
        check_is_fitted(self)
        codes = check_array(readable(X), accept_sparse=("csr", "csc"), dtype=FLOATS, ensure_min_samples=0)
        return np.asarray(codes @ self.components_)

    def _read(self, X: Any, reset: bool) -> Any:
        self._beta = beta_of(self.beta_loss)
        check_integer("batch_size", self.batch_size, 1)
        check_integer("max_iter", self.max_iter, 1)
        check_number("tol", self.tol, 0)
        check_number("forget_factor", self.forget_factor, 0, 1)
        return validated(self, X, reset=reset)

    def _start(self, X: Any, W: Any, H: Any) -> tuple[np.ndarray, np.ndarray]:
        start = read_start(self, X, W, H)
        if start is not None:
            return start
        k = width_of(self, X.shape[1])
        check_init(self.init, k, X.shape)
        init = self.init or ("nndsvda" if k <= min(X.shape) else "random")
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        # The start alone: no sweep of the squared error is made.
        core = decomposition.NMF(k, init=init, random_state=seed)
        return core.starting_factors(X)

    def _descend(self, X: Any, W: np.ndarray, H: np.ndarray) -> tuple[np.ndarray, minibatch.Memory, int]:
        n, W = X.shape[0], np.array(W)
        batches = list(gen_batches(n, self.batch_size))
        memory, mean, least, waited, done = minibatch.remembered(_on_device(H)), None, math.inf, 0, 0
        for part in itertools.islice(itertools.cycle(batches), self.max_iter * len(batches)):
            x = self._batch(X[part], len(H), both=True)
            penalties = self._penalties(x.shape[0])
            if self.fresh_restarts:
                w = minibatch.solve_codes(
                    x, memory.h, penalties, self._beta, self.fresh_restarts_max_iter, float(self.tol)
                )
            else:
                w = minibatch.improved_codes(x, W[part], memory.h, penalties, self._beta)
            memory, cost, change = self._step(x, w, memory, min(self.batch_size, n) / n)
            W[part] = w
            done += 1
            # The first cost is that of the start.
            if done == 1:
                continue
            share = min(1.0, x.shape[0] / (n + 1))
            mean = float(cost) if mean is None else (1 - share) * mean + share * float(cost)
            if self.verbose:
                print(f"Minibatch step {done}/{self.max_iter * len(batches)}: mean batch cost: {mean}")
            waited, least = (0, mean) if mean < least else (waited + 1, least)
            patience = self.max_no_improvement
            if (self.tol > 0 and float(change) <= self.tol) or (patience is not None and waited >= patience):
                break
        return W, memory, done

    def _batch(self, x: Any, k: int, both: bool) -> Any:
        """A batch as the updates need it, of W and H (`both`) or of W alone: sparse as it is, or written out."""
        if not issparse(x):
            return _on_device(x)
        if self._beta != 1:
            return _on_device(x.toarray())
        return nonzeros_of(to_jax(x, x.dtype), k, self._beta, both)  # type: ignore[arg-type]

    def _step(self, x: Any, w: Any, memory: minibatch.Memory, share: float) -> tuple[minibatch.Memory, Any, Any]:
        return minibatch.step(x, w, memory, self._penalties(x.shape[0]), self._beta, self.forget_factor**share)

    def _penalties(self, n: int) -> Penalties:
        return scaled_penalties(self.alpha_W, self.alpha_H, self.l1_ratio, n, self._p)

    def _codes(self, X: Any, H: np.ndarray, limit: int) -> np.ndarray:
        parts = [
            minibatch.solve_codes(x, H, self._penalties(1), self._beta, limit, float(self.tol))
            for x in self._parts(X, H)
        ]
        return np.concatenate([np.asarray(part) for part in parts])

    def _parts(self, X: Any, H: np.ndarray) -> Iterator[Any]:
        for part in gen_batches(X.shape[0], self.batch_size):
            yield self._batch(X[part], len(H), both=False)

    def _error(self, X: Any, W: np.ndarray, H: np.ndarray) -> float:
        rows = gen_batches(X.shape[0], self.batch_size)
        parts = zip(rows, self._parts(X, H), strict=True)
        each = [float(minibatch.divergence_of(x, W[part], H, self._beta)) for part, x in parts]
        return math.sqrt(2 * max(sum(each), 0.0))

    def _transform_limit(self) -> int:
        return self.max_iter if self.transform_max_iter is None else self.transform_max_iter

    @property
    def _p(self) -> int:
        return int(self.n_features_in_)

    def _publish(self, components: np.ndarray, n_iter: int, steps: int) -> None:
        self.components_, self.n_components_, self.n_iter_ = components, len(components), n_iter
        self._n_components, self.n_steps_, self._steps = len(components), steps, steps


def _on_device(x: Any) -> Any:
    """An array of JAX."""
    return jax.device_put(x, may_alias=False)
