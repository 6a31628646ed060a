"""NMF: A ~ Z D with Z >= 0 and D >= 0, in the interface of overcomplete over the functions of `solve` and `codes`."""

import math
import warnings
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental.sparse import BCOO

from deepnmf_jax.core.checks import check_choice, check_integer, is_concrete
from deepnmf_jax.decomposition import streaming
from deepnmf_jax.decomposition.codes import compiled_search, encode
from deepnmf_jax.decomposition.estimator import ENCODE_LIMIT, FIT_LIMIT, Estimator
from deepnmf_jax.decomposition.io import arrays, progress
from deepnmf_jax.decomposition.io.checked import Data, check_shape, read_data, with_missing_filled
from deepnmf_jax.decomposition.updates.fit import Factorization, fit
from deepnmf_jax.decomposition.updates.loop import Descent, history_length, in_view
from deepnmf_jax.decomposition.updates.objective import Penalties, divergence, penalty, rescaled, scaled_penalties
from deepnmf_jax.decomposition.updates.solvers import SOLVERS, Settings
from deepnmf_jax.decomposition.updates.starts import INITS, compiled_start

BETA_LOSSES = {"frobenius": 2.0, "kullback-leibler": 1.0, "itakura-saito": 0.0}


# The arithmetic around a fit is compiled in a few pieces: one operation after the other, each would be a program of
# its own for every new shape, and to compile them takes longer than the fit of a small matrix.
@jax.jit
def _outcome(
    done: Descent[Factorization], penalties: Penalties, root: Array | float
) -> tuple[Descent[Factorization], Array, Array]:
    """Of the fits from all starts: the one with the least objective, its dictionary times `root`, all divergences."""
    best = jnp.argmin(jnp.where(jnp.isnan(done.value), jnp.inf, done.value))
    divergences = done.value - jax.vmap(penalty, (0, 0, None))(done.state.zt, done.state.d, penalties)
    done = jax.tree.map(lambda x: x[best], done)
    return done, done.state.d * root, divergences


@partial(jax.jit, static_argnames=("beta",))
def _judge(
    a: Array | BCOO, zt: Array, d: Array, weights: Array | None, root: Array | float, beta: float
) -> tuple[Array, Array, Array]:
    """Codes Z (n, k) times `root` from Z^T, their divergence from A, and how many atoms are without effect."""
    effective = jnp.any(zt > 0, axis=1) & jnp.any(d > 0, axis=1)
    return (zt * root).T, divergence(a, zt, d, beta, weights), jnp.sum(~effective)


@jax.jit
def _scaled_transpose(zt: Array, root: Array | float) -> Array:
    return (zt * root).T


class Report(NamedTuple):
    """How a fit ended, for people: reached, iterations, last change of the objective (relative to it, over
    ten sweeps), projected gradient relative to the start, atoms without effect, atoms replaced."""

    converged: bool
    iterations: int
    change: float
    gradient: float
    n_dead: int
    n_revived: int


class NMF(Estimator):
    """Non-negative matrix factorization A ~ Z D: A (n, p), codes Z (n, k), dictionary D (k, p), all >= 0.

    Minimises the beta divergence plus penalties in scikit-learn's scaling,

        div(A, Z D) + alpha_W l1_ratio p ||Z||_1 + alpha_H l1_ratio n ||D||_1
                    + 0.5 alpha_W (1 - l1_ratio) p ||Z||^2 + 0.5 alpha_H (1 - l1_ratio) n ||D||^2.

    Args:
        nb_concepts: k, the number of parts; `n_components` is another name for it.
        device: "cpu", "gpu", "cuda:1" or a JAX device; None: where the data is, else JAX's default.
        solver: "hals" (coordinate descent), "mu" (multiplicative), "anls" (each half solved), "pgd" (accelerated
            projected gradient). Other divergences than the squared error need "mu".
        tol: a fit ends when the objective falls by less than tol times itself over ten sweeps; 0: at max_iter. Codes
            are solved until the projected gradient of each is below 0.01 tol of the largest one at Z = 0.
        verbose: a progress bar, with the objective in `fit` and the gradient left (relative, see `tol`) in `encode`.
        n_components: k.
        init: "nndsvda", "nndsvd", "random".
        max_iter: sweeps of `fit` and of `encode`; None: 500 and 300.
        random_state: seed; the same one gives the same result on the same device.
        beta_loss: "frobenius" (2), "kullback-leibler" (1), "itakura-saito" (0) or the number beta.
        alpha_W: strength of the penalties of the codes.
        alpha_H: strength of the penalties of the dictionary; "same": alpha_W.
        l1_ratio: share of the L1 norm in the penalties, in [0, 1].
        dtype: "float32" or "float64" to compute in; None: float64 for float64 data, else float32.
        n_restarts: so many starts at once (the first by `init`, the others random); the best one is kept.
        warm_start: whether `fit` goes on from the last dictionary and codes, if the shapes are the same.
        inner_iter: repeats of the column loop of "hals" (updates of "mu") for each product with A.

    Attributes:
        report_: how the fit ended (`Report`).
        n_dead_: atoms without effect.
        restart_errors_: reconstruction error of every restart, of the start that was kept alone if there was one.

    Raises:
        ValueError: an argument outside what it allows.

    Sources: Lee and Seung 2001; Cichocki and Phan 2009; Fevotte and Idier 2011; Boutsidis and Gallopoulos 2008.
    """

    solvers = SOLVERS
    saved_arrays = ("_d", "_m", "_n", "_seen")

    def __init__(
        self,
        nb_concepts: int | None = None,
        device: Any = None,
        solver: str = "hals",
        tol: float = 1e-4,
        verbose: bool = False,
        *,
        n_components: int | None = None,
        init: str = "nndsvda",
        max_iter: int | None = None,
        random_state: int = 0,
        beta_loss: float | str = "frobenius",
        alpha_W: float = 0.0,
        alpha_H: float | str = "same",
        l1_ratio: float = 0.0,
        dtype: str | None = None,
        n_restarts: int = 1,
        warm_start: bool = False,
        inner_iter: int = 3,
    ) -> None:
        super().__init__(nb_concepts, device, solver, tol, verbose, n_components, max_iter, random_state, dtype)
        check_choice("init", init, INITS)
        check_integer("n_restarts", n_restarts, 1)
        check_integer("inner_iter", inner_iter, 1)
        self.init, self.n_restarts, self.warm_start, self.inner_iter = init, n_restarts, warm_start, inner_iter
        self.beta_loss, self.alpha_W, self.alpha_H, self.l1_ratio = beta_loss, alpha_W, alpha_H, l1_ratio
        for name, value in (("alpha_W", alpha_W), ("alpha_H", 0.0 if alpha_H == "same" else alpha_H)):
            if not (isinstance(value, (int, float)) and 0 <= value < math.inf):
                raise ValueError(f"{name} = {value!r}, but it must be a number of at least 0 (alpha_H: or 'same')")
        if not (isinstance(l1_ratio, (int, float)) and 0 <= l1_ratio <= 1):
            raise ValueError(f"l1_ratio = {l1_ratio!r}, but it must lie in [0, 1]")
        self._settings = Settings(solver, beta_of(beta_loss), inner_iter)
        if self._settings.beta != 2 and solver != "mu":
            raise ValueError(f"beta_loss = {beta_loss!r} needs solver = 'mu'; {solver!r} minimises the squared error")

    def _forget(self) -> None:
        super()._forget()
        self._zt: Array | None = None
        self._m: Array | None = None
        self._n: Array | None = None
        self._seen: float = 0.0
        self.report_: Report | None = None
        self.n_dead_: int | None = None
        self.restart_errors_: np.ndarray | None = None

    def fit(
        self, A: Any, max_iter: int | None = None, *, weights: Any = None, mask: Any = None, init: Any = None
    ) -> tuple[Any, Any]:
        """Find Z and D for A.

        Args:
            A: matrix (n, p), non-negative: numpy, JAX (also `BCOO` and sharded arrays), torch, nested list,
                scipy.sparse, or an iterable of batches (b, p) that can be walked through again, once an epoch; of a
                one-shot iterator one pass is made (`partial_fit`).
            max_iter: sweeps (epochs) at most; None: the constructor's, else 500.
            weights: how much each entry counts (n, p), or each sample (n,).
            mask: 1 where an entry of A is known, (n, p); A may be NaN elsewhere.
            init: (Z, D) to start from, used as they are.

        Returns:
            Z (n, k) and D (k, p), of the kind of A (numpy for lists, scipy.sparse and iterables).

        Raises:
            ValueError: A, weights, mask or init do not fit; nothing of an earlier fit is lost then.
        """
        limit = self._limit(max_iter, FIT_LIMIT)
        if arrays.is_batches(A):
            if weights is not None or mask is not None or init is not None:
                raise ValueError("weights, mask and init are for one matrix, not for an iterable of batches")
            return streaming.fit_batches(self, A, None if max_iter is self.max_iter is None else limit)
        dtype = arrays.dtype_for(A, self.dtype)
        with arrays.with_precision(dtype):
            data = self._read(A, dtype, weights=weights, mask=mask)
            start = self._given_start(init, data, dtype)
            previous = (self._zt, self._d) if self.warm_start and self._zt is not None and self._d is not None else None
            fits = previous and previous[0].shape[1] == data.a.shape[0] and previous[1].shape[1] == data.a.shape[1]
            if start is None and previous and fits:
                root = math.sqrt(data.scale)
                start = (previous[0].astype(dtype) / root, previous[1].astype(dtype) / root)
            self._forget()
            self._remember_kind(A)
            self._scale = data.scale
            if data.zero:
                return self._fit_zeros(data, dtype)
            return self._fit(data, start, limit, dtype)

    def _read(self, a: Any, dtype: np.dtype, **more: Any) -> Data:
        data = read_data(a, dtype, self.device, positive=self._settings.beta <= 0, **more)
        if isinstance(data.a, BCOO) and self._settings.beta != 2:
            raise ValueError(
                f"beta_loss = {self.beta_loss!r} needs the reconstruction of every entry, so a dense A; convert it "
                "with A.toarray() or A.todense()"
            )
        return data

    def _penalties(self, shape: tuple[int, ...], scale: float) -> Penalties:
        given = scaled_penalties(self.alpha_W, self.alpha_H, self.l1_ratio, *shape[:2])
        return rescaled(given, scale, self._settings.beta)

    def _given_start(self, init: Any, data: Data, dtype: np.dtype) -> tuple[Array, Array] | None:
        if init is None:
            return None
        z, d = (arrays.to_dense(factor, dtype, self.device) for factor in init)
        (n, p), k = data.a.shape, self.nb_concepts
        if z.shape != (n, k) or d.shape != (k, p):
            raise ValueError(f"init has shapes {z.shape} and {d.shape}; Z must be {(n, k)} and D {(k, p)}")
        for name, factor in (("Z", z), ("D", d)):
            if not bool(jnp.all(jnp.isfinite(factor) & (factor >= 0))):
                raise ValueError(f"{name} of init has entries that are negative, NaN or infinite")
        root = math.sqrt(data.scale)
        return z.T / root, d / root

    def _fit_zeros(self, data: Data, dtype: np.dtype) -> tuple[Any, Any]:
        n, p = data.a.shape
        self._d, self._zt = jnp.zeros((self.nb_concepts, p), dtype), jnp.zeros((self.nb_concepts, n), dtype)
        self._report(0, True, np.zeros(1, dtype), 0.0)
        self.report_, self.n_dead_ = Report(True, 0, 0.0, 0.0, self.nb_concepts, 0), self.nb_concepts
        self.restart_errors_ = np.zeros(1, dtype)
        return self._restore(self._zt.T), self.D

    def _starts(self, data: Data, start: tuple[Array, Array] | None) -> tuple[Array, Array]:
        """Starting factors of every restart, Z^T (r, k, n) and D (r, k, p)."""
        filled = with_missing_filled(data)
        keys = jax.random.split(self._key(), self.n_restarts)
        starts = [] if start is None else [start]
        for i in range(len(starts), self.n_restarts):
            starts.append(compiled_start(keys[i], filled, self.nb_concepts, self.init if i == 0 else "random"))
        if self.solver == "mu" and any(bool(jnp.any(f == 0)) for pair in starts for f in pair):
            warnings.warn(
                "the start of solver='mu' holds zeros, which it can never leave; use init='nndsvda' or 'random'",
                UserWarning,
                stacklevel=4,
            )
        return jnp.stack([zt for zt, _ in starts]), jnp.stack([d for _, d in starts])

    def _fit(self, data: Data, start: tuple[Array, Array] | None, limit: int, dtype: np.dtype) -> tuple[Any, Any]:
        penalties = self._penalties(data.a.shape, data.scale)
        zts, ds = self._starts(data, start)
        length = history_length(limit)
        with progress.bar(self.verbose, limit, "fit", data.scale**self._settings.beta) as report:

            def advance(start: Any, stop_at: int) -> Descent[Factorization]:
                return fit(start, data.a, penalties, self._settings, data.weights, self.tol, stop_at, length)

            done = in_view(advance, (zts, ds), limit, report)
        root = math.sqrt(data.scale)
        done, self._d, divergences = _outcome(done, penalties, root)
        state = done.state
        zt = self._solve_codes(data, self._limit(None, ENCODE_LIMIT), self.tol)
        z, error, dead = _judge(data.a, zt, state.d, data.weights, root, self._settings.beta)
        unit = data.scale**self._settings.beta
        self.restart_errors_ = np.sqrt(2 * np.maximum(np.asarray(divergences), 0) * unit)
        self.n_dead_ = n_dead = int(dead)
        history = np.asarray(done.history)[: int(done.looks)]
        change = (history[-2] - history[-1]) / (history[-2] if history[-2] > 0 else 1) if len(history) > 1 else np.inf
        relative = float(state.gradient) / (float(state.first_gradient) or 1.0)
        n_iter, converged = int(done.sweeps), bool(done.converged)
        self.report_ = Report(converged, n_iter, float(change), relative, n_dead, int(state.revived))
        if self.warm_start:
            self._zt = z.T
        self._report(n_iter, converged, history * unit, math.sqrt(2 * max(float(error) * unit, 0)))
        return self._restore(z), self.D

    def _solve_codes(self, data: Data, limit: int, tol: float) -> Array:
        """Z^T (k, n) of scaled data for the dictionary: the same computation in `fit` and in `encode`."""
        d = self._dictionary() / math.sqrt(self._scale)
        penalties = self._penalties(data.a.shape, self._scale)
        with progress.bar(self.verbose, limit, "encode", shows="gradient") as report:

            def advance(start: Any, stop_at: int) -> Descent[Array]:
                return compiled_search(start, data.a, d, penalties, data.weights, self._settings, tol, stop_at)

            return in_view(advance, None, limit, report).state

    def encode(
        self, A: Any, max_iter: int | None = None, tol: float | None = None, *, weights: Any = None, mask: Any = None
    ) -> Any:
        """Codes Z (n, k) of A (n, p) for the fitted dictionary: deterministic, on the data of the fit those of `fit`.

        Under `jax.grad`, `jax.jit` and `jax.vmap` A may be traced (its values are not checked then); gradients are
        those of `codes.encode`, which also differentiates with respect to the dictionary.

        Args:
            A: as in `fit`; an iterable of batches is encoded batch by batch.
            max_iter: sweeps at most; None: the constructor's, else 300.
            tol: None: the constructor's; 0: all sweeps are made.
            weights: as in `fit`.
            mask: as in `fit`.

        Raises:
            ValueError: before `fit`, for bad values, for another number of features.
        """
        d = self._dictionary()
        limit = self._limit(max_iter, ENCODE_LIMIT)
        tol = self.tol if tol is None else tol
        if arrays.is_batches(A):
            parts = [self.encode(arrays.batch_of(b), max_iter, tol) for b in A]
            return np.concatenate([arrays.to_numpy(part, None) for part in parts])
        if isinstance(A, Array) and not is_concrete(A):
            check_shape(A.shape, d.shape[1])
            root = math.sqrt(self._scale)
            penalties = self._penalties(A.shape, self._scale)
            return encode(A / self._scale, d / root, penalties, weights, self._settings, limit, tol) * root
        with arrays.with_precision(d.dtype):
            data = self._read(A, d.dtype, weights=weights, mask=mask, features=d.shape[1], scale=self._scale)
            z = _scaled_transpose(self._solve_codes(data, limit, tol), math.sqrt(self._scale))
            return self._restore(z, arrays.kind_of(A), A)

    def partial_fit(self, A: Any) -> "NMF":
        """One step on one batch A (b, p): its codes, then the dictionary from the statistics of all batches so far."""
        streaming.partial_fit(self, A)
        return self

    def init_nndsvda(self, A: Any) -> tuple[Any, Any]:
        """NNDSVDa start (Z, D) for A, of its kind and dtype; zeros are filled with sqrt(mean(A) / k)."""
        dtype = arrays.dtype_for(A, self.dtype)
        with arrays.with_precision(dtype):
            data = read_data(A, dtype, self.device)
            if data.zero:
                zt, d = (jnp.zeros((self.nb_concepts, m), dtype) for m in data.a.shape)
            else:
                zt, d = compiled_start(self._key(), data.a, self.nb_concepts, "nndsvda")
            root = math.sqrt(data.scale)
            return tuple(self._restore(f * root, arrays.kind_of(A), A) for f in (zt.T, d))  # type: ignore[return-value]


def beta_of(beta_loss: float | str) -> float:
    """The number beta of a beta_loss given by name or number. ValueError for another name."""
    if isinstance(beta_loss, str):
        check_choice("beta_loss", beta_loss, tuple(BETA_LOSSES))
        return BETA_LOSSES[beta_loss]
    if not (isinstance(beta_loss, (int, float)) and math.isfinite(beta_loss)):
        raise ValueError(f"beta_loss = {beta_loss!r}; use one of {', '.join(BETA_LOSSES)} or a number")
    return float(beta_loss)
