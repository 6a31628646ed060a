"""The comparison of clusterings: k-means on the codes of Dn2MFGL and its relatives, scored against the classes.

python main.py --config=configs/clustering/dn2mfgl.py --workdir=runs/clustering

Samples have unit length; every factorization has several seeds, and its codes are clustered by several k-means runs of
one start each, as papers on clustering do. Classes are used for the scores alone, and for the number of clusters.
What the clusterings depend on is measured in clustering_studies.py.
"""

import logging
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepnmf_jax.core.checks import check_choice, check_integer
from deepnmf_jax.decomposition import NMF, ConvergenceWarning, Dn2MFGL, UnboundedWarning
from deepnmf_jax.decomposition.dn2mfgl import scores
from deepnmf_jax.decomposition.dn2mfgl.strengths import RULE
from deepnmf_jax.decomposition.metrics import directions
from deepnmf_jax.experiments import clustering_pictures
from deepnmf_jax.experiments.tables import as_json, rounded, table
from deepnmf_jax.files import write_atomically
from deepnmf_jax.programs import home
from deepnmf_jax.training.environment import environment
from deepnmf_jax.training.locks import locked, make_workdir

# The strength of one-layer graph-regularised NMF (Cai et al. 2011 suggest 100).
GRAPH_NMF_ALPHA = 100.0
PICTURED = "two-layer Dn2MFGL"
# Methods that draw no random numbers: one factorization serves all seeds.
FIXED = ("k-means", "start of Dn2MFGL", "one-layer Dn2MFGL")
# What a cell of `scores_table` holds.
SCORES = (
    "ACC ± deviation between seeds, NMI, ARI of single k-means starts; "
    "in brackets ACC of codes at unit length; percent."
)


class Result(NamedTuple):
    """codes (n, k); dictionaries: of every layer, for the pictures; details: whatever the method says of itself."""

    codes: np.ndarray
    dictionaries: list[np.ndarray]
    details: dict[str, Any]


Sets = Mapping[str, tuple[np.ndarray, np.ndarray]]
Method = Callable[[np.ndarray, tuple[int, ...], int, Any], Result]
# Of samples, classes and config: what is kept, and the last result where there is a picture of it.
Measurement = Callable[[np.ndarray, np.ndarray, Any], tuple[dict[str, Any], Result | None]]


def deep(**arguments: Any) -> Method:
    """Dn2MFGL with these arguments. layers: how many, the last ones of the sizes; rule: of `Dn2MFGL.fit`."""

    def method(x: np.ndarray, sizes: tuple[int, ...], seed: int, config: Any) -> Result:
        given = {"n_neighbors": config.n_neighbors, **arguments, **_limit(config)}
        layers, rule = given.pop("layers", len(sizes)), given.pop("rule", RULE)
        model = Dn2MFGL(sizes[-layers:], random_state=seed, **given).fit(x, rule=rule)
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


def run(config: Any, workdir: str | Path) -> dict[str, Any]:
    """Compare the methods on every set; write results.json, table.md and the pictures to `workdir`.

    Args:
        config: as in configs/clustering/dn2mfgl.py.
        workdir: folder, made if it is missing.

    Returns:
        What results.json holds: config, environment, and for every set and method the scores (`compared`).

    Raises:
        ValueError: an unknown method, a wrong setting, or a file without x and y. ImportError: no scikit-learn.
        OSError: another process is using the workdir.
    """
    names = listed(config.methods) or list(METHODS)
    for name in names:
        check_choice("methods", name, tuple(METHODS))
    check_settings(config)
    measurements = {name: compared(METHODS[name], name in FIXED) for name in names}
    sets = read_sets(config)
    workdir = make_workdir(workdir)
    with locked(workdir):
        record = measure(sets, measurements, config, workdir / "results.json")
        write_atomically(workdir / "table.md", f"{SCORES}\n\n{scores_table(record['sets'])}\n")
    return record


def check_settings(config: Any) -> None:
    """ValueError for numbers that no measurement can use: all are looked at before the first one begins."""
    for name in ("num_samples", "seed", "max_iter"):
        check_integer(name, config[name], 0)
    for name in ("hidden", "num_seeds", "num_kmeans", "n_neighbors"):
        check_integer(name, config[name], 1)


def measure(sets: Sets, measurements: Mapping[str, Measurement], config: Any, path: Path) -> dict[str, Any]:
    """Every measurement on every set, as a record in `path`; pictures of what is `PICTURED` beside it.

    The record is written after each of them, so that long ones can be stopped.
    """
    found: dict[str, Any] = {}
    for title, (x, y) in sets.items():
        methods: dict[str, Any] = {}
        found[title] = {"samples": len(x), "features": x.shape[1], "methods": methods}
        for name, measurement in measurements.items():
            with warnings.catch_warnings():
                # Whether a fit converged and was bounded is in its details.
                warnings.simplefilter("ignore", ConvergenceWarning)
                warnings.simplefilter("ignore", UnboundedWarning)
                methods[name], result = measurement(x, y, config)
            shown = {key: value for key, value in methods[name].items() if key.endswith("mean") or key == "refused"}
            logging.info("%s, %s: %s", title, name, shown)
            if name == PICTURED and result is not None:
                clustering_pictures.keep(result.codes, y, result.dictionaries, path.with_name(f"{title}.npz"))
            # The folder of the faces says nothing of the result.
            record = {"config": {**config, "faces": ""}, **environment(), "sets": found}
            # Five digits are more than two machines agree in.
            record = rounded(record, 5)
            write_atomically(path, as_json(record))
    return record


def listed(names: str) -> list[str]:
    """Names separated by commas."""
    return [name.strip() for name in names.split(",") if name.strip()]


def read_sets(config: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Samples of unit length (n, m) and classes (n,) of every set. ValueError for files without them, sets that the
    settings do not fit, or no set; OSError for a file that is not there."""
    sets = {"digits": scores.digits()} if config.digits else {}
    for name in listed(config.faces):
        place = home(name)
        for path in sorted(place.glob("*.npz")) if place.is_dir() else [place]:
            sets[path.stem] = _read(path)
    if not sets:
        raise ValueError("no set to cluster: keep digits=True, or name .npz files or their folder in faces")
    limit = config.num_samples or None
    sets = {title: (x[:limit], y[:limit]) for title, (x, y) in sets.items()}
    for title, (x, y) in sets.items():
        if len(x) <= config.n_neighbors:
            raise ValueError(f"n_neighbors = {config.n_neighbors}, but {title} has {len(x)} samples; use fewer")
        if len(np.unique(y)) < 2:
            raise ValueError(f"the {len(x)} samples of {title} are of one class; nothing is to be clustered")
    return {title: (directions(x), y) for title, (x, y) in sets.items()}


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """x (n, m) float32 and y (n,) of a file. ValueError: it has other arrays; they and the file are named."""
    try:
        with open(path, "rb") as opened:
            file = np.load(opened, allow_pickle=False)
            arrays = {name: file[name] for name in file.files} if isinstance(file, np.lib.npyio.NpzFile) else {}
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as an .npz file: {error}") from error
    if not {"x", "y"} <= arrays.keys():
        raise ValueError(f"{path} has the arrays {sorted(arrays)}; it needs x (n, m) and y (n,)")
    x, y = arrays["x"], arrays["y"]
    if x.ndim < 2 or y.shape != x.shape[:1]:
        raise ValueError(f"{path}: x has the shape {x.shape} and y {y.shape}; they must be (n, ...) and (n,)")
    if x.dtype.kind not in "biuf" or not np.isfinite(x).all() or (x < 0).any():
        raise ValueError(f"{path}: x ({x.dtype.name}) must be finite numbers of at least 0")
    return x.reshape(len(x), -1).astype(np.float32), y


def layer_sizes(x: np.ndarray, y: np.ndarray, config: Any) -> tuple[int, int]:
    """Components of the first of two layers, and of the last one: as many as classes. x (n, m), y (n,)."""
    clusters = len(np.unique(y))
    return max(clusters, min(config.hidden, 4 * x.shape[1] // 5)), clusters


def seeds(config: Any) -> range:
    """Of the factorizations of every method."""
    return range(config.seed, config.seed + config.num_seeds)


def compared(method: Method, fixed: bool = False) -> Measurement:
    """The scores of a method over seeds and k-means runs; `fixed`: it does not depend on the seed, and is run once.

    "acc", "nmi", "ari": a list over seeds of means over k-means runs of one start; "unit_acc": the same of codes at
    unit length; "best_acc": of the best of ten starts on these by their sum of squares, which is what `labels_` holds.
    Shares, not percent. "layer_sizes", "seconds" and "details" of the factorizations.
    """

    def measurement(x: np.ndarray, y: np.ndarray, config: Any) -> tuple[dict[str, Any], Result | None]:
        sizes = layer_sizes(x, y, config)
        found: dict[str, list[float]] = {key: [] for key in ("acc", "nmi", "ari", "unit_acc", "best_acc")}
        seconds, details = [], []
        result: Result | None = None
        for seed in seeds(config):
            if result is None or not fixed:
                start = time.perf_counter()
                result = method(x, sizes, seed, config)
                seconds.append(round(time.perf_counter() - start, 3))
                details.append(result.details)
            unit = directions(result.codes)
            runs, unit_runs = (
                scores.single_start_scores(codes, y, sizes[-1], config.num_kmeans, 1000 * seed)
                for codes in (result.codes, unit)
            )
            for key in ("acc", "nmi", "ari"):
                found[key].append(float(np.mean([run[key] for run in runs])))
            found["unit_acc"].append(float(np.mean([run["acc"] for run in unit_runs])))
            found["best_acc"].append(scores.accuracy(y, scores.kmeans(unit, sizes[-1], seed)[0]))
        return {"layer_sizes": list(sizes), "seconds": seconds, "details": details} | with_spread(found), result

    return measurement


def with_spread(found: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Lists over seeds with their means and deviations, "..._mean" and "..._std"."""
    means = {f"{key}_mean": float(np.mean(values)) for key, values in found.items()}
    return {**found, **means, **{f"{key}_std": float(np.std(values)) for key, values in found.items()}}


def scores_table(sets: Mapping[str, Any]) -> str:
    """Accuracy, NMI and ARI in percent as Markdown: a line a method and a column a set of a record."""
    found = [part["methods"] for part in sets.values()]
    names = dict.fromkeys(name for methods in found for name in methods)
    return table([[name, *(_cell(methods.get(name)) for methods in found)] for name in names], ["", *sets])


def _cell(found: Mapping[str, Any] | None) -> str:
    if not found:
        return ""
    if "refused" in found:
        return "refused"
    acc, std, nmi, ari, unit = (
        f"{100 * found[key]:.1f}" for key in ("acc_mean", "acc_std", "nmi_mean", "ari_mean", "unit_acc_mean")
    )
    return f"{acc} ± {std}, {nmi}, {ari} ({unit})"
