"""The runner of the accuracy tables: what it trains, what it keeps, what it writes; networks put into the package."""

import importlib
import json

import numpy as np
import pytest
from ml_collections import ConfigDict

from benchmarks import accuracy, publish
from benchmarks.recipe import FILE, flat_settings
from deepnmf_jax.models.pretrained import read_network
from deepnmf_jax.training.records import flatten
from deepnmf_jax.training.reports import evaluate
from tests.programs import SETTINGS, Programs

ROW = accuracy.Row("t", "CNMF+1x1", "fast/cnmf_1x1", (0, 1), (("model.gradient", "implicit"),), paper=83.7)


def write_record(row, seed, test_accuracy):
    folder = row.folder(seed)
    folder.mkdir(parents=True)
    results = {
        "test_accuracy": test_accuracy, "validation_accuracy": 0.7, "parameters": 1234, "seed": seed, "epochs": 5,
        "seconds": 600.0, "cpu_count": 2, "device_backend": "cpu", "date": "2026-01-01T00:00:00",
        "versions": {"jax": "0.10.2"},
    }  # fmt: skip
    (folder / "results.json").write_text(json.dumps(results))


@pytest.fixture
def records(tmp_path, monkeypatch):
    monkeypatch.setattr(accuracy, "RECORDS", tmp_path / "records")
    return tmp_path / "records"


def test_a_row_without_runs_says_so(records):
    line = accuracy.accuracy_table([ROW]).splitlines()[-1]
    assert "| not run |" in line and "83.7" in line
    assert "`python main.py --config=configs/fast/cnmf_1x1.py --config.model.gradient=implicit --workdir=" in line


def test_mean_and_deviation_are_those_of_the_records(records):
    write_record(ROW, 0, 0.80)
    assert "| 80.00 | 70.00 | 0 |" in accuracy.accuracy_table([ROW])
    write_record(ROW, 1, 0.82)
    table = accuracy.accuracy_table([ROW])
    assert "| 1,234 | 81.00 ± 1.41 | 70.00 ± 0.00 | 0, 1 | 5 | 10.0 | 83.7 |" in table
    assert table.startswith("2 cores, cpu; jax 0.10.2; 2026-01-01.")


def test_only_missing_runs_of_the_tables_asked_for_are_trained(records, monkeypatch, tmp_path):
    other = ROW._replace(table="u", config="fast/cnn")
    trained = []
    monkeypatch.setattr(accuracy, "ROWS", (other, ROW))
    monkeypatch.setattr(accuracy, "PAGES", ())
    monkeypatch.setattr(accuracy, "train", lambda row, seed, workdir: trained.append((row.config, seed, workdir)))
    write_record(ROW, 0, 0.80)
    accuracy.main([f"--workdir={tmp_path}", "--tables=t"])
    assert trained == [("fast/cnmf_1x1", 1, tmp_path)]
    accuracy.main(["--write_only"])
    assert len(trained) == 1


def test_every_row_names_a_config_and_settings_it_has():
    for row in accuracy.ROWS:
        config = importlib.import_module(f"configs.{row.config.replace('/', '.')}").get_config()
        assert {key for key, _ in row.settings} <= flat_settings(config).keys()
    distinct = {(row.config, row.settings) for row in accuracy.ROWS}
    assert len({row.name for row in accuracy.ROWS}) == len(distinct)


def test_the_records_are_of_the_configs_they_stand_for():
    """A recipe that changes after its runs makes its table untrue."""
    for row in accuracy.ROWS:
        config = importlib.import_module(f"configs.{row.config.replace('/', '.')}").get_config()
        now = flat_settings(config)
        for results in row.results():
            then = flatten(results["config"])
            differing = {key for key in now.keys() & then.keys() if now[key] != then[key]}
            assert differing <= {"seed", "data_dir", *(key for key, _ in row.settings)}, row.folder(results["seed"])
            assert results["commit"] and not results["commit"].endswith("-dirty")


def test_the_pages_are_those_written_from_the_records():
    for page in accuracy.PAGES:
        text = page.read_text()
        assert accuracy.render(text, accuracy.tables(accuracy.ROWS) | accuracy.TRIALS) == text


def test_trials_are_repeatable_from_their_settings():
    known = flat_settings(importlib.import_module("configs.base").get_config())
    for trials in json.loads(FILE.read_text()).values():
        assert all(trial["settings"].keys() <= known.keys() for trial in trials)


@pytest.mark.slow
def test_a_published_network_is_the_run_s_best(programs: Programs, tmp_path):
    programs.run(f"--workdir={tmp_path / 'run'}")
    folder = publish.publish(tmp_path / "run", "net", "configs/x.py", tmp_path / "shelf")
    found = read_network(folder)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert found.results["test_accuracy"] == results["test_accuracy"]
    assert found.results["config_file"] == "configs/x.py"
    again = evaluate(ConfigDict(results["config"]), str(tmp_path / "run"))
    assert again["test_accuracy"] == results["test_accuracy"]
    assert np.isclose(found.model.width, SETTINGS["model.width"])


@pytest.mark.slow
def test_a_network_of_the_package_evaluates_to_its_number(programs: Programs, tmp_path, monkeypatch):
    from deepnmf_jax.models import pretrained

    programs.run(f"--workdir={tmp_path / 'run'}")
    publish.publish(tmp_path / "run", "net", "configs/x.py", tmp_path / "shelf")
    monkeypatch.setattr(pretrained, "_shelf", lambda: tmp_path / "shelf")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    config = ConfigDict(results["config"])
    found = evaluate(config, "pretrained:net")
    assert (found["test_accuracy"], found["test_loss"]) == (results["test_accuracy"], results["test_loss"])
    assert found["step"] == results["steps"]
    config.model.num_iters += 1
    with pytest.raises(ValueError, match="configs/x.py"):
        evaluate(config, "pretrained:net")
