"""The trials of the recipe: they can be repeated, are collected from finished runs, and their tables say how."""

import json
from pathlib import Path

import pytest

from deepnmf_jax.experiments import trials


def test_trials_are_repeatable_from_their_settings() -> None:
    known = trials.settings_of("base")
    for group in json.loads(trials.FILE.read_text()).values():
        assert all(trial["settings"].keys() <= known.keys() for trial in group)


def test_a_finished_run_is_collected_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "FILE", tmp_path / "trials.json")
    for name, batch_size, accuracy in (("a", 64, 0.5), ("b", 64, 0.625), ("c", 32, 0.75)):
        (tmp_path / name).mkdir()
        config = {"batch_size": batch_size, "optimizer": {"learning_rate": {"nmf": 0.25}}, "num_epochs": 500}
        record = {"seed": 0, "config": config, "date": "2026-01-01", "versions": {"jax": "1"}}
        (tmp_path / name / "results.json").write_text(json.dumps(record))
        line = {"validation_accuracy": accuracy, "train_accuracy": 0.25, "seconds": 60}
        (tmp_path / name / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    trials.main(["--group=rates", *(str(tmp_path / name) for name in "abc")])
    [collected] = json.loads((tmp_path / "trials.json").read_text()).values()
    # The number of epochs is that of configs/base.py.
    assert collected[2]["settings"] == {"batch_size": 32, "optimizer.learning_rate.nmf": 0.25}
    table = trials.tables()["trials_rates"]()
    assert table.startswith("All runs: batch_size 64, rate of nmf 0.25, where a row says nothing else.")
    assert table.splitlines()[4:] == [
        "| batch_size 32 | 25.0 | 75.0 | 1.0 |",
        "| the settings above | 25.0 | 62.5 | 1.0 |",
        "| the settings above | 25.0 | 50.0 | 1.0 |",
    ]
