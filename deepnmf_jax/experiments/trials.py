"""What the trials for the short recipe gave, on the validation images: collects finished runs into one file.

python -m deepnmf_jax.experiments.trials --group=one_epoch runs/a runs/b ...

Each run is kept as the settings in which it differs from configs/base.py, so that
`python main.py --config=configs/base.py --config.KEY=VALUE ...` repeats it. The test set is not looked at here.
Trials of settings that are no more are in docs/results/removed, and in no table.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from deepnmf_jax.experiments import run_records
from deepnmf_jax.experiments.tables import ROOT, as_json, table
from deepnmf_jax.files import write_atomically
from deepnmf_jax.programs import home, read_recipe, run
from deepnmf_jax.training.records import flatten

FILE = ROOT / "docs" / "results" / "trials.json"


def settings_of(config: str) -> dict[str, Any]:
    """The settings of a file of configs/ ("base") by dotted name, as results.json has them: tuples are lists."""
    return flatten(json.loads(json.dumps(read_recipe(config).to_dict())))


def trial(workdir: Path) -> dict[str, Any]:
    """One finished run: its settings, and what each epoch gave."""
    [(results, metrics)] = run_records.read(workdir)
    usual = settings_of("base")
    given = flatten(results["config"])
    return {
        "settings": {k: v for k, v in sorted(given.items()) if v != usual.get(k)},
        "validation_accuracy": [r["validation_accuracy"] for r in metrics],
        "train_accuracy": [r["train_accuracy"] for r in metrics],
        "seconds": metrics[-1]["seconds"],
        "date": results["date"],
        "jax": results["versions"]["jax"],
    }


def tables() -> dict[str, Callable[[], str]]:
    """The writer of each table, one a group."""
    return {f"trials_{group}": partial(trials_table, group) for group in json.loads(FILE.read_text())}


def trials_table(group: str) -> str:
    """The trials of a group, best first, each with the settings in which it differs from most of them."""
    runs = json.loads(FILE.read_text())[group]
    usual = settings_of("base")
    keys = sorted({key for t in runs for key in t["settings"]})
    values = {key: [t["settings"].get(key, usual[key]) for t in runs] for key in keys}
    common = {key: max(found, key=found.count) for key, found in values.items()}
    rows = []
    for i, t in sorted(enumerate(runs), key=lambda pair: -pair[1]["validation_accuracy"][-1]):
        own = [f"{_short(key)} {values[key][i]}" for key in keys if values[key][i] != common[key]]
        shares = [f"{100 * t[name][-1]:.1f}" for name in ("train_accuracy", "validation_accuracy")]
        rows.append([", ".join(own) or "the settings above", *shares, f"{t['seconds'] / 60:.1f}"])
    shown = ", ".join(f"{_short(key)} {value}" for key, value in common.items() if value != usual[key])
    return f"All runs: {shown}, where a row says nothing else.\n\n" + table(
        rows, ["change", "train, %", "validation, %", "min"]
    )


def _short(key: str) -> str:
    return key.removeprefix("model.").removeprefix("optimizer.").replace("learning_rate.", "rate of ")


def main(arguments: Sequence[str] | None = None) -> None:
    """Collects runs into a group, which they replace."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--group", required=True)
    parser.add_argument("workdirs", type=home, nargs="+")
    options = parser.parse_args(arguments)
    collected = json.loads(FILE.read_text()) if FILE.exists() else {}
    collected[options.group] = [trial(workdir) for workdir in options.workdirs]
    write_atomically(FILE, as_json(collected))


if __name__ == "__main__":
    run(main)
