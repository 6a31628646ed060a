"""Fits of a sparse matrix by Kullback-Leibler divergence, as benchmarks/speed/sparse.py times them.

python -m benchmarks.speed.programs.sparse '{"library": "ours" or "scikit-learn", "problem": folder with a.npz, z.npy,
d.npy, "sweeps": numbers of sweeps}' prints a line of JSON: {"seconds", "cpu" (of all threads) and "error" for each
number of sweeps, of ours "codes" ("cpu" of the solve for codes that a fit ends with), "memory_before", "memory":
bytes held when the matrix was read, and at most}.
"""

import json
import resource
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array, load_npz


def held() -> int:
    """Bytes that this process holds, on Linux."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def fit(library: str, a: csr_array, z: np.ndarray, d: np.ndarray, sweeps: int) -> Any:
    """The estimator after so many multiplicative sweeps from Z (n, k) and D (k, p)."""
    model: Any
    common = {"solver": "mu", "beta_loss": "kullback-leibler", "max_iter": sweeps}
    if library == "ours":
        from deepnmf_jax import NMF

        model = NMF(len(d), inner_iter=1, **common)
        model.fit(a, init=(z, d))
    else:
        from sklearn.decomposition import NMF as Other

        model = Other(len(d), init="custom", **common)
        model.fit_transform(a, W=z.copy(), H=d.copy())
    return model


def main(spec: dict[str, Any]) -> None:
    """Times the fits."""
    folder, library = Path(spec["problem"]), spec["library"]
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(0)
    # Imports, and what is made once in a process, are not counted.
    fit(library, csr_array(rng.random((8, 6), np.float32)), *(rng.random(s, np.float32) for s in ((8, 2), (2, 6))), 1)
    a = load_npz(folder / "a.npz")
    z, d = (np.load(folder / f"{name}.npy", allow_pickle=False) for name in "zd")
    found: dict[str, Any] = {"seconds": [], "cpu": [], "error": [], "memory_before": held()}
    for sweeps in spec["sweeps"]:
        started, used = time.perf_counter(), time.process_time()
        model = fit(library, a, z, d, sweeps)
        found["seconds"].append(time.perf_counter() - started)
        found["cpu"].append(time.process_time() - used)
        found["error"].append(float(model.reconstruction_err_))
        if library == "ours":
            used = time.process_time()
            model.encode(a)
            found.setdefault("codes", []).append(time.process_time() - used)
    print(json.dumps(found | {"memory": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
