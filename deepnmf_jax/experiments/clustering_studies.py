"""What Dn2MFGL's clusterings depend on: the rule's numbers, every term, layers and weights, bad samples.

python main.py --config=configs/clustering/studies.py --config.faces=FOLDER --workdir=docs/results/clustering

Scores are those of clustering.py. Each study is a file with every seed; the tables of the documentation are written
from those in docs/results/clustering. The faces are used for research alone; no picture of them is kept.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial, reduce
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from deepnmf_jax.core.checks import check_choice
from deepnmf_jax.decomposition.dn2mfgl import scores
from deepnmf_jax.decomposition.dn2mfgl.strengths import Rule
from deepnmf_jax.experiments import clustering
from deepnmf_jax.experiments.clustering import Measurement, Method, Result, deep
from deepnmf_jax.experiments.tables import ROOT, table
from deepnmf_jax.training.locks import locked, make_workdir

RECORDS = ROOT / "docs" / "results" / "clustering"
# Noise instead of samples: length of a noise sample where the others have 1.
NOISE_LENGTH = 3.0

RULES = {
    "rule": Rule(),
    "2 of 5 left out": Rule(left_out=2),
    "3 of 5 left out": Rule(left_out=3),
    "balance t / 8": Rule(balance=lambda trusted: trusted / 8),
    "balance t / 2": Rule(balance=lambda trusted: trusted / 2),
    "balance 2 t": Rule(balance=lambda trusted: 2 * trusted),
    "balance t^2": Rule(balance=lambda trusted: trusted**2),
    "balance 1 whatever the trust": Rule(balance=lambda trusted: 1.0),
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

# "rule": the whole method. "alpha = 0": one layer without structure, 300 sweeps from the pretrained start.
FITS: dict[str, dict[str, Any]] = {"rule": {}, "alpha = 0": {"alpha": 0.0, "init": "pretrained", "max_iter": 300}}


def variant(layers: int = 1, times: tuple[float, ...] | None = None, **arguments: Any) -> Method:
    """Dn2MFGL with these arguments. times: alpha, beta, nu as multiples of the alpha of the rule; layers: 1, 2, 3."""

    def method(x: np.ndarray, sizes: tuple[int, ...], seed: int, config: Any) -> Result:
        given = {"layers": layers, **arguments}
        if layers == 3:
            sizes = (sizes[0], min(2 * sizes[1], sizes[0]), sizes[1])
        if times:
            found = deep(layers=layers, max_iter=1)(x, sizes, seed, config).details
            graph = {"edge_weights": "shared", "normalize_graph": True, "n_neighbors": found["n_neighbors"]}
            numbers = (factor * found["alpha"] for factor in times)
            given = graph | given | dict(zip(("alpha", "beta", "nu"), numbers, strict=True))
        return deep(**given)(x, sizes, seed, config)

    return method


def ablated(arguments: Mapping[str, Any]) -> Measurement:
    """The scores of a variant, with seeds where they matter; or why the setting is refused."""
    fixed = arguments.get("layers", 1) == 1 and arguments.get("init") != "pretrained"
    measurement = clustering.compared(variant(**arguments), fixed)

    def unless_refused(x: np.ndarray, y: np.ndarray, config: Any) -> tuple[dict[str, Any], Result | None]:
        try:
            return measurement(x, y, config)
        except ValueError as error:
            return {"refused": str(error)}, None

    return unless_refused


def spoiled(method: Method, share: float) -> Measurement:
    """Relative error and accuracy on the clean samples, where `share` of all are noise of length `NOISE_LENGTH`."""

    def measurement(x: np.ndarray, y: np.ndarray, config: Any) -> tuple[dict[str, Any], None]:
        found: dict[str, list[float]] = {"error": [], "acc": []}
        for seed in clustering.seeds(config):
            rng = np.random.default_rng(seed)
            bad = rng.choice(len(x), round(share * len(x)), replace=False)
            noise = rng.random((len(bad), x.shape[1]))
            given = x.copy()
            given[bad] = NOISE_LENGTH * noise / np.linalg.norm(noise, axis=1, keepdims=True)
            clean = np.setdiff1d(np.arange(len(x)), bad)
            sizes = clustering.layer_sizes(x, y, config)
            result = method(given, sizes, seed, config)
            residual = x[clean] - result.codes[clean] @ reduce(np.matmul, result.dictionaries).T
            found["error"].append(float(np.linalg.norm(residual) / np.linalg.norm(x[clean])))
            # The clusters are found among all samples, as one would have to.
            starts = range(1000 * seed, 1000 * seed + config.num_kmeans)
            runs = [scores.kmeans(result.codes, sizes[-1], start, n_init=1) for start in starts]
            found["acc"].append(float(np.mean([scores.accuracy(y[clean], labels[clean]) for labels, _ in runs])))
        return clustering.with_spread(found), None

    return measurement


# The sets of each study, and what is measured on them; what is slow and small is measured on fewer sets.
STUDIES: dict[str, tuple[tuple[str, ...], dict[str, Measurement]]] = {
    "rule": (
        ("digits", "umist", "jaffe", "orl", "yale"),
        {name: clustering.compared(deep(layers=1, rule=rule), fixed=True) for name, rule in RULES.items()},
    ),
    "ablation": (("digits", "umist", "jaffe"), {name: ablated(arguments) for name, arguments in ABLATION.items()}),
    "noise": (
        ("digits", "jaffe"),
        {
            f"{fit}; {robust}; {share:g}": spoiled(deep(layers=1, robust=robust, normalize=False, **FITS[fit]), share)
            for share, fit, robust in product((0.0, 0.1, 0.2), FITS, ("sample", "feature", "none"))
        },
    ),
}


def run(config: Any, workdir: str | Path) -> None:
    """Writes one JSON file a study to `workdir`.

    Args:
        config: as in configs/clustering/studies.py.
        workdir: folder, made if it is missing.

    Raises:
        ValueError: an unknown study, none of its sets, a wrong setting, or a file without x and y. ImportError: no
            scikit-learn. OSError: another process is using the workdir.
    """
    names = clustering.listed(config.studies)
    for name in names:
        check_choice("studies", name, tuple(STUDIES))
    clustering.check_settings(config)
    sets = clustering.read_sets(config)
    # Of all studies before the first begins, which takes hours.
    chosen = {name: {title: sets[title] for title in STUDIES[name][0] if title in sets} for name in names}
    for name in names:
        if not chosen[name]:
            titles = ", ".join(STUDIES[name][0])
            raise ValueError(f"the study {name!r} is of the sets {titles}; there are {', '.join(sets)}")
    workdir = make_workdir(workdir)
    with locked(workdir):
        for name in names:
            clustering.measure(chosen[name], STUDIES[name][1], config, workdir / f"{name}.json")


def written(study: str, write: Callable[[Mapping[str, Any]], str], cells: str = clustering.SCORES) -> str:
    """What `write` makes of the sets of a committed record; before it where they are from and what its cells hold."""
    path = f"results/clustering/{study}.json"
    record = json.loads((RECORDS / f"{study}.json").read_text())
    config, cores, day = record["config"], record["cpu_count"], record["date"][:10]
    where = f"{record['device']}, {'one core' if cores == 1 else f'{cores} cores'}, jax {record['versions']['jax']}"
    return (
        f"{config['num_seeds']} seeds from {config['seed']}; {where}, {day}, commit {record['commit']}; "
        f"every seed in [docs/{path}](../{path}). {cells}\n\n{write(record['sets'])}"
    )


def noise_table(sets: Mapping[str, Any]) -> str:
    """Error and accuracy on the clean samples, a line a share and kind of weights."""
    found = [part["methods"] for part in sets.values()]
    rows = []
    for name in found[0]:
        fit, robust, share = name.split("; ")
        cells = []
        for c in (methods[name] for methods in found):
            cells.append(f"{c['error_mean']:.3f} ± {c['error_std']:.3f}")
            cells.append(f"{100 * c['acc_mean']:.1f} ± {100 * c['acc_std']:.1f}")
        rows.append([fit, robust, f"{100 * float(share):.0f} %", *cells])
    heads = [f"{title}: {what}" for title in sets for what in ("error", "ACC")]
    return table(rows, ["fit", "robust", "noise", *heads])


_ON_CLEAN = "Relative error, and ACC in percent, of the clean samples ± deviation between seeds."
TABLES: dict[str, Callable[[], str]] = {
    **{study: partial(written, study, clustering.scores_table) for study in ("comparison", "rule", "ablation")},
    "noise": partial(written, "noise", noise_table, _ON_CLEAN),
}
