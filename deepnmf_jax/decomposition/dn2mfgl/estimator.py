"""Dn2MFGL, the estimator: what users call. What it minimises is in objective.py, how in sweep.py and fit.py."""

import inspect
import os
from types import SimpleNamespace
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from deepnmf_jax.compiled import at_once
from deepnmf_jax.decomposition.codes import encode, find_codes
from deepnmf_jax.decomposition.dn2mfgl import scores, units
from deepnmf_jax.decomposition.dn2mfgl.arguments import check_arguments
from deepnmf_jax.decomposition.dn2mfgl.boundedness import Boundedness, after_fit, check_boundedness, refuse_or_warn
from deepnmf_jax.decomposition.dn2mfgl.contents import contents_of, fill
from deepnmf_jax.decomposition.dn2mfgl.fit import Solution, given_starts, make_starts, solve_released, solve_well_posed
from deepnmf_jax.decomposition.dn2mfgl.objective import Form, Problem, Strengths
from deepnmf_jax.decomposition.dn2mfgl.released import Factors
from deepnmf_jax.decomposition.dn2mfgl.spectral import spectral_codes
from deepnmf_jax.decomposition.dn2mfgl.strengths import RULE, Choice, Rule, balanced_alpha, choice_of, trust
from deepnmf_jax.decomposition.estimator import NotFittedError, warn_of_the_limit
from deepnmf_jax.decomposition.io import arrays, progress, saving
from deepnmf_jax.decomposition.io.checked import dense, is_traced, read_traced
from deepnmf_jax.decomposition.metrics import directions
from deepnmf_jax.decomposition.updates.graph import Graph, Neighbors, find_neighbors, knn_graph, nearest_of
from deepnmf_jax.decomposition.updates.objective import Target
from deepnmf_jax.decomposition.updates.solvers import SolverSettings

LIMITS = {"well_posed": 10_000, "released": 100}
ENCODE_LIMIT, ENCODE_TOL = 2000, 1e-6


class Dn2MFGL:
    """Deep NMF with local and global structure: X^T ~ H_1 ... H_l V, codes V that neighbours share, clusters of them.

    Minimises, with the columns of X^T the samples x_j (unit length if `normalize`), Q = H_1 ... H_l,

        sum_j sqrt(||x_j - Q v_j||^2 + delta^2) + alpha tr(V L V^T) - beta tr(V C V^T) + nu tr(V (11^T - I) V^T)
        + lam sum_i ||H_i||_F^2

    where L is the Laplacian of a graph of nearest neighbours and C = I - 11^T/n: alpha pulls neighbours together, beta
    spreads the codes (their variance is maximised), nu pushes codes of different samples apart.

    mode="released" is the published code (Saberi-Movahed et al. 2023) step by step: one robust weight per feature
    although the paper promises robustness to bad samples, no lam, a fixed number of sweeps, pretraining from random
    numbers, a binary union graph. Its objective has no minimum: V can shrink (or, where beta is too large, grow) for
    ever while H makes up for it, so its result is a matter of the number of sweeps. The default mode weighs samples,
    fixes the scale by lam and refuses settings that have no lower bound. docs/dn2mfgl.md says more.

    Args:
        layer_sizes: r_1, ..., r_l, components of every layer; the last one is the width of the codes.
        n_clusters: number of clusters for `labels_` (k-means, needs scikit-learn); None: no labels.
        alpha: local structure. None, with beta and nu: all three and the graph are chosen without labels
            (strengths.py); in mode="released": 1. A None beside numbers counts as 0.
        beta: variance of the codes.
        nu: inner products of codes of different samples.
        lam: above 0, fixes the scale of the factors.
        n_neighbors: K of the graph. The rule leaves the farthest of them out, to test the graph on it.
        robust: residuals are weighed per "sample", per "feature", or not at all ("none": squared error).
        mode: "well_posed" or "released". "released" has no use for lam, robust, join, edge_weights, normalize_graph,
            delta, layer_weights, init and tol.
        join: "union" or "mutual" neighbours; None: "union".
        edge_weights: "binary", "heat", "local_scaling", "shared" (`knn_graph`); None: by the rule
            "shared", "binary" where alpha is given.
        normalize_graph: S_ij / sqrt(d_i d_j) in place of S_ij; None: by the rule True, False where alpha is given.
        delta: residuals far below it count as squares.
        layer_weights: (l,) the weight of the structure terms on the codes of every layer, the last above 0; None:
            0, ..., 0, 1.
        init: "spectral" (low eigenvectors of the graph) or "pretrained" (the released pretraining).
        max_iter: sweeps at most; None: 10,000, and 100 in mode="released", which makes them all.
        tol: the fit ends when the objective falls by less than tol times itself over ten sweeps.
        n_init: seeds that are solved at once; the lowest objective is kept.
        normalize: samples to unit length first, and codes before they are clustered.
        random_state: seed.
        dtype: "float32" or "float64" to compute in; None: float64 for float64 data, else float32.
        verbose: a progress bar with the objective.

    Attributes:
        components_: Q^T (r_l, m), rows of unit length (as they come in mode="released"). All arrays are numpy.
        dictionaries_: H_1, ..., H_l.
        embedding_: codes (n, r_l).
        labels_: clusters (n,) by k-means on the codes (at unit length if `normalize`), the best of ten starts.
        cluster_centers_: their centres (n_clusters, r_l).
        n_iter_: sweeps.
        converged_: whether `tol` ended the fit.
        loss_history_: objective at the start and after every tenth sweep, for the data as computed with (at unit length
            if `normalize`).
        losses_: the last one of every seed.
        boundedness_: "bounded", "undecided" or "unbounded".
        certificate_: why (`Boundedness`).
        choice_: alpha, beta, nu and the graph that were used, and why (`Choice`).
        n_features_in_: m.

    Raises:
        ValueError: by `fit`, for arguments or data outside what they allow, and for settings without a lower bound.
    """

    def __init__(
        self,
        layer_sizes: tuple[int, ...] | int,
        n_clusters: int | None = None,
        alpha: float | None = None,
        beta: float | None = None,
        nu: float | None = None,
        lam: float = 1e-2,
        n_neighbors: int = 5,
        robust: str = "sample",
        mode: str = "well_posed",
        *,
        join: str | None = None,
        edge_weights: str | None = None,
        normalize_graph: bool | None = None,
        delta: float = 1e-3,
        layer_weights: tuple[float, ...] | None = None,
        init: str = "spectral",
        max_iter: int | None = None,
        tol: float = 1e-5,
        n_init: int = 1,
        normalize: bool = True,
        random_state: int = 0,
        dtype: str | None = None,
        verbose: bool = False,
    ) -> None:
        # As scikit-learn wants it: arguments are kept as they are, and looked at by fit.
        self.layer_sizes, self.n_clusters = layer_sizes, n_clusters
        self.alpha, self.beta, self.nu, self.lam = alpha, beta, nu, lam
        self.n_neighbors, self.robust, self.mode = n_neighbors, robust, mode
        self.join, self.edge_weights, self.normalize_graph = join, edge_weights, normalize_graph
        self.delta, self.layer_weights, self.init = delta, layer_weights, init
        self.max_iter, self.tol, self.n_init = max_iter, tol, n_init
        self.normalize, self.random_state, self.dtype, self.verbose = normalize, random_state, dtype, verbose

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.get_params().items())
        return f"{type(self).__name__}({given})"

    def __sklearn_tags__(self) -> Any:
        return scores.transformer_tags(self.n_clusters is not None, self.dtype)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "components_")

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name (scikit-learn's protocol)."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **params: Any) -> Self:
        """Set arguments by name. ValueError for an unknown one."""
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise ValueError(f"{name!r} is no argument of {type(self).__name__}; it has {', '.join(known)}")
            setattr(self, name, value)
        return self

    def fit(self, X: Any, y: Any = None, init: tuple[Any, Any] | None = None, rule: Rule = RULE) -> Self:
        """Learn dictionaries, codes and, with `n_clusters`, labels of X (n_samples, n_features).

        Args:
            X: non-negative, of any kind of array; sparse matrices are written out.
            y: ignored.
            init: factors to start from instead of `init` and `n_init`, in the layout of the formula: (H_1, ..., H_l),
                H_1 (m, r_1), H_i (r_{i-1}, r_i), and (V_1, ..., V_l), V_i (r_i, n); the default mode reads V_l alone.
            rule: how alpha is chosen where alpha = beta = nu = None; only studies of the rule give another.
        """
        given = self._plain()
        dtype = arrays.dtype_for(X, given.dtype)
        with arrays.with_precision(dtype):
            x, scale = self._read(X, dtype)
            n, m = x.shape
            unit = self._units(x, scale)
            if given.n_clusters is not None and given.n_clusters > n:
                raise ValueError(f"n_clusters = {given.n_clusters} with {n} samples; it must be at most that")
            neighbors = find_neighbors(x, given.n_neighbors, exclude_self=given.mode != "released")
            graph, choice, starts = self._prepare(neighbors, x.T, unit, init, rule)
            strengths, well_posed = (choice.alpha, choice.beta, choice.nu), given.mode == "well_posed"
            units.check_strengths(strengths, unit)
            certificate = check_boundedness(graph, *strengths)
            scores.check_clustering(self.n_clusters)
            refuse_or_warn(certificate, strengths, refuse=well_posed)
            solution = self._solve(starts, x.T, graph, choice, unit)
            certificate = after_fit(certificate, solution.history[-1], solution.sweeps, well_posed, unit.data)
            solution = units.restored(solution, unit, not well_posed)
            if well_posed and not solution.converged and given.tol > 0:
                warn_of_the_limit(type(self).__name__, solution.sweeps, given.tol, stacklevel=3)
            self._publish(solution, choice, certificate, m)
        if given.n_clusters is not None:
            codes = self._for_clusters(self.embedding_)
            root = units.unit_of_codes(codes)
            self.labels_, centers = scores.kmeans(codes / root, given.n_clusters, given.random_state)
            self.cluster_centers_ = centers * root
        elif hasattr(self, "labels_"):
            del self.labels_, self.cluster_centers_
        return self

    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """`fit`, and the codes (n, r_l) of the training samples, structure included."""
        return self.fit(X).embedding_

    def fit_predict(self, X: Any, y: Any = None) -> np.ndarray:
        """`fit`, and the cluster (n,) of every sample. ValueError without n_clusters."""
        if self.n_clusters is None:
            raise ValueError("fit_predict needs n_clusters, the number of clusters")
        return self.fit(X).labels_

    def transform(self, X: Any) -> Any:
        """Codes (n, r_l) of samples for the fixed dictionary: non-negative least squares, every sample for itself.

        A single sample has no graph and no variance, so the structure terms are left out; with alpha = beta = nu = 0
        these are the codes of `fit_transform` as far as both have converged. With robust="feature" (and in the released
        mode) features keep the weights that they had at the end of the fit.

        numpy, but under `jax.jit`, `jax.grad` and `jax.vmap`, where X may be traced, an array of JAX with the gradient
        of the exact codes.

        Raises:
            ValueError: another number of features, bad values, or no fit before.
        """
        self._check_fitted()
        dtype = self.components_.dtype
        if is_traced(X):
            dtype = jax.dtypes.canonicalize_dtype(dtype)
            x = jnp.asarray(dense(read_traced(X, dtype, self.n_features_in_, 1.0)[0]))
            x = units.at_unit_length(x) if self.normalize else x
            roots = np.sqrt(np.asarray(self._feature_weights, dtype))
            d = jnp.asarray(np.asarray(self.components_, dtype) * roots)
            return encode(x * roots, d, max_iter=ENCODE_LIMIT, tol=ENCODE_TOL)
        with at_once(), arrays.with_precision(dtype):
            x, scale = self._read(X, dtype, self.n_features_in_)
            roots = jnp.sqrt(jnp.asarray(self._feature_weights, dtype))
            size = units.unit_of_codes(self.components_)
            d = jnp.asarray(self.components_ / size) * roots
            codes = find_codes(Target(x * roots), d, SolverSettings(), ENCODE_LIMIT, ENCODE_TOL)
            return np.array(codes.T) * dtype.type(scale / size)

    def predict(self, X: Any) -> np.ndarray:
        """The cluster (n,) whose center is nearest to the codes of `transform`. ValueError without n_clusters in a fit.

        The codes of new samples know nothing of neighbours: with a large alpha they are spread more than those that
        the clusters come from.
        """
        if self.n_clusters is None:
            raise ValueError("predict needs n_clusters, the number of clusters")
        if is_traced(X):
            raise ValueError("predict cannot be traced by jax.jit, grad or vmap; transform can, and gives the codes")
        self._check_fitted("cluster_centers_", "clusters")
        unit = units.unit_of_codes(self.cluster_centers_)
        return scores.nearest(self._for_clusters(self.transform(X)) / unit, self.cluster_centers_ / unit)

    def _for_clusters(self, codes: Any) -> np.ndarray:
        """Codes (a table where scikit-learn's `set_output` made one) at unit length, as the samples, if `normalize`."""
        return directions(np.asarray(codes)) if self.normalize else np.asarray(codes)

    def _check_fitted(self, attribute: str = "components_", what: str = "dictionary") -> None:
        if not hasattr(self, attribute):
            raise NotFittedError(f"this {type(self).__name__} has no {what} yet; call fit first")

    def _read(self, X: Any, dtype: np.dtype, features: int | None = None) -> tuple[jax.Array, float]:
        return units.read_samples(X, dtype, self.normalize, self.mode == "released", features)

    def _units(self, x: jax.Array, scale: float) -> units.Units:
        """What the terms are for x (n, m), which is X divided by `scale`. ValueError where they hide it."""
        given = self._plain()
        released = given.mode == "released"
        if not (given.normalize or released or given.robust == "none"):
            units.check_delta(given.delta, x, scale)
        layers = len(given.layer_sizes)
        found = units.units_of(scale, layers, squares=given.robust == "none" and not released)
        units.units_of_factors(found, layers, np.dtype(x.dtype), released)  # refused before the fit, not after it
        return found

    def _plain(self) -> SimpleNamespace:
        """The arguments, checked, as Python's numbers; the attributes stay as they were given."""
        return SimpleNamespace(**check_arguments(self.get_params()))

    def _prepare(
        self, neighbors: Neighbors, x: jax.Array, unit: units.Units, init: tuple[Any, Any] | None, rule: Rule
    ) -> tuple[Graph, Choice, Factors]:
        """The graph, the structure terms and a start for every seed; x (m, n)."""
        given = self._plain()
        sizes, released = given.layer_sizes, given.mode == "released"
        choice, ruled = choice_of(vars(given), rule)
        near = neighbors if released else nearest_of(neighbors, choice.n_neighbors)
        graph = knn_graph(near, choice.join, choice.edge_weights, choice.normalize)
        spectral = init is None and not released and given.init == "spectral"
        codes = spectral_codes(graph, sizes[-1]) if spectral or ruled else None
        if init is not None:
            starts = units.starts_in(unit, given_starts(init, x, sizes))
        else:
            keys = jax.random.split(jax.random.key(given.random_state), given.n_init)
            starts = make_starts(keys, x, jnp.asarray(codes, x.dtype) if spectral else None, sizes)
        if ruled and codes is not None:
            trusted = trust(neighbors, choice.n_neighbors, np.argmax(codes, axis=0))
            balance, (h, v) = rule.balance(trusted), jax.tree.map(lambda a: a[0], (starts.h, starts.v[-1]))
            alpha = balanced_alpha(h, v, self._problem(x, graph, choice, unit), given.robust, balance)
            choice = choice.by_rule(alpha / unit.structure, trusted, balance)
        return graph, choice, starts

    def _problem(self, x: jax.Array, graph: Graph, choice: Choice, unit: units.Units) -> Problem:
        given = self._plain()
        strengths = [value * unit.structure for value in (choice.alpha, choice.beta, choice.nu)]
        numbers = (*strengths, given.lam, units.delta_in(unit, given.delta, x.dtype), given.layer_weights)
        return Problem(x, graph, Strengths(*(jnp.asarray(value, x.dtype) for value in numbers)))

    def _solve(self, starts: Factors, x: jax.Array, graph: Graph, choice: Choice, unit: units.Units) -> Solution:
        given = self._plain()
        limit = LIMITS[given.mode] if given.max_iter is None else given.max_iter
        alpha, beta, nu = (value * unit.structure for value in (choice.alpha, choice.beta, choice.nu))
        with progress.bar(given.verbose, limit, "fit", unit.objective) as report:
            if given.mode == "released":
                return solve_released(starts, x, graph, (alpha, beta, nu), limit, report)
            form = Form(given.robust, any(weight > 0 for weight in given.layer_weights[:-1]))
            return solve_well_posed(starts, self._problem(x, graph, choice, unit), form, limit, given.tol, report)

    def _publish(self, solution: Solution, choice: Choice, certificate: Boundedness, features: int) -> None:
        self.dictionaries_ = solution.dictionaries
        self.components_, self.embedding_ = solution.components, solution.codes
        self._feature_weights = solution.feature_weights
        self.n_iter_, self.converged_ = solution.sweeps, solution.converged
        self.loss_history_, self.losses_ = solution.history, solution.losses
        self.choice_, self.certificate_, self.boundedness_ = choice, certificate, certificate.status
        self.n_features_in_ = features

    def save(self, path: str | os.PathLike) -> None:
        """Write arguments, dictionaries, codes and clusters to one .npz file, without pickle; `load` reads it.

        ValueError before a fit, and where layer_sizes or n_clusters have been set to others since.
        """
        self._check_fitted()
        saving.write(path, type(self).__name__, *contents_of(self))

    @classmethod
    def load(cls, path: str | os.PathLike) -> Self:
        """The estimator that `save` wrote.

        Raises:
            OSError: there is no such file.
            ValueError: a file of another class, version or shape; a damaged file; values that no fit has.
        """
        arguments, numbers, stored = saving.read(path, cls.__name__)
        with saving.named_errors(path):
            given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}
            model = cls(**given)
            fill(model, numbers, stored)
        return model
