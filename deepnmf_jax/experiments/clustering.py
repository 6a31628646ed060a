"""Clusterings by Dn2MFGL and its relatives: k-means on the codes of every method, scored against the classes.

Samples have unit length; every factorization has several seeds, and its codes are clustered by several k-means runs of
one start each, as papers on clustering do. Classes are used for the scores alone, and for the number of clusters.
"""

import datetime
import json
import logging
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from deepnmf_jax.decomposition import NMF, ConvergenceWarning, Dn2MFGL, UnboundedWarning
from deepnmf_jax.decomposition.dn2mfgl import scores
from deepnmf_jax.experiments import pictures
from deepnmf_jax.training.environment import git_commit

# The strength of one-layer graph-regularised NMF (Cai et al. 2011 suggest 100).
GRAPH_NMF_ALPHA = 100.0
PICTURED = "two-layer Dn2MFGL"
# Methods that draw no random numbers: one factorization serves all seeds.
FIXED = ("k-means", "start of Dn2MFGL", "one-layer Dn2MFGL")


class Result(NamedTuple):
    """codes (n, k); dictionaries: of every layer, for the pictures; details: whatever the method says of itself."""

    codes: np.ndarray
    dictionaries: list[np.ndarray]
    details: dict[str, Any]


Method = Callable[[np.ndarray, tuple[int, ...], int, Any], Result]


def deep(**arguments: Any) -> Method:
    """Dn2MFGL with these arguments. layer_sizes: a number of layers, the last ones of the config's."""

    def method(x: np.ndarray, sizes: tuple[int, ...], seed: int, config: Any) -> Result:
        given = {"n_neighbors": config.n_neighbors, **arguments, **_limit(config)}
        layers = given.pop("layers", len(sizes))
        model = Dn2MFGL(sizes[-layers:], random_state=seed, **given).fit(x)
        details = {**model.choice_._asdict(), "boundedness": model.boundedness_, "sweeps": model.n_iter_}
        return Result(model.embedding_, model.dictionaries_, {**details, "converged": model.converged_})

    return method


def _limit(config: Any) -> dict[str, Any]:
    return {"max_iter": config.max_iter} if config.max_iter else {}


def _pixels(x: np.ndarray, sizes: tuple[int, ...], seed: int, config: Any) -> Result:
    return Result(x, [], {})


def _nmf(x: np.ndarray, sizes: tuple[int, ...], seed: int, config: Any) -> Result:
    model = NMF(sizes[-1], init="random", random_state=seed, **_limit(config))  # type: ignore[arg-type]
    z, d = model.fit(x)
    # As for the deep ones: parts of unit length, so that codes of different parts can be compared.
    return Result(z * np.linalg.norm(d, axis=1), [d.T], {"sweeps": model.n_iter_, "converged": model.converged_})


_RANDOM: dict[str, Any] = {"beta": 0.0, "nu": 0.0, "init": "pretrained", "max_iter": 1000}
METHODS: dict[str, Method] = {
    "k-means": _pixels,
    "NMF": _nmf,
    "graph NMF": deep(layers=1, alpha=GRAPH_NMF_ALPHA, robust="none", **_RANDOM),
    "deep NMF": deep(alpha=0.0, **_RANDOM),
    "released": deep(mode="released"),
    "released 100 0 0": deep(mode="released", alpha=100.0, beta=0.0, nu=0.0),
    "start of Dn2MFGL": deep(layers=1, max_iter=1),
    "two-layer Dn2MFGL": deep(),
    "one-layer Dn2MFGL": deep(layers=1),
}


def run(config: Any, workdir: str) -> dict[str, Any]:
    """Compare the methods on every set; write results.json, table.md and the pictures to `workdir`.

    Args:
        config: as in configs/clustering/dn2mfgl.py.
        workdir: folder, made if it is missing.

    Returns:
        What results.json holds: config, and for every set and method means and deviations of the scores.

    Raises:
        ValueError: an unknown method, or a file without x and y. ImportError: no scikit-learn.
    """
    names = [name.strip() for name in config.methods.split(",")] if config.methods else list(METHODS)
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise ValueError(f"methods has {unknown[0]!r}; known are {', '.join(METHODS)}")
    sets = read_sets(config)
    folder = Path(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"config": dict(config), **circumstances(), "sets": {}}
    for title, (x, y) in sets.items():
        found = results["sets"][title] = {"samples": len(x), "features": x.shape[1], "methods": {}}
        for name in names:
            found["methods"][name], result = compare(METHODS[name], x, y, config, name in FIXED)
            line = {key: round(value, 4) for key, value in found["methods"][name].items() if key.endswith("mean")}
            logging.info("%s, %s: %s", title, name, line)
            if name == PICTURED:
                pictures.save_codes(result.codes, y, folder / f"{title}_codes.png")
                pictures.save_parts(result.dictionaries, folder / f"{title}_parts.png")
            # Long comparisons can be stopped: what is there is written.
            (folder / "results.json").write_text(json.dumps(results, indent=2, default=float) + "\n")
            (folder / "table.md").write_text(table(results["sets"]))
    return results


def circumstances() -> dict[str, str | None]:
    """What a record is read with: the date, the commit, the device and the version of jax."""
    date, device = datetime.date.today().isoformat(), jax.devices()[0].device_kind
    return {"date": date, "commit": git_commit(Path(__file__).parent), "device": device, "jax": jax.__version__}


def read_sets(config: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Samples of unit length (n, m) and classes (n,) of every set. ValueError for files without them, or no set."""
    sets = {"digits": scores.digits()} if config.digits else {}
    for name in filter(None, (part.strip() for part in config.faces.split(","))):
        for path in sorted(Path(name).glob("*.npz")) if Path(name).is_dir() else [Path(name)]:
            with np.load(path, allow_pickle=False) as file:
                if not {"x", "y"} <= set(file):
                    raise ValueError(f"{path} has the arrays {sorted(file)}; it needs x (n, m) and y (n,)")
                sets[path.stem] = (file["x"].reshape(len(file["x"]), -1).astype(np.float32), file["y"])
    if not sets:
        raise ValueError("no set to cluster: keep digits=True, or name .npz files or their folder in faces")
    limit = config.num_samples or None
    return {title: (scores.directions(x[:limit]), y[:limit]) for title, (x, y) in sets.items()}


def compare(
    method: Method, x: np.ndarray, y: np.ndarray, config: Any, fixed: bool = False
) -> tuple[dict[str, Any], Result]:
    """Scores of one method over seeds and k-means runs: means, and deviations between the means of the seeds.

    "acc", "nmi", "ari": a list over seeds of means over k-means runs of one start; "unit_acc": the same of codes at
    unit length; "best_acc": of the best of ten starts on these by their sum of squares, which is what `labels_` holds.
    Shares, not percent.

    Args:
        method: of `METHODS`.
        x: samples (n, m). y: classes (n,). config: as in `run`.
        fixed: the method does not depend on the seed and is run once.
    """
    clusters = len(np.unique(y))
    sizes = (max(clusters, min(config.hidden, 4 * x.shape[1] // 5)), clusters)
    seconds, runs, unit_runs, best, details = [], [], [], [], []
    result: Result | None = None
    with warnings.catch_warnings():
        # Whether a fit converged and was bounded is in the details.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", UnboundedWarning)
        for seed in range(config.seed, config.seed + config.num_seeds):
            start = time.perf_counter()
            if result is None or not fixed:
                result = method(x, sizes, seed, config)
                seconds.append(round(time.perf_counter() - start, 3))
                details.append(result.details)
            unit = scores.directions(result.codes)
            runs.append(scores.single_start_scores(result.codes, y, clusters, config.num_kmeans, 1000 * seed))
            unit_runs.append(scores.single_start_scores(unit, y, clusters, config.num_kmeans, 1000 * seed))
            best.append(scores.accuracy(y, scores.kmeans(unit, clusters, seed).labels))
    assert result is not None
    summary: dict[str, Any] = {"layer_sizes": list(sizes), "seconds": seconds, "details": details}
    for key in ("acc", "nmi", "ari"):
        summary |= _spread(key, [float(np.mean([run[key] for run in seed_runs])) for seed_runs in runs])
    unit_acc = [float(np.mean([run["acc"] for run in seed_runs])) for seed_runs in unit_runs]
    return summary | _spread("unit_acc", unit_acc) | _spread("best_acc", best), result


def _spread(name: str, values: list[float]) -> dict[str, Any]:
    return {name: values, f"{name}_mean": float(np.mean(values)), f"{name}_std": float(np.std(values))}


def table(sets: Mapping[str, Any]) -> str:
    """Accuracy, NMI and ARI in percent as a markdown table, a line a method and a column a set."""
    names = list(dict.fromkeys(name for found in sets.values() for name in found["methods"]))
    lines = ["| method | " + " | ".join(sets) + " |", "| --- |" + " --- |" * len(sets)]
    for name in names:
        lines.append(f"| {name} | " + " | ".join(cell(s["methods"].get(name)) for s in sets.values()) + " |")
    title = "ACC ± deviation between seeds, NMI, ARI of single k-means starts; in brackets ACC at unit length; percent."
    return f"{title}\n\n" + "\n".join(lines) + "\n"


def cell(found: Mapping[str, Any] | None) -> str:
    """The scores of one method on one set, in percent; empty without them."""
    if not found:
        return ""
    acc, std, nmi, ari, unit = (
        f"{100 * found[key]:.1f}" for key in ("acc_mean", "acc_std", "nmi_mean", "ari_mean", "unit_acc_mean")
    )
    return f"{acc} ± {std}, {nmi}, {ari} ({unit})"
