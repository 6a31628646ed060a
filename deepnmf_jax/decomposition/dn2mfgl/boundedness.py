"""Whether Dn2MFGL's objective has a lower bound, and a certificate where it has none.

It has one exactly when v^T M v >= 0 for all v >= 0 (M copositive), M = alpha L - beta (I - 11^T/n) + nu (11^T - I)
+ RIDGE I: otherwise a row of V along v grows without end, and the data term, which grows like its length, cannot hold
it. Copositivity is hard to decide in general; the tests here are exact where they speak, and say so where they do not.
docs/dn2mfgl.md derives them.
"""

import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from scipy import sparse
from scipy.sparse import linalg

from deepnmf_jax.decomposition.dn2mfgl.objective import RIDGE, global_factors
from deepnmf_jax.decomposition.updates.graph import Graph, components, similarity, times_similarity

SEARCH_STEPS = 1000
# Components up to this size have their eigenvalues computed as dense matrices.
DENSE = 400
# Starts of the search: so many of the largest components and low eigenvectors.
STARTS = 4
STATUSES = ("bounded", "undecided", "unbounded")


class UnboundedWarning(UserWarning):
    """The objective has no lower bound: what comes out depends on when the sweeps ended."""


class Boundedness(NamedTuple):
    """status: "bounded", "unbounded" or "undecided". reason: a sentence. direction (n,): v >= 0 with v^T M v < 0, of
    length 1, or None. value: v^T M v."""

    status: str
    reason: str
    direction: np.ndarray | None = None
    value: float | None = None


def check_boundedness(graph: Graph, alpha: float, beta: float, nu: float) -> Boundedness:
    """Test the setting, cheapest test first: signs, node, component, non-negative M, eigenvalues, search.

    Args:
        graph: S and its degrees.
        alpha: strength of the local term, at least 0.
        beta: strength of the variance, at least 0.
        nu: strength of the inner products, at least 0.
    """
    n = len(graph.degrees)
    if beta == 0:
        return Boundedness("bounded", "beta = 0: every term is at least 0")
    degrees = np.asarray(graph.degrees, np.float64)
    membership = components(graph)
    sizes = np.bincount(membership)
    for certificate in (_node(degrees, n, alpha, beta), _component(membership, sizes, n, beta, nu)):
        if certificate is not None:
            return certificate
    largest = float(np.max(np.asarray(graph.weights), initial=0.0))
    if nu + beta / n >= alpha * largest:
        return Boundedness("bounded", "no entry of M is negative")
    gaps, vectors = spectral_gaps(graph, membership, sizes)
    # Of nu only as much as lifts the component itself is used; the rest is at least 0 for v >= 0 anyway.
    needed = beta + beta * (1 - sizes / n) / np.maximum(sizes - 1, 1)
    if (alpha * gaps >= needed)[sizes > 1].all():
        return Boundedness("bounded", "alpha times the second eigenvalue of L outweighs beta in every component")
    return _search(graph, membership, sizes, vectors, (alpha, beta, nu))


def refuse_or_warn(certificate: Boundedness, strengths: tuple[float, float, float], refuse: bool) -> None:
    """Nothing unless the setting is unbounded: then a ValueError with the certificate, or an UnboundedWarning."""
    if certificate.status != "unbounded":
        return
    alpha, beta, nu = strengths
    setting = f"alpha = {alpha:g}, beta = {beta:g}, nu = {nu:g}"
    message = f"{setting}: the objective has no lower bound, since {certificate.reason}"
    if refuse:
        raise ValueError(message)
    warnings.warn(f"{message}; max_iter decides the result", UnboundedWarning, stacklevel=4)


def after_fit(
    certificate: Boundedness, objective: float, sweeps: int, well_posed: bool, unit: float = 1.0
) -> Boundedness:
    """The certificate, or what the fit itself showed: a negative objective is a proof that there is no lower bound.

    Raises:
        ValueError: an objective that is not finite, of data divided by `unit`.
    """
    if not np.isfinite(objective) and certificate.status == "bounded":
        raise ValueError(
            f"the objective is {objective} after {sweeps} sweeps, although it has a lower bound: numbers have left the "
            f"range of the dtype. X has entries of the size of {unit:.0e}; divide it by that, use normalize=True or "
            "dtype='float64', or smaller alpha, nu, lam"
        )
    if not np.isfinite(objective):
        raise ValueError(
            f"the objective is {objective} after {sweeps} sweeps: this setting has no lower bound "
            f"({certificate.reason}); lower beta or raise alpha"
        )
    if objective >= 0 or not well_posed:
        return certificate
    reason = "the objective fell below 0 during the fit, which it can only do if it has no lower bound"
    warnings.warn(f"{reason}; lower beta, or raise alpha or nu", UnboundedWarning, stacklevel=3)
    return Boundedness("unbounded", reason)


def _node(degrees: np.ndarray, n: int, alpha: float, beta: float) -> Boundedness | None:
    i = int(np.argmin(degrees))
    value = alpha * degrees[i] - beta * (1 - 1 / n) + RIDGE
    if value >= 0:
        return None
    alone = "has no neighbour" if degrees[i] == 0 else f"has degree {degrees[i]:.3g}"
    return Boundedness(
        "unbounded",
        f"sample {i} {alone}: alpha d = {alpha * degrees[i]:.3g} is less than beta (1 - 1/n) = "
        f"{beta * (1 - 1 / n):.3g}; lower beta to at most {max(alpha * degrees[i] / (1 - 1 / n), 0):.3g}, or raise "
        "alpha or n_neighbors",
        np.eye(1, n, i)[0],
        float(value),
    )


def _component(membership: np.ndarray, sizes: np.ndarray, n: int, beta: float, nu: float) -> Boundedness | None:
    values = nu * (sizes - 1) - beta * (1 - sizes / n) + RIDGE
    c = int(np.argmin(values))
    if values[c] >= 0:
        return None
    least = beta * (1 - sizes[c] / n) / max(int(sizes[c]) - 1, 1)
    return Boundedness(
        "unbounded",
        f"a connected component of the graph has {sizes[c]} of {n} samples: beta (1 - s/n) = "
        f"{beta * (1 - sizes[c] / n):.3g} is more than nu (s - 1) = {nu * (sizes[c] - 1):.3g}; raise nu to at least "
        f"{least:.3g}, set beta = 0, or raise n_neighbors until the graph is connected",
        (membership == c) / np.sqrt(sizes[c]),
        float(values[c]),
    )


def spectral_gaps(graph: Graph, membership: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The second eigenvalue of the Laplacian of every component (c,), less the error of its computation.

    Also the low eigenvectors (q, n) of the largest components, beyond the constant ones, 0 outside the component.
    """
    n, s = len(graph.degrees), similarity(graph)
    laplacian = (sparse.diags(np.asarray(s.sum(axis=1)).ravel()) - s).tocsr()
    gaps, found = np.full(len(sizes), np.inf), []
    largest = set(np.argsort(-sizes)[:STARTS].tolist())
    for c in np.flatnonzero(sizes > 1):
        members = np.flatnonzero(membership == c)
        values, low = _low_eigenpairs(laplacian[members][:, members], min(1 + STARTS, len(members)))
        # A bound that could not be computed, 0, holds for every Laplacian.
        gaps[c] = max(values[1], 0.0)
        if c in largest:
            whole = np.zeros((low.shape[1] - 1, n))
            whole[:, members] = low[:, 1:].T
            found.append(whole)
    return gaps, np.concatenate(found) if found else np.zeros((0, n))


def _low_eigenpairs(laplacian: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    size = laplacian.shape[0]
    if size <= DENSE:
        values, vectors = np.linalg.eigh(laplacian.toarray())
        values, vectors = values[:count], vectors[:, :count]
    else:
        start = np.random.default_rng(0).standard_normal(size)
        try:
            values, vectors = linalg.eigsh(laplacian, count, which="SA", v0=start, tol=1e-5, ncv=60)
        except linalg.ArpackNoConvergence:
            return np.zeros(count), np.zeros((size, count))
        order = np.argsort(values)
        values, vectors = values[order], vectors[:, order]
    error = np.linalg.norm(laplacian @ vectors - vectors * values, axis=0)
    return values - error, vectors


def _search(
    graph: Graph, membership: np.ndarray, sizes: np.ndarray, vectors: np.ndarray, strengths: tuple[float, float, float]
) -> Boundedness:
    (alpha, beta, nu), n = strengths, len(graph.degrees)
    smallest = np.argsort(np.asarray(graph.degrees), kind="stable")[:STARTS]
    largest = np.argsort(-sizes, kind="stable")[:STARTS]
    starts = [np.eye(1, n, i)[0] for i in smallest] + [(membership == c).astype(float) for c in largest]
    starts += [part for v in vectors for part in (np.maximum(v, 0), np.maximum(-v, 0)) if part.any()]
    v, values = search_direction(jnp.asarray(np.stack(starts), graph.degrees.dtype), graph, alpha, beta, nu)
    best = int(np.argmin(values))
    value = float(values[best])
    # What rounding can make of a sum of terms of this size.
    unit = 2 * alpha * float(jnp.max(graph.degrees)) + beta + nu * n
    if value < -100 * float(jnp.finfo(graph.degrees.dtype).eps) * unit:
        direction = np.asarray(v[best])
        return Boundedness(
            "unbounded",
            f"a direction v >= 0 of length 1 on {int((direction > 1e-3).sum())} samples has v^T M v = {value:.3g}: "
            "beta draws these samples apart from the rest more than alpha and nu hold them; lower beta, or raise "
            "alpha or nu",
            direction,
            value,
        )
    return Boundedness("undecided", "no test decides this setting, and the search found no negative direction")


@jax.jit
def search_direction(
    starts: Array, graph: Graph, alpha: Array | float, beta: Array | float, nu: Array | float
) -> tuple[Array, Array]:
    """Projected power steps v <- max((c I - M) v, 0), normalised; v^T M v never rises. starts (q, n) -> v, values (q,).

    c is at least the largest eigenvalue of M, so that c I - M is positive semidefinite.
    """
    n = starts.shape[1]
    gamma, kappa = global_factors(n, beta, nu)
    bound = 2 * alpha * jnp.max(graph.degrees) + gamma * n

    def times_m(v: Array) -> Array:
        local = v * graph.degrees - times_similarity(v, graph)
        return alpha * local + gamma * jnp.sum(v, axis=1, keepdims=True) - (kappa - RIDGE) * v

    def unit(v: Array) -> Array:
        length = jnp.linalg.norm(v, axis=1, keepdims=True)
        return v / jnp.where(length > 0, length, 1)

    def improve(_: int, v: Array) -> Array:
        return unit(jnp.maximum(bound * v - times_m(v), 0))

    v = lax.fori_loop(0, SEARCH_STEPS, improve, unit(starts))
    return v, jnp.sum(v * times_m(v), axis=1)
