"""NMF: A ~ Z D with Z >= 0 and D >= 0, in the interface of overcomplete over the functions of `solve` and `codes`."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from deepnmf_jax.compiled import at_once
from deepnmf_jax.core.checks import check_choice, check_flag, check_integer, check_number, plain
from deepnmf_jax.decomposition.codes import compiled_meanwhile, encode, find_codes
from deepnmf_jax.decomposition.estimator import ENCODE_LIMIT, FIT_LIMIT
from deepnmf_jax.decomposition.io import arrays, progress
from deepnmf_jax.decomposition.io.checked import Data, is_traced, read_data, read_start
from deepnmf_jax.decomposition.io.host import beside, host_matrix_of, scaled, transposed
from deepnmf_jax.decomposition.io.saving import Kind
from deepnmf_jax.decomposition.io.units import power, reconstruction_error, unit_of_objective
from deepnmf_jax.decomposition.known import Known, check_known, free_of, with_known
from deepnmf_jax.decomposition.neighborhood import graph_of
from deepnmf_jax.decomposition.starting import Starting
from deepnmf_jax.decomposition.updates.fit import Factorization, Report, best_of, fit, judge, report_of
from deepnmf_jax.decomposition.updates.loop import Descent, history_length, in_view
from deepnmf_jax.decomposition.updates.objective import Smoothness, Target, at_unit
from deepnmf_jax.decomposition.updates.solvers import SOLVERS, settings_of
from deepnmf_jax.decomposition.updates.starts import INITS


class NMF(Starting):
    """Non-negative matrix factorization A ~ Z D: A (n, p), codes Z (n, k), dictionary D (k, p), all >= 0.

    Minimises the beta divergence plus penalties in scikit-learn's scaling,

        div(A, Z D) + alpha_W l1_ratio p ||Z||_1 + alpha_H l1_ratio n ||D||_1
                    + 0.5 alpha_W (1 - l1_ratio) p ||Z||^2 + 0.5 alpha_H (1 - l1_ratio) n ||D||^2
                    + 0.5 ortho_W p sum_{i!=j} z_i z_j + 0.5 ortho_H n sum_{i!=j} d_i d_j
                    + 0.5 alpha_graph sum_j ||d_j||^2 z_j^T L z_j

    with z_j the columns of Z, d_j the rows of D, L the Laplacian of a graph over the samples.

    Args:
        nb_concepts: k, the number of parts; `n_components` is another name for it.
        device: "cpu", "gpu", "cuda:1" or a JAX device; None: where the data is, else JAX's default.
        solver: "hals" (coordinate descent), "mu" (multiplicative), "anls" (each half solved), "pgd" (accelerated
            projected gradient). Other divergences than the squared error need "mu".
        tol: a fit ends when the objective falls by less than tol times itself over ten sweeps; 0: at max_iter. Codes
            are solved until the projected gradient of each is below 0.01 tol of the largest one at Z = 0.
        verbose: a progress bar, with the objective in `fit` and the gradient left (relative, see `tol`) in `encode`.
        n_components: k.
        init: "nndsvda", "nndsvd", "nndsvdar", "random".
        max_iter: sweeps of `fit` and of `encode`; None: 500 and 300.
        random_state: seed; the same one gives the same result on the same device.
        beta_loss: "frobenius" (2), "kullback-leibler" (1), "itakura-saito" (0) or the number beta.
        alpha_W: strength of the penalties of the codes.
        alpha_H: strength of the penalties of the dictionary; "same": alpha_W.
        l1_ratio: share of the L1 norm in the penalties, in [0, 1].
        dtype: "float32" or "float64" to compute in; None: float64 for float64 data, else float32.
        n_restarts: so many starts at once (the first by `init`, the others random); the best one is kept.
        warm_start: whether `fit` goes on from the last dictionary and codes, if the shapes are the same. Codes are not
            saved: after `load` the first `fit` begins anew.
        inner_iter: repeats of the column loop of "hals" (updates of "mu") for each product with A.
        shuffle: whether "hals" goes through the atoms in an order drawn once a fit; D has the order of the start.
        known_D: (f, p), f <= k, what is known of the first f rows of D: numbers stay as they are, NaN is found.
        alpha_graph: how much codes of samples that the graph of `fit` binds are pulled together, of atoms of unit
            length (Cai et al. 2011). The codes of `fit` then know their neighbours; `encode` finds them alone.
        ortho_W: penalty of codes in which several atoms are active; needs alpha_H, which keeps D from growing.
        ortho_H: penalty of atoms that overlap; needs alpha_W, which keeps the codes from growing.

    Attributes:
        report_: how the fit ended (`Report`). It and the next two are None after a fit of batches and after `load`.
        n_dead_: atoms without effect.
        restart_errors_: reconstruction error of every restart, of the start that was kept alone if there was one.

    Raises:
        ValueError: an argument outside what it allows.

    Sources: Lee and Seung 2001; Cichocki and Phan 2009; Fevotte and Idier 2011; Boutsidis and Gallopoulos 2008; of the
    graph Cai, He, Han and Huang 2011.
    """

    solvers = tuple(SOLVERS)
    saved_arguments = ("known_D",)
    saved_arrays: Mapping[str, Kind] = {
        name: Kind(axes, nonnegative=True)
        for name, axes in (("_d", "kp"), ("_m", "kp"), ("_n", "kk"), ("_below", "kp"), ("_seen", ""))
    }

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
        shuffle: bool = False,
        known_D: Any = None,
        alpha_graph: float = 0.0,
        ortho_W: float = 0.0,
        ortho_H: float = 0.0,
    ) -> None:
        super().__init__(
            nb_concepts,
            n_components,
            solver=solver,
            device=device,
            tol=tol,
            verbose=verbose,
            max_iter=max_iter,
            random_state=random_state,
            dtype=dtype,
        )
        self.init, self.warm_start = check_choice("init", init, INITS), check_flag("warm_start", warm_start)
        self.n_restarts = check_integer("n_restarts", n_restarts, 1)
        self.inner_iter, self.shuffle = check_integer("inner_iter", inner_iter, 1), check_flag("shuffle", shuffle)
        self.beta_loss = plain(beta_loss)
        self.alpha_W, self.alpha_H = check_number("alpha_W", alpha_W, 0), plain(alpha_H)
        if self.alpha_H != "same":
            self.alpha_H = check_number("alpha_H (unless 'same')", self.alpha_H, 0)
        self.l1_ratio = check_number("l1_ratio", l1_ratio, 0, 1)
        settings_of(self.solver, self.beta_loss, self.inner_iter)
        self.known_D = check_known(known_D, self.nb_concepts)
        self.alpha_graph = check_number("alpha_graph", alpha_graph, 0)
        self.ortho_W, self.ortho_H = check_number("ortho_W", ortho_W, 0), check_number("ortho_H", ortho_H, 0)
        strengths = {"alpha_W": self.alpha_W, "alpha_H": self.alpha_W if self.alpha_H == "same" else self.alpha_H}
        for name, other in (("ortho_W", "alpha_H"), ("ortho_H", "alpha_W")):
            if getattr(self, name) > 0 and not strengths[other]:
                raise ValueError(
                    f"{name} = {getattr(self, name):g} has no minimum with {other} = 0: one factor shrinks while the "
                    f"other grows; pass {other} above 0"
                )

    def _forget(self) -> None:
        super()._forget()
        self._zt: Array | None = None

    def _forget_reports(self) -> None:
        super()._forget_reports()
        self.report_: Report | None = None
        self.n_dead_: int | None = None
        self.restart_errors_: np.ndarray | None = None

    def fit(
        self,
        A: Any,
        max_iter: int | None = None,
        *,
        weights: Any = None,
        mask: Any = None,
        init: Any = None,
        graph: Any = None,
        labels: Any = None,
    ) -> tuple[Any, Any]:
        """Find Z and D for A.

        Args:
            A: matrix (n, p), non-negative: numpy, JAX (also `BCOO` and sharded arrays), torch, nested list,
                scipy.sparse, or an iterable of batches (b, p) that can be walked through again, once an epoch; of a
                one-shot iterator one pass is made (`partial_fit`).
            max_iter: sweeps (epochs) at most; None: the constructor's, else 500.
            weights: how much each entry counts (n, p), or each sample (n,).
            mask: 1 where an entry of A is known, (n, p); A may be NaN elsewhere.
            init: (Z, D) to start from, used as they are but for what is known of D.
            graph: with alpha_graph, similarities of all samples (n, n), symmetric, dense or sparse; or a number of
                nearest neighbours to bind each sample to; None: 5 of them.
            labels: with alpha_graph, classes of samples (n,), -1 where unknown: samples of one class are bound, and
                those of different ones are not.

        Returns:
            Z (n, k) and D (k, p), of the kind of A (numpy for lists, scipy.sparse and iterables).

        Raises:
            ValueError: A, weights, mask, init, graph or labels do not fit; nothing of an earlier fit is lost then.
        """
        if not self.alpha_graph and (graph is not None or labels is not None):
            raise ValueError("graph and labels have no effect with alpha_graph = 0; pass NMF(..., alpha_graph=1.0)")
        limit = self._limit(max_iter, FIT_LIMIT)
        if arrays.is_batches(A):
            if weights is not None or mask is not None or init is not None:
                raise ValueError("weights, mask and init are for one matrix, not for an iterable of batches")
            return self._fit_batches(A, None if max_iter is self.max_iter is None else limit)
        dtype = arrays.dtype_for(A, self.dtype)
        with arrays.with_precision(dtype):
            data = self._read(A, dtype, weights=weights, mask=mask)
            start = None if init is None else read_start(init, data, self.nb_concepts, self.device)
            previous = (self._zt, self._d) if self.warm_start and self._zt is not None and self._d is not None else None
            fits = previous and previous[0].shape[1] == data.a.shape[0] and previous[1].shape[1] == data.a.shape[1]
            if start is None and previous and fits:
                root = math.sqrt(data.scale)
                start = (previous[0].astype(dtype) / root, previous[1].astype(dtype) / root)
            unit_of_objective(data.scale, self._settings.beta)
            known = self._known(data.a.shape[1], data.scale, dtype)
            smooth = self._smoothness(graph, labels, data)
            if data.zero:
                self._begin(A, data)
                return self._fit_zeros(data, dtype, known)
            target = self._target(data, on_host=smooth is None)._replace(smooth=smooth, free=free_of(known))
            starts = self._starts(data, target, start, known)
            # Only now, as penalties may be refused too.
            self._begin(A, data)
            return self._fit(data, target, starts, limit)

    def _read(self, a: Any, dtype: np.dtype, **more: Any) -> Data:
        # Batches of a stream come without a mask, and their weights are not used.
        return read_data(a, dtype, self.device, beta=self._settings.beta, takes_mask="mask" in more, **more)

    def _target(self, data: Data, both: bool = True, on_host: bool = False) -> Target:
        """What is to be approximated, by codes and dictionary (`both`) or by codes alone, for the dictionary of the
        fit; if `on_host`, of a sparse matrix that is there by products of SciPy, for a call that is not compiled as a
        whole."""
        n, p = data.a.shape
        a = host_matrix_of(data.a) if on_host and self._settings.beta == 2 else data.a
        a = self._matrix(a, both)
        return Target(a, self._penalties(n, p, data.scale, None if both else self._scale), data.weights)

    def _smoothness(self, graph: Any, labels: Any, data: Data) -> Smoothness | None:
        if not self.alpha_graph:
            return None
        # The term is of the squares of the data, the divergence of their power beta.
        strength = at_unit(self.alpha_graph, power(data.scale, 2 - self._settings.beta), data.scale)
        return Smoothness(graph_of(graph, labels, data), strength)

    def _fit_zeros(self, data: Data, dtype: np.dtype, known: Known | None) -> tuple[Any, Any]:
        n, p = data.a.shape
        self._zt = jnp.zeros((self.nb_concepts, n), dtype)
        self._d = with_known(jnp.zeros((self.nb_concepts, p), dtype), known)
        self._report(0, True, np.zeros(1), 0.0)
        self.report_, self.n_dead_ = Report(True, 0, 0.0, 0.0, self.nb_concepts, 0), self.nb_concepts
        self.restart_errors_ = np.zeros(1)
        return self._restore(self._zt.T), self.D

    def _fit(self, data: Data, target: Target, starts: tuple[Array, Array], limit: int) -> tuple[Any, Any]:
        beta, (zts, ds), free = self._settings.beta, starts, target.free
        order = np.random.default_rng(self.random_state).permutation(self.nb_concepts) if self.shuffle else None
        if order is not None:
            zts, ds = zts[:, order], ds[:, order]
            target = target if free is None else target._replace(free=free[order])
        root, unit = math.sqrt(data.scale), unit_of_objective(data.scale, beta)
        # From wherever one begins, the codes of the squared error end at one minimum, unless there are more atoms than
        # features. Others begin as those of `encode` do, which knows no neighbours: with those they differ anyway.
        unique = beta == 2 and target.penalties.ortho_z is None and self.nb_concepts <= data.a.shape[1]
        near = unique or target.smooth is not None
        like = (zts[0] if near else None, ds[0])
        with compiled_meanwhile(target, like, self._settings, self._limit(None, ENCODE_LIMIT), self.tol):
            done = self._sweeps(target, (zts, ds), limit, unit, "fit")
        done, best, d, divergences = best_of(done, target, root)
        if order is not None:
            back = np.argsort(order)
            d, done = d[back], done._replace(state=done.state._replace(zt=done.state.zt[back], d=done.state.d[back]))
        self._d = beside(d, data.a)
        start = jnp.asarray(done.state.zt) if near else None
        target = target._replace(free=free)
        zt = self._solve_codes(target, self._limit(None, ENCODE_LIMIT), self.tol, start)
        first = judge(zts[best], ds[best], target, root, beta)
        last = judge(zt, done.state.d, target, root, beta)
        z = beside(last.z, data.a)
        self.restart_errors_ = reconstruction_error(divergences, unit)
        history = np.asarray(done.history, np.float64)[: int(done.looks)]
        self.report_ = report_of(done, history, int(last.dead), (float(first.gradient), float(last.gradient)))
        self.n_dead_ = self.report_.n_dead
        if self.warm_start:
            self._zt = z.T
        n_iter, converged = self.report_.iterations, self.report_.converged
        self._report(n_iter, converged, history * unit, float(reconstruction_error(last.divergence, unit)))
        return self._restore(z), self.D

    def _sweeps(
        self, target: Target, starts: tuple[Array, Array], limit: int, unit: float, name: str
    ) -> Descent[Factorization]:
        """Sweeps from every start, Z^T (r, k, n) and D (r, k, p), with a bar of that name if `verbose`."""
        compiled = partial(fit, target=target, settings=self._settings, tol=self.tol, length=history_length(limit))
        with progress.bar(self.verbose, limit, name, unit) as report:
            return in_view(compiled, starts, limit, report)

    def _solve_codes(self, target: Target, limit: int, tol: float, start: Array | None = None) -> Array:
        """Z^T (k, n) of scaled data for the dictionary: the same computation in `fit` and in `encode`."""
        d = scaled(self._dictionary(), 1 / math.sqrt(self._scale))
        with progress.bar(self.verbose, limit, "encode", shows="gradient") as report:
            return find_codes(target, d, self._settings, limit, tol, report, start)

    def encode(
        self, A: Any, max_iter: int | None = None, tol: float | None = None, *, weights: Any = None, mask: Any = None
    ) -> Any:
        """Codes Z (n, k) of A (n, p) for the fitted dictionary: deterministic, on the data of the fit those of `fit`.

        With alpha_graph they are not those of the fit, but of each sample alone, without neighbours.

        Under `jax.grad`, `jax.jit` and `jax.vmap` A, weights and mask may be traced (their values are not checked
        then); gradients are those of `codes.encode`, which also differentiates with respect to the dictionary.

        Args:
            A: as in `fit`; an iterable of batches is encoded batch by batch, without weights or mask.
            max_iter: sweeps at most; None: the constructor's, else 300.
            tol: None: the constructor's; 0: all sweeps are made.
            weights: as in `fit`.
            mask: as in `fit`.

        Raises:
            ValueError: before `fit`, for bad values, for another number of features.
        """
        d = self._dictionary()
        limit = self._limit(max_iter, ENCODE_LIMIT)
        tol = self._tolerance(tol)
        if arrays.is_batches(A):
            if weights is not None or mask is not None:
                raise ValueError("weights and mask are for one matrix; encode each batch with its own, one by one")
            parts = [self.encode(batch, max_iter, tol) for batch in arrays.batches_of(A)]
            if is_traced(parts):
                return jnp.concatenate(parts)
            return np.concatenate([arrays.to_numpy(part, None) for part in parts])
        if is_traced(A, weights, mask):
            a, known, d = self._read_traced(A, weights, mask)
            root = math.sqrt(self._scale)
            penalties = self._penalties(a.shape[0], a.shape[1], self._scale)
            return encode(a, d / root, penalties, known, self._settings, limit, tol) * root
        with at_once(), arrays.with_precision(d.dtype):
            data = self._read_near(A, d.dtype, weights=weights, mask=mask, features=d.shape[1])
            zt = self._solve_codes(self._target(data, both=False, on_host=True), limit, tol)
            z = transposed(zt, self._codes_unit(data))
            return self._restore(beside(z, data.a), arrays.kind_of(A), A)
