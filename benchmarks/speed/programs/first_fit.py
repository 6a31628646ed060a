"""The first fits of a process, as benchmarks/speed/first_fit.py times them.

python -m benchmarks.speed.programs.first_fit '{"library": "ours" or "scikit-learn", "problem": path of an .npy file,
"k": ..., "cache": folder or null}' prints a line of JSON: {"import", "fits": seconds of each, "cpu": of them, of all
threads, "error": relative}.
"""

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

FITS = 3


def main(spec: dict[str, Any]) -> None:
    """Times the import and the fits."""
    a = np.load(Path(spec["problem"]), allow_pickle=False)
    warnings.simplefilter("ignore")
    started = time.perf_counter()
    model: Any
    if spec["library"] == "ours":
        import deepnmf_jax

        model = deepnmf_jax.NMF(spec["k"])
        if spec["cache"]:
            deepnmf_jax.enable_compilation_cache(spec["cache"])
    else:
        from sklearn.decomposition import NMF

        model = NMF(spec["k"], init="nndsvda", max_iter=500)
    imported = time.perf_counter() - started
    fits, cpu = [], []
    for _ in range(FITS):
        started, used = time.perf_counter(), time.process_time()
        model.fit(a)
        fits.append(time.perf_counter() - started)
        cpu.append(time.process_time() - used)
    error = float(model.reconstruction_err_) / float(np.linalg.norm(a))
    print(json.dumps({"import": imported, "fits": fits, "cpu": cpu, "error": error}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
