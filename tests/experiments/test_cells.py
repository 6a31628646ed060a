"""An experiment of cells goes on where it was stopped, and says where its numbers are from."""

import json

import pytest
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from configs.experiments import spikes as some_config
from deepnmf_jax.experiments import cells
from deepnmf_jax.experiments.cells import Cell, command_of, run_cells


@pytest.fixture
def config():
    return some_config.get_config()


def measured(config, workdir, names, measure, **more):
    listed = [Cell(name, lambda name=name: measure(name)) for name in names]
    return run_cells(config, workdir, listed, lambda r: ", ".join(r["cells"]), lambda r: Figure(), **more)


def test_a_stopped_run_measures_what_is_missing_and_nothing_twice(config, tmp_path):
    asked = []

    def measure(name):
        asked.append(name)
        if asked == ["a", "b"]:
            raise KeyboardInterrupt
        return {"third": 1 / 3}

    with pytest.raises(KeyboardInterrupt):
        measured(config, tmp_path / "run", "abc", measure)
    assert list(json.loads((tmp_path / "run" / "results.json").read_text())["cells"]) == ["a"]
    record = measured(config, tmp_path / "run", "abc", measure)
    assert asked == ["a", "b", "b", "c"]
    assert record == json.loads((tmp_path / "run" / "results.json").read_text())
    # What was read back and what was just measured have the same digits.
    assert record["cells"] == {name: {"third": 0.333333} for name in "abc"}
    assert {"versions", "device", "date", "seconds", "command"} <= record.keys()
    assert (tmp_path / "run" / "spikes.md").read_text() == "a, b, c\n"
    assert (tmp_path / "run" / "spikes.pdf").read_bytes().startswith(b"%PDF")


def test_other_settings_are_refused_but_for_those_that_only_select(config, tmp_path):
    measured(config, tmp_path, "a", str, selecting=("images",))
    config.images, config.data_dir = 7, "/elsewhere"
    record = measured(config, tmp_path, "ab", str, selecting=("images",))
    assert list(record["cells"]) == ["a", "b"] and record["config"]["images"] == 7
    assert record["config"]["data_dir"] == ""
    config.seed = 3
    with pytest.raises(ValueError, match="seed = 0 there, 3 now"):
        measured(config, tmp_path, "ab", str, selecting=("images",))
    with pytest.raises(ValueError, match="one name"):
        measured(config, tmp_path, "aa", str)


def test_the_command_has_what_differs_from_the_config_file(config):
    assert command_of(json.loads(config.to_json())) == "python main.py --config=configs/experiments/spikes.py"
    config.update(ConfigDict({"seed": 2, "networks": ("cnmf",), "data_dir": "/here"}))
    flags = ["--config.networks=\"('cnmf',)\"", "--config.seed=2"]
    assert command_of(json.loads(config.to_json())).split()[3:] == flags


def test_time_left_is_told_by_the_costs_of_what_is_left(monkeypatch):
    clock = iter([0.0, 60.0, 240.0])
    monkeypatch.setattr(cells.time, "monotonic", lambda: next(clock))
    missing = [Cell("a", str, 1.0), Cell("b", str, 3.0), Cell("c", str, 0.1)]
    told = list(cells._progress(missing, total=4))
    assert told == ["2 of 4: a", "3 of 4: b; about 3 min left", "4 of 4: c; less than a minute left"]
