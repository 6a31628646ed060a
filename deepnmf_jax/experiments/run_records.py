"""The records and the variables of a finished run, one a seed, also where the run trained several seeds at once."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from deepnmf_jax.experiments.tables import as_json, rounded
from deepnmf_jax.files import write_atomically

# Of several seeds, and not of one of them.
_JOINT = ("test_accuracy_mean", "test_accuracy_deviation")


class Record(NamedTuple):
    """results.json, and the lines of metrics.jsonl."""

    results: dict[str, Any]
    metrics: list[dict[str, Any]]

    def write(self, folder: Path) -> None:
        """Writes both files, results.json last and at once: where it is, the record is whole."""
        _write_epochs(folder, self.metrics)
        self.write_results(folder)

    def write_results(self, folder: Path) -> None:
        """Writes results.json alone."""
        write_atomically(folder / "results.json", as_json(dict(sorted(self.results.items()))))


def keep_epochs(workdir: Path, folder: Path) -> None:
    """Writes the epochs so far of a run that has not finished, if there are any, without a results.json."""
    if metrics := epochs_of(workdir):
        _write_epochs(folder, metrics)


def epochs_of(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl of a workdir or of a kept record; none where there is no such file."""
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _write_epochs(folder: Path, metrics: Sequence[Mapping[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # Six digits are more than two machines agree in.
    write_atomically(folder / "metrics.jsonl", "".join(json.dumps(rounded(line, 6)) + "\n" for line in metrics))


def read(workdir: Path) -> list[Record]:
    """The records of a run's seeds, in the order of its program. FileNotFoundError: it has not finished."""
    results = json.loads((workdir / "results.json").read_text())
    metrics = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    seeds = results["seed"]
    if not isinstance(seeds, list):
        return [Record(results, metrics)]
    return [
        Record({**_of_one(results, i), "seeds_at_once": seeds}, [_of_one(line, i) for line in metrics])
        for i in range(len(seeds))
    ]


def _of_one(record: Mapping[str, Any], index: int) -> dict[str, Any]:
    """What a record of several seeds says of one of them, under the names of a record of one seed."""

    def entry(value: Any) -> Any:
        return value[index] if isinstance(value, Sequence) and not isinstance(value, str) else value

    own = {name: entry(value) for name, value in record.items() if name not in _JOINT}
    by_seed = {name.removesuffix("_by_seed"): own.pop(name) for name in record if name.endswith("_by_seed")}
    return own | by_seed


def trained(workdir: Path, data_dir: str | Path | None = None) -> tuple[Any, dict[str, Any]]:
    """The `Run` of a workdir and its best variables by validation, with a leading axis if it has several seeds.

    Args:
        workdir: of a finished run.
        data_dir: folder of the data sets here, if it is another than the run's.

    Raises:
        FileNotFoundError: the run has not finished, or has no checkpoint.
    """
    from ml_collections import ConfigDict

    from deepnmf_jax.training.prediction import best_variables
    from deepnmf_jax.training.setup import prepare

    config = ConfigDict(json.loads((workdir / "results.json").read_text())["config"])
    if data_dir is not None:
        config.data_dir = str(data_dir)
    run = prepare(config)
    return run, best_variables(run.template(), workdir)
