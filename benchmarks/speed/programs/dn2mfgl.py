"""The programs that benchmarks/speed/dn2mfgl.py compares, each in a process of its own.

python -m benchmarks.speed.programs.dn2mfgl '{"program": ..., "n": ..., "m": ..., "sizes": [...]}' prints what the start
took; then for every line in, a number of sweeps, a line of JSON out: {"seconds", "memory"}, peak bytes.
"""

import json
import sys
import time
import warnings
from collections.abc import Callable
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.speed.programs.factorizers import peak_memory
from deepnmf_jax import Dn2MFGL
from deepnmf_jax.decomposition.dn2mfgl import released
from deepnmf_jax.decomposition.dn2mfgl.objective import Form, Problem, Strengths, evaluate
from deepnmf_jax.decomposition.dn2mfgl.sweep import sweep
from deepnmf_jax.decomposition.updates.graph import Graph, find_neighbors, knn_graph, similarity

NEIGHBORS = 5
# alpha, beta, nu.
STRENGTHS = (1.0, 0.01, 0.01)
# So many sweeps at once, from the start given; the result goes on with the next call.
Sweeps = Callable[[int], None]


def samples(n: int, m: int, k: int = 20) -> np.ndarray:
    """n mixtures of k random parts with noise, of unit length, float32: (n, m)."""
    rng = np.random.default_rng(0)
    x = rng.gamma(0.3, size=(n, k)).astype(np.float32) @ rng.random((k, m), np.float32)
    x += np.float32(0.1) * x.mean() * rng.random((n, m), np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def random_factors(x: np.ndarray, sizes: list[int]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Absolute normal numbers for H_i and V_i, scaled so that H_1 ... H_l V_l has the mean of X; float32."""
    rng = np.random.default_rng(1)
    wide = [x.shape[1], *sizes]
    h = [np.abs(rng.standard_normal(shape)) / shape[1] for shape in zip(wide, sizes, strict=False)]
    v = [np.abs(rng.standard_normal((r, len(x)))) * x.mean() for r in sizes]
    return [a.astype(np.float32) for a in h], [a.astype(np.float32) for a in v]


def graph_of(x: np.ndarray) -> Graph:
    """The graph that Dn2MFGL makes of samples (n, m)."""
    return knn_graph(find_neighbors(x, NEIGHBORS))


def repeated(step: Callable[[Any], Any], state: Any) -> Sweeps:
    """A sweep of ours, compiled for any number of them."""
    run = jax.jit(lambda state, count: jax.lax.fori_loop(0, count, lambda _, s: step(s), state))

    def sweeps(count: int) -> None:
        nonlocal state
        state = jax.block_until_ready(run(state, count))

    return sweeps


def ours(x: np.ndarray, sizes: list[int]) -> Sweeps:
    """The default form."""
    graph, (h, v), data = graph_of(x), random_factors(x, sizes), jnp.asarray(x.T)
    numbers = (*STRENGTHS, 0.01, 1e-3, [0.0] * (len(sizes) - 1) + [1.0])
    problem = Problem(data, graph, Strengths(*(jnp.asarray(value, data.dtype) for value in numbers)))

    def step(state: Any) -> Any:
        # As the fit does it: the objective is looked at after every sweep.
        h, v = sweep(*state, problem, Form())
        return h, v, evaluate(h, v, problem, Form())[1]

    return repeated(step, (tuple(map(jnp.asarray, h)), jnp.asarray(v[-1]), jnp.ones((1, len(x)), data.dtype)))


def ours_released(x: np.ndarray, sizes: list[int]) -> Sweeps:
    """The released rules."""
    graph, factors, data = graph_of(x), random_factors(x, sizes), jnp.asarray(x.T)
    strengths = [jnp.asarray(value, data.dtype) for value in STRENGTHS]
    start = released.Factors(*(tuple(map(jnp.asarray, matrices)) for matrices in factors))
    return repeated(
        lambda state: released.sweep(*state, data, graph, *strengths), (start, released.row_weights(data, start))
    )


def numpy_loop(dense: bool) -> Callable[[np.ndarray, list[int]], Sweeps]:
    """The released rules as a loop in numpy: with the n x n and m x m matrices of the released code, or without."""

    def make(x: np.ndarray, sizes: list[int]) -> Sweeps:
        graph, (h, v), data = graph_of(x), random_factors(x, sizes), np.ascontiguousarray(x.T)
        structure = structure_of(graph, dense)
        weights = row_weights(data, h, v[-1], dense)

        def sweeps(count: int) -> None:
            nonlocal weights
            for _ in range(count):
                weights = released_sweep(data, h, v, weights, structure, STRENGTHS)

        return sweeps

    return make


def structure_of(graph: Graph, dense: bool) -> tuple[Any, np.ndarray, np.ndarray | None]:
    """S, its degrees and 11^T as matrices (n, n); or S sparse, the degrees (n,) and None."""
    s, degrees = similarity(graph).astype(graph.weights.dtype), np.asarray(graph.degrees)
    return (s.toarray(), np.diag(degrees), np.ones(s.shape, s.dtype)) if dense else (s, degrees, None)


def row_weights(x: np.ndarray, h: list[np.ndarray], v: np.ndarray, dense: bool) -> np.ndarray:
    """P: 1 / (2 max(row norms of X - H_1 ... H_l V, 1e-5)) as a diagonal matrix (m, m), or as a column (m, 1)."""
    residual = x - chain(h) @ v
    found = 1 / (2 * np.maximum(np.linalg.norm(residual, axis=1), 1e-5))
    return np.diag(found) if dense else found[:, None]


def chain(h: list[np.ndarray]) -> np.ndarray:
    """H_1 ... H_l."""
    return reduce(np.matmul, h)


def released_sweep(
    x: np.ndarray,
    h: list[np.ndarray],
    v: list[np.ndarray],
    weights: np.ndarray,
    structure: tuple[Any, np.ndarray, np.ndarray | None],
    strengths: tuple[float, float, float],
) -> np.ndarray:
    """One released sweep; changes h and v, returns the next weights. structure: of `structure_of`."""
    (alpha, beta, nu), (s, degrees, ones) = strengths, structure
    n, last = x.shape[1], v[-1]

    def weighed(y: np.ndarray) -> np.ndarray:
        return weights * y if ones is None else weights @ y

    for i in range(len(h)):
        a = chain([*h[i + 1 :], last])
        if i == 0:
            above, below = weighed(x) @ a.T, weighed(h[i] @ a) @ a.T
        else:
            left = chain(h[:i])
            above, below = left.T @ weighed(x) @ a.T, left.T @ weighed(left @ (h[i] @ a)) @ a.T
        h[i] = h[i] * np.sqrt(above / np.maximum(below, 1e-10))
        left = chain(h[: i + 1])
        if ones is None:
            local, spread, similar = v[i] * degrees, v[i].sum(axis=1, keepdims=True), (s @ v[i].T).T
        else:
            local, spread, similar = v[i] @ degrees, v[i] @ ones, v[i] @ s
        above = left.T @ weighed(x) + alpha * similar + (beta + nu) * v[i]
        below = left.T @ weighed(left @ v[i]) + alpha * local + (beta / n + nu) * spread
        v[i] = v[i] * np.sqrt(above / np.maximum(below, 1e-10))
    return row_weights(x, h, v[-1], ones is not None)


def fit(x: np.ndarray, sizes: list[int]) -> Sweeps:
    """`Dn2MFGL.fit` as a user calls it, by the rule: neighbours, graph, spectral start, sweeps."""

    def sweeps(count: int) -> None:
        Dn2MFGL(tuple(sizes), max_iter=count, tol=0).fit(x)

    return sweeps


PROGRAMS: dict[str, Callable[[np.ndarray, list[int]], Sweeps]] = {
    "ours, default form": ours,
    "ours, released rules": ours_released,
    "numpy, sparse": numpy_loop(False),
    "numpy, dense as released": numpy_loop(True),
    "ours, whole fit": fit,
}


def main() -> None:
    """Serves one program on one problem."""
    warnings.simplefilter("ignore")
    spec = json.loads(sys.argv[1])
    x = samples(spec["n"], spec["m"])
    # The libraries are not counted: those that use JAX and those that do not begin alike.
    jax.block_until_ready(jax.jit(lambda y: y @ y.T)(x[:10]))
    before = peak_memory()
    start = time.perf_counter()
    sweeps = PROGRAMS[spec["program"]](x, spec["sizes"])
    made = time.perf_counter()
    sweeps(1)
    print(json.dumps({"made": made - start, "first": time.perf_counter() - made, "before": before}), flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        sweeps(int(line))
        print(json.dumps({"seconds": time.perf_counter() - start, "memory": peak_memory()}), flush=True)


if __name__ == "__main__":
    main()
