"""What Dn2MFGL's clusterings depend on: the rule's constants, every term, layers and weights, bad samples.

python -m deepnmf_jax.experiments.clustering_studies --faces FOLDER [--studies rule,ablation,noise] [--seeds 5]

Scores are those of deepnmf_jax/experiments/clustering.py. Each study keeps every seed in docs/results/clustering/, and
the tables of docs/dn2mfgl.md are written from there. The faces are used for research alone; no picture of them is kept.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from configs.clustering import dn2mfgl
from deepnmf_jax.decomposition.dn2mfgl import scores
from deepnmf_jax.decomposition.dn2mfgl import strengths as structure_rule
from deepnmf_jax.experiments.clustering import cell, circumstances, compare, deep, read_sets
from deepnmf_jax.experiments.tables import ROOT, table

RECORDS = ROOT / "docs" / "results" / "clustering"
PAGE = ROOT / "docs" / "dn2mfgl.md"
# Noise instead of samples: length of a noise sample where the others have 1.
NOISE_LENGTH = 3.0

Sets = Mapping[str, tuple[np.ndarray, np.ndarray]]

RULE: dict[str, dict[str, Any]] = {
    "rule": {"BALANCE": structure_rule.BALANCE},
    "2 of 5 left out": {"LEFT_OUT": 2},
    "3 of 5 left out": {"LEFT_OUT": 3},
    "balance t / 8": {"BALANCE": 0.125},
    "balance t / 2": {"BALANCE": 0.5},
    "balance 2 t": {"BALANCE": 2.0},
    "balance t^2": {"balance_for": lambda trusted: trusted**2},
    "balance 1 whatever the trust": {"balance_for": lambda trusted: 1.0},
}

ABLATION: dict[str, dict[str, Any]] = {
    "rule": {},
    "alpha = 0": {"alpha": 0.0},
    "rule's alpha / 10": {"times": (0.1, 0.0, 0.0)},
    "rule's alpha * 10": {"times": (10.0, 0.0, 0.0)},
    "nu = 1e-4 alpha": {"times": (1.0, 0.0, 1e-4)},
    "beta = nu = 1e-4 alpha": {"times": (1.0, 1e-4, 1e-4)},
    "beta = 1e-4 alpha, nu = 0": {"times": (1.0, 1e-4, 0.0)},
    "lam = 1e-4": {"lam": 1e-4},
    "lam = 1e-4, rule's alpha": {"lam": 1e-4, "times": (1.0, 0.0, 0.0)},
    "two layers (p, c)": {"layers": 2, "max_iter": 3000},
    "three layers (p, 2c, c)": {"layers": 3, "max_iter": 3000},
    "two layers, weights 0.1, 1": {"layers": 2, "layer_weights": (0.1, 1.0), "max_iter": 3000},
    "two layers, weights 1, 1": {"layers": 2, "layer_weights": (1.0, 1.0), "max_iter": 3000},
    "robust = feature": {"robust": "feature"},
    "robust = none": {"robust": "none"},
    "pretrained start": {"init": "pretrained"},
    "binary edges": {"edge_weights": "binary"},
    "local scaling": {"edge_weights": "local_scaling"},
    "mutual neighbours": {"join": "mutual"},
    "alpha, beta, nu = 0.1, 0.01, 0.01; binary, K = 5": {"alpha": 0.1, "beta": 0.01, "nu": 0.01},
}


def variant(arguments: Mapping[str, Any]) -> Callable[..., Any]:
    """A method of the comparison. times: alpha, beta, nu as multiples of the alpha of the rule; layers: 1, 2, 3."""

    def method(x: np.ndarray, sizes: tuple[int, ...], seed: int, config: Any) -> Any:
        given = dict(arguments)
        if given.get("layers") == 3:
            sizes = (sizes[0], min(2 * sizes[1], sizes[0]), sizes[1])
        if "times" in given:
            found = deep(max_iter=1, layers=given["layers"])(x, sizes, seed, config).details
            given |= {n: t * found["alpha"] for n, t in zip(("alpha", "beta", "nu"), given.pop("times"), strict=True)}
            graph = {"edge_weights": "shared", "normalize_graph": True, "n_neighbors": found["n_neighbors"]}
            given = graph | given
        return deep(**given)(x, sizes, seed, config)

    return method


def rule(sets: Sets, config: Any) -> dict[str, Any]:
    """The constants of the rule, with one layer, which needs no seed."""
    found: dict[str, Any] = {}
    for title, (x, y) in sets.items():
        for name, constants in RULE.items():
            with mock.patch.multiple(structure_rule, **constants):
                record, _ = compare(deep(layers=1), x, y, config, fixed=True)
            keep(found, title, name, record)
    return found


def ablation(sets: Sets, config: Any) -> dict[str, Any]:
    """Every term and setting by itself, with one layer where nothing else is said; seeds where they matter."""
    found: dict[str, Any] = {}
    for title, (x, y) in sets.items():
        for name, arguments in ABLATION.items():
            fixed = arguments.get("layers", 1) == 1 and arguments.get("init") != "pretrained"
            try:
                record, _ = compare(variant({"layers": 1} | arguments), x, y, config, fixed)
            except ValueError as refused:
                record = {"refused": str(refused)}
            keep(found, title, name, record)
    return found


def noise(sets: Sets, config: Any) -> dict[str, Any]:
    """A tenth and a fifth of the samples replaced by noise: error and scores of the others, by kind of weights.

    "rule": the whole method. "alpha = 0": one layer without structure, 300 sweeps from the pretrained start.
    """
    found: dict[str, Any] = {}
    plain = {"layers": 1, "alpha": 0.0, "init": "pretrained", "max_iter": 300}
    for title, (x, y) in sets.items():
        for share in (0.0, 0.1, 0.2):
            for form, arguments in (("rule", {"layers": 1}), ("alpha = 0", plain)):
                for robust in ("sample", "feature", "none"):
                    method = deep(robust=robust, normalize=False, **arguments)
                    runs = [spoiled(method, x, y, share, seed, config) for seed in range(config.num_seeds)]
                    record = {key: [run[key] for run in runs] for key in runs[0]}
                    means = {f"{key}_mean": float(np.mean(values)) for key, values in record.items()}
                    stds = {f"{key}_std": float(np.std(values)) for key, values in record.items()}
                    keep(found, title, f"{form}; {robust}; {share:g}", record | means | stds)
    return found


def spoiled(method: Callable[..., Any], x: np.ndarray, y: np.ndarray, share: float, seed: int, config: Any) -> dict:
    """Relative error and accuracy on the clean samples, where `share` of all are noise of length `NOISE_LENGTH`."""
    rng = np.random.default_rng(seed)
    bad = rng.choice(len(x), round(share * len(x)), replace=False)
    noise = rng.random((len(bad), x.shape[1]))
    given = x.copy()
    given[bad] = NOISE_LENGTH * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    clean = np.setdiff1d(np.arange(len(x)), bad)
    clusters = len(np.unique(y))
    sizes = (max(clusters, min(config.hidden, 4 * x.shape[1] // 5)), clusters)
    result = method(given, sizes, seed, config)
    q = result.dictionaries[0]
    for h in result.dictionaries[1:]:
        q = q @ h
    residual = x[clean] - result.codes[clean] @ q.T
    # The clusters are found among all samples, as one would have to.
    runs = [scores.kmeans(result.codes, clusters, 1000 * seed + i, n_init=1) for i in range(config.num_kmeans)]
    return {
        "error": float(np.linalg.norm(residual) / np.linalg.norm(x[clean])),
        "acc": float(np.mean([scores.accuracy(y[clean], run.labels[clean]) for run in runs])),
    }


def keep(found: dict[str, Any], title: str, name: str, record: dict[str, Any]) -> None:
    """Adds a record, in few digits, and prints its line."""
    rounded = json.loads(json.dumps(record, default=float), parse_float=lambda text: float(f"{float(text):.5g}"))
    found.setdefault(title, {})[name] = rounded
    shown = {
        key: rounded[key] for key in ("refused", "acc_mean", "acc_std", "best_acc_mean", "error_mean") if key in rounded
    }
    print(f"{time.strftime('%H:%M:%S')} {title}, {name}: {shown}", flush=True)


# What was asked of Dn2MFGL: the best of a prototype's settings on each set, every one picked with labels, in percent.
REFERENCE = {"digits": 84.6, "umist": 59.4, "jaffe": 94.4, "orl": 59.9, "yale": 42.9}


def record_of(study: str) -> dict[str, Any] | None:
    """A study's record; None if it has not been run."""
    path = RECORDS / f"{study}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _from(record: Mapping[str, Any], study: str) -> str:
    seeds = f"{record['config']['num_seeds']} seeds from {record['config']['seed']}"
    return (
        f"{seeds}; {record['device']}, one core, jax {record['jax']}, {record['date']}, commit {record['commit']}; "
        f"every seed in [results/clustering/{study}.json](results/clustering/{study}.json). ACC ± deviation between "
        "seeds, NMI, ARI of single k-means starts; in brackets ACC of codes at unit length; percent.\n\n"
    )


def scores_table(study: str) -> str:
    """A line a variant, a column a set."""
    record = record_of(study)
    if record is None:
        return "Not measured yet."
    sets = {title: found.get("methods", found) for title, found in record["sets"].items()}
    rows = []
    for name in dict.fromkeys(name for found in sets.values() for name in found):
        cells = [found.get(name, {}) for found in sets.values()]
        rows.append([name, *("refused" if "refused" in c else cell(c) for c in cells)])
    if study == "comparison":
        rows.append(["asked for", *(str(REFERENCE[title]) for title in sets)])
    return _from(record, study) + table(rows, ["", *sets])


def noise_table() -> str:
    """Error and accuracy on the clean samples, a line a share and kind of weights."""
    record = record_of("noise")
    if record is None:
        return "Not measured yet."
    rows = []
    for name in next(iter(record["sets"].values())):
        form, robust, share = name.split("; ")
        cells = []
        for found in record["sets"].values():
            c = found[name]
            cells += [
                f"{c['error_mean']:.3f} ± {c['error_std']:.3f}",
                f"{100 * c['acc_mean']:.1f} ± {100 * c['acc_std']:.1f}",
            ]
        rows.append([form, robust, f"{100 * float(share):.0f} %", *cells])
    heads = [f"{title}: {what}" for title in record["sets"] for what in ("error", "ACC")]
    return _from(record, "noise") + table(rows, ["fit", "robust", "noise", *heads])


TABLES: dict[str, Callable[[], str]] = {
    "comparison": lambda: scores_table("comparison"),
    "rule": lambda: scores_table("rule"),
    "ablation": lambda: scores_table("ablation"),
    "noise": noise_table,
}
STUDIES: dict[str, Callable[[Sets, Any], dict[str, Any]]] = {f.__name__: f for f in (rule, ablation, noise)}
# The sets of each study; what is slow and small is measured on fewer.
SETS = {
    "rule": ("digits", "umist", "jaffe", "orl", "yale"),
    "ablation": ("digits", "umist", "jaffe"),
    "noise": ("digits", "jaffe"),
}


def main() -> None:
    """Runs the studies and writes one JSON file each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--faces", default="", help="folder with jaffe.npz, orl.npz, umist.npz, yale.npz")
    parser.add_argument("--studies", default=",".join(STUDIES), help="separated by commas")
    parser.add_argument("--seeds", type=int, default=5, help="factorizations of every variant")
    parser.add_argument("--num_samples", type=int, default=0, help="of every set; 0: all")
    parser.add_argument("--out", type=Path, default=RECORDS, help="folder of the JSON files")
    args = parser.parse_args()
    config = dn2mfgl.get_config()
    config.faces, config.num_seeds, config.num_samples = args.faces, args.seeds, args.num_samples
    sets = read_sets(config)
    # Which fits ended at the limit of sweeps is in their details.
    warnings.simplefilter("ignore")
    args.out.mkdir(parents=True, exist_ok=True)
    for study in args.studies.split(","):
        chosen = {title: sets[title] for title in SETS[study] if title in sets}
        record = {"config": dict(config) | {"faces": ""}, **circumstances(), "sets": STUDIES[study](chosen, config)}
        (args.out / f"{study}.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
