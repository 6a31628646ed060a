"""Codes of new data, as benchmarks/speed/transform.py times them.

python -m benchmarks.speed.programs.transform '{"library": "ours" or "scikit-learn", "problem": folder with known.npz
and new.npz (scipy.sparse), "dense": bool, "k": ..., "how": arguments that both libraries' NMF take}' prints a line of
JSON: {"seconds" of each transform, "error": relative, of the new data}. Ours writes its dictionary to d.npy in the
folder; the other's estimator is given that one.
"""

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import load_npz

from benchmarks.speed.programs.factorizers import relative_error

TRANSFORMS = 3


def main(spec: dict[str, Any]) -> None:
    """Fits the known data, times codes of the new."""
    warnings.simplefilter("ignore")
    folder, ours = Path(spec["problem"]), spec["library"] == "ours"
    known, new = (load_npz(folder / f"{name}.npz") for name in ("known", "new"))
    given = [a.toarray() if spec["dense"] else a for a in (known, new)]
    model: Any
    if ours:
        import deepnmf_jax

        model = deepnmf_jax.NMF(spec["k"], **spec["how"])
        model.fit(given[0])
        d, transform = np.asarray(model.D), model.encode
        np.save(folder / "d.npy", d)
    else:
        from sklearn.decomposition import NMF

        # One sweep makes it an estimator that is fitted; 200 is its default.
        model = NMF(spec["k"], max_iter=1, **spec["how"]).fit(given[0]).set_params(max_iter=200)
        d, transform = np.load(folder / "d.npy", allow_pickle=False), model.transform
        model.components_ = d
    seconds = []
    for _ in range(TRANSFORMS):
        started = time.perf_counter()
        z = np.asarray(transform(given[1]))
        seconds.append(time.perf_counter() - started)
    print(json.dumps({"seconds": seconds, "error": relative_error(new, z, d)}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
