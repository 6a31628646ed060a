"""The factorizations that benchmarks/speed/factorization.py compares, each in a process of its own.

python -m benchmarks.speed.programs.factorizers '{"method": ..., "problem": path, "batch": ...}'; then a line of JSON
in, {"sweeps": n, "again": whether to start anew}, and one out, {"seconds", "error", "sweeps"}; "memory": peak bytes.
"""

import json
import math
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Factors = tuple[np.ndarray, np.ndarray]
# (A, Z, D, sweeps) -> (seconds, Z, D): that many sweeps from Z, D, as the method holds them.
Method = Callable[[Any, Any, Any, int], tuple[float, Any, Any]]

BATCH = 1024


def ours(solver: str, inner: int = 3) -> tuple[Callable, Method]:
    """Our sweeps in float32, compiled for any number of them; `inner` is `NMF`'s inner_iter."""
    import jax
    import jax.numpy as jnp

    from deepnmf_jax.decomposition.updates.objective import Target
    from deepnmf_jax.decomposition.updates.solvers import SolverSettings, sweep

    settings = SolverSettings(solver, inner=inner)

    @jax.jit
    def run(a: Any, zt: Any, d: Any, sweeps: int) -> Any:
        return jax.lax.fori_loop(0, sweeps, lambda _, f: sweep(*f, Target(a), settings), (zt, d))

    def read(a: np.ndarray, z: np.ndarray, d: np.ndarray) -> tuple:
        return jnp.asarray(a), jnp.asarray(z.T), jnp.asarray(d)

    def method(a: Any, zt: Any, d: Any, sweeps: int) -> tuple[float, Any, Any]:
        start = time.perf_counter()
        zt, d = jax.block_until_ready(run(a, zt, d, sweeps))
        return time.perf_counter() - start, zt, d

    return read, method


def ours_as_called() -> tuple[Callable, Method]:
    """`deepnmf_jax.NMF.fit` as a user calls it: checks of the data, reports, a solve for the codes at the end."""
    from deepnmf_jax import NMF

    def method(a: np.ndarray, z: np.ndarray, d: np.ndarray, sweeps: int) -> tuple[float, Any, Any]:
        start = time.perf_counter()
        z, d = NMF(z.shape[1]).fit(a, max_iter=sweeps, init=(z, d))
        return time.perf_counter() - start, z, d

    return lambda *arrays: arrays, method


def ours_in_batches() -> tuple[Callable, Method]:
    """Our mini-batch steps, `partial_fit`, and at the end codes for all data. It makes its own start."""
    from deepnmf_jax import NMF

    def method(a: np.ndarray, z: np.ndarray, d: np.ndarray, epochs: int) -> tuple[float, Any, Any]:
        start = time.perf_counter()
        model = NMF(z.shape[1])
        for _ in range(epochs):
            for i in range(0, a.shape[0], BATCH):
                model.partial_fit(a[i : i + BATCH])
        z = model.encode(a)
        return time.perf_counter() - start, z, model.D

    return lambda *arrays: arrays, method


def scikit_learn(solver: str) -> tuple[Callable, Method]:
    """scikit-learn's `non_negative_factorization`, in float32."""
    from sklearn.decomposition import non_negative_factorization

    def method(a: np.ndarray, z: np.ndarray, d: np.ndarray, sweeps: int) -> tuple[float, Any, Any]:
        z, d = z.copy(), d.copy()
        start = time.perf_counter()
        z, d, _ = non_negative_factorization(
            a, z, d, n_components=z.shape[1], init="custom", solver=solver, max_iter=sweeps, tol=0
        )
        return time.perf_counter() - start, z, d

    return lambda *arrays: arrays, method


def scikit_learn_in_batches() -> tuple[Callable, Method]:
    """scikit-learn's `MiniBatchNMF` from the given start, in float32."""
    from sklearn.decomposition import MiniBatchNMF

    def method(a: np.ndarray, z: np.ndarray, d: np.ndarray, epochs: int) -> tuple[float, Any, Any]:
        z, d = z.copy(), d.copy()
        start = time.perf_counter()
        model = MiniBatchNMF(
            z.shape[1], init="custom", batch_size=BATCH, max_iter=epochs, tol=0, max_no_improvement=None
        )
        z = model.fit_transform(a, W=z, H=d)
        return time.perf_counter() - start, z, model.components_

    return lambda *arrays: arrays, method


def torch_port(solver: str) -> tuple[Callable, Method]:
    """The port of overcomplete's updates, in float32."""
    import torch

    from benchmarks.speed.programs.torch_nmf import UPDATES

    update = UPDATES[solver]

    def read(*arrays: np.ndarray) -> tuple:
        return tuple(torch.from_numpy(array) for array in arrays)

    def method(a: Any, z: Any, d: Any, sweeps: int) -> tuple[float, Any, Any]:
        with torch.inference_mode():
            start = time.perf_counter()
            for _ in range(sweeps):
                z, d = update(a, z, d)
            return time.perf_counter() - start, z, d

    return read, method


METHODS: dict[str, Callable[[], tuple[Callable, Method]]] = {
    "ours: hals": lambda: ours("hals"),
    "ours: mu": lambda: ours("mu"),
    # As many updates for a pass over the data as the others make: the same path as theirs, where the default's ends in
    # another minimum.
    "ours: hals, inner_iter=1": lambda: ours("hals", 1),
    "ours: mu, inner_iter=1": lambda: ours("mu", 1),
    "ours: NMF.fit": ours_as_called,
    "ours: mini-batch": ours_in_batches,
    "scikit-learn: cd": lambda: scikit_learn("cd"),
    "scikit-learn: mu": lambda: scikit_learn("mu"),
    "scikit-learn: mini-batch": scikit_learn_in_batches,
    "torch: hals": lambda: torch_port("hals"),
    "torch: mu": lambda: torch_port("mu"),
}
# A second call of these cannot go on where the first ended.
ALWAYS_ANEW = ("ours: NMF.fit", "ours: mini-batch", "scikit-learn: mini-batch")


def relative_error(a: Any, z: Any, d: Any) -> float:
    """||A - Z D|| / ||A||, the sums in float64; Z may come transposed. Of a sparse A nothing dense is made."""
    z, d = np.asarray(z), np.asarray(d)
    z = z if z.shape[0] == a.shape[0] else z.T
    if not isinstance(a, np.ndarray):
        z, d, whole = z.astype(np.float64), d.astype(np.float64), float(a.power(2).sum(dtype=np.float64))
        left = whole - 2 * float(np.sum((a @ d.T) * z)) + float(np.sum((z.T @ z) * (d @ d.T)))
        return math.sqrt(max(left, 0.0) / whole)
    square = sum(
        float(np.sum((a[i : i + BATCH] - z[i : i + BATCH] @ d) ** 2, dtype=np.float64)) for i in range(0, len(a), BATCH)
    )
    return math.sqrt(square / float(np.sum(a**2, dtype=np.float64)))


def read_problem(path: Path) -> tuple[Any, np.ndarray, np.ndarray]:
    """A, of which a sparse one is kept as its parts, and the start Z, D."""
    with np.load(path, allow_pickle=False) as file:
        z, d = file["z"], file["d"]
        if "a" in file:
            return file["a"], z, d
        from scipy.sparse import csr_array

        return csr_array(tuple(file[name] for name in ("data", "indices", "indptr")), (len(z), d.shape[1])), z, d


def peak_memory() -> int:
    """The most memory that this process has held so far, bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # What getrusage says on Linux is at least what the parent held when it started this process.
        return next(int(x.split()[1]) * 1024 for x in status.read_text().splitlines() if x.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def many_concepts(n: int, p: int, k: int) -> dict[str, float]:
    """One sweep of our coordinate descent with k concepts: seconds to compile and to run, bytes, errors."""
    import jax
    import jax.numpy as jnp

    from deepnmf_jax.decomposition.updates.objective import Target
    from deepnmf_jax.decomposition.updates.solvers import SolverSettings, sweep

    rng = np.random.default_rng(0)
    a = rng.random((n, p), np.float32)
    # Z D has the mean of A.
    scale = math.sqrt(2 / k)
    zt = jnp.asarray(rng.random((k, n), np.float32) * np.float32(scale))
    d = jnp.asarray(rng.random((k, p), np.float32) * np.float32(scale))
    data = jnp.asarray(a)
    before, memory = relative_error(a, zt.T, d), peak_memory()
    start = time.perf_counter()
    step = jax.jit(sweep, static_argnames=("settings",), donate_argnums=(0, 1))
    compiled = step.lower(zt, d, Target(data), settings=SolverSettings("hals")).compile()
    compile_seconds = time.perf_counter() - start
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        zt, d = jax.block_until_ready(compiled(zt, d, Target(data)))
        seconds.append(time.perf_counter() - start)
    return {
        "n": n,
        "p": p,
        "k": k,
        "compile_seconds": compile_seconds,
        "seconds": min(seconds),
        "memory_before": memory,
        "memory": peak_memory(),
        "arrays": 4 * (n * p + k * (n + p)),
        "error_before": before,
        "error_after_two": relative_error(a, zt.T, d),
    }


def main() -> None:
    """Serves one method on one problem, or answers once with `many_concepts`."""
    warnings.simplefilter("ignore")
    spec = json.loads(sys.argv[1])
    if "many" in spec:
        print(json.dumps(many_concepts(*spec["many"])), flush=True)
        return
    a, z, d = read_problem(Path(spec["problem"]))
    read, method = METHODS[spec["method"]]()
    first = read(a, z, d)
    before = peak_memory()
    # The first call compiles; the second tells how much of it was that.
    cold, *_ = method(*first, 1)
    warm, *_ = method(*first, 1)
    print(json.dumps({"compile_seconds": max(0.0, cold - warm), "memory_before": before}), flush=True)
    factors, done, total = first[1:], 0, 0.0
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["again"] or spec["method"] in ALWAYS_ANEW:
            factors, done, total = first[1:], 0, 0.0
        seconds, *factors = method(first[0], *factors, asked["sweeps"] - done)
        done, total = asked["sweeps"], total + seconds
        # The peak is read before the error is computed, which takes memory of its own.
        answer = {"sweeps": done, "seconds": total, "memory": peak_memory()}
        print(json.dumps({**answer, "error": relative_error(a, *factors)}), flush=True)


if __name__ == "__main__":
    main()
