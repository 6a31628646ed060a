"""The runner of the accuracy tables: what it trains, what it keeps, what it writes; networks put into the package."""

import importlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from deepnmf_jax import load_pretrained, pretrained_names
from deepnmf_jax.data.datasets import load_dataset
from deepnmf_jax.experiments import accuracy, accuracy_rows, jpeg_quality, publish
from deepnmf_jax.experiments.trials import FILE, flat_settings
from deepnmf_jax.models.pretrained import read_network
from deepnmf_jax.training.evaluation import Evaluator
from deepnmf_jax.training.records import flatten
from deepnmf_jax.training.reports import evaluate
from deepnmf_jax.training.setup import prepare
from tests.data.test_datasets import real_data_dir
from tests.programs import SETTINGS, Programs

# Settings that change where a run reads and how its steps are put together, not what it learns.
HARMLESS = {"seed", "num_seeds", "data_dir", "dataset", "steps_per_call", "save_every_epochs"}
ROW = accuracy.Row("t", "CNMF+1x1", "fast/cnmf_1x1", (0, 1), (("model.gradient", "implicit"),), paper=83.7)


def write_record(row, seed, test_accuracy, cores=2):
    folder = row.folder(seed)
    folder.mkdir(parents=True)
    results = {
        "test_accuracy": test_accuracy, "validation_accuracy": 0.7, "parameters": 1234, "seed": seed, "epochs": 5,
        "seconds": 600.0, "cpu_count": cores, "device_backend": "cpu", "date": "2026-01-01T00:00:00",
        "versions": {"jax": "0.10.2"}, "peak_memory": 10 * 10**9 if seed else None,
    }  # fmt: skip
    (folder / "results.json").write_text(json.dumps(results))


@pytest.fixture
def records(tmp_path, monkeypatch):
    monkeypatch.setattr(accuracy_rows, "RECORDS", tmp_path / "records")
    return tmp_path / "records"


def test_a_row_without_runs_says_so(records):
    line = accuracy.accuracy_table([ROW]).splitlines()[-1]
    assert "| not run |" in line and "83.7" in line
    assert "`python main.py --config=configs/fast/cnmf_1x1.py --config.model.gradient=implicit --workdir=" in line


def test_mean_and_deviation_are_those_of_the_records(records):
    write_record(ROW, 0, 0.80)
    assert "| 80.00 | 70.00 | 0 | 5 | 10.0 | 83.7 |" in accuracy.accuracy_table([ROW])
    write_record(ROW, 1, 0.82)
    table = accuracy.accuracy_table([ROW])
    assert "| 1,234 | 81.00 ± 1.41 | 70.00 ± 0.00 | 0, 1 | 5 | 10.0 | 10.0 | 83.7 |" in table
    assert table.startswith("2 cores, cpu; jax 0.10.2; 2026-01-01.")
    other = ROW._replace(config="fast/cnn", seeds=(0,))
    write_record(other, 0, 0.70, cores=1)
    table = accuracy.accuracy_table([ROW, other])
    assert "| 10.0 (2 cores, cpu) |" in table and "| 10.0 (1 core, cpu) |" in table


def test_only_missing_runs_of_the_tables_asked_for_are_trained(records, monkeypatch, tmp_path):
    other = ROW._replace(table="u", config="fast/cnn")
    trained = []
    monkeypatch.setattr(accuracy, "ROWS", (other, ROW))
    monkeypatch.setattr(accuracy, "PAGES", ())
    monkeypatch.setattr(accuracy, "train", lambda row, seeds, options: trained.append((row.config, seeds, options)))
    write_record(ROW, 0, 0.80)
    assert accuracy.main([f"--workdir={tmp_path}", "--tables=t", "--config.steps_per_call=9"]) == 0
    [(config, seeds, options)] = trained
    assert (config, seeds) == ("fast/cnmf_1x1", (1,))
    assert options.workdir == tmp_path and options.flags == ["--config.steps_per_call=9"]
    accuracy.main(["--write_only"])
    assert len(trained) == 1


@pytest.mark.parametrize("mistake", ["--tables=t,v", "--worker_count=2", "--config=configs/cnn.py"])
def test_mistakes_are_told_before_anything_is_trained(records, monkeypatch, capsys, mistake):
    monkeypatch.setattr(accuracy, "ROWS", (ROW,))
    monkeypatch.setattr(accuracy, "train", lambda *_: pytest.fail("trained"))
    with pytest.raises(SystemExit):
        accuracy.main([mistake])
    assert "there is no table v; there are t" in (message := capsys.readouterr().err) or "unknown: --" in message


def test_a_failed_run_leaves_the_others_and_is_told(records, monkeypatch, capsys):
    def train(row, seeds, options):
        if row.config == "fast/cnn":
            raise OSError("no room")
        trained.append(row.config)

    trained = []
    monkeypatch.setattr(accuracy, "ROWS", (ROW._replace(config="fast/cnn"), ROW))
    monkeypatch.setattr(accuracy, "PAGES", ())
    monkeypatch.setattr(accuracy, "train", train)
    assert accuracy.main(["--together", "--workers=2"]) == 1
    assert trained == ["fast/cnmf_1x1"]
    assert "no room" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be bound to cores here")
def test_each_worker_trains_on_cores_of_its_own(records, monkeypatch):
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("one core")
    used, both = [], threading.Barrier(2, timeout=60)

    def train(row, seeds, options):
        command = [sys.executable, "-c", "import os; print(sorted(os.sched_getaffinity(0)))"]
        used.append(set(json.loads(subprocess.run(command, capture_output=True, check=True).stdout)))
        both.wait()

    monkeypatch.setattr(accuracy, "ROWS", (ROW,))
    monkeypatch.setattr(accuracy, "PAGES", ())
    monkeypatch.setattr(accuracy, "train", train)
    assert accuracy.main(["--workers=2"]) == 0
    first, second = used
    assert not first & second and first | second == cores
    assert os.sched_getaffinity(0) == cores


def test_seeds_go_together_where_one_program_can_train_them(records, monkeypatch):
    three = ROW._replace(seeds=(0, 1, 2))
    monkeypatch.setattr(accuracy, "ROWS", (ROW, three))
    assert accuracy.missing(["t"], True) == [(three, (0, 1, 2))]
    assert accuracy.missing(["t"], False) == [(three, (0,)), (three, (1,)), (three, (2,))]
    write_record(three, 1, 0.80)
    assert accuracy.missing(["t"], True) == [(three, (0,)), (three, (2,))]


def test_the_command_of_a_run(records, monkeypatch, tmp_path):
    commands = []

    def run(command, env=None, **_):
        if command[0] == "git":
            return subprocess.CompletedProcess(command, 0, stdout="" if "status" in command else "abc", stderr="")
        commands.append(command)
        assert env["DEEPNMF_COMMIT"] == "abc"
        folder = Path(next(c for c in command if c.startswith("--workdir=")).partition("=")[2])
        folder.mkdir(parents=True)
        (folder / "results.json").write_text(json.dumps({"seed": [0, 1], "test_accuracy": [0.25, 0.75]}))
        (folder / "metrics.jsonl").write_text(json.dumps({"epoch": 1, "loss": 2.0, "loss_by_seed": [1.0, 3.0]}) + "\n")

    monkeypatch.delenv("DEEPNMF_COMMIT", raising=False)
    monkeypatch.setattr(accuracy.subprocess, "run", run)
    monkeypatch.setattr(accuracy, "ROWS", (ROW,))
    monkeypatch.setattr(accuracy, "PAGES", ())
    arguments = [f"--workdir={tmp_path / 'runs'}", "--together", "--packs=/data", "--config.steps_per_call=9"]
    assert accuracy.main(arguments) == 0
    [command] = commands
    for flag in ("seed=0", "num_seeds=2", "dataset=/data/cifar10.pack", "model.gradient=implicit", "steps_per_call=9"):
        assert f"--config.{flag}" in command
    for seed, (right, loss) in enumerate([(0.25, 1.0), (0.75, 3.0)]):
        results = json.loads((ROW.folder(seed) / "results.json").read_text())
        assert results == {"seed": seed, "seeds_at_once": [0, 1], "test_accuracy": right}
        assert json.loads((ROW.folder(seed) / "metrics.jsonl").read_text()) == {"epoch": 1, "loss": loss}


def test_images_are_encoded_anew_at_a_quality():
    rng = np.random.default_rng(0)
    smooth = np.repeat(np.repeat(rng.integers(0, 256, (3, 4, 4, 3), np.uint8), 8, 1), 8, 2)
    fine = np.abs(jpeg_quality.encoded(smooth, 90).astype(int) - smooth).mean()
    coarse = np.abs(jpeg_quality.encoded(smooth, 10).astype(int) - smooth).mean()
    assert 0 < fine < coarse < 64


def test_every_row_names_a_config_and_settings_it_has():
    for row in accuracy_rows.ROWS:
        config = importlib.import_module(f"configs.{row.config.replace('/', '.')}").get_config()
        assert {key for key, _ in row.settings} <= flat_settings(config).keys()
    distinct = {(row.config, row.settings) for row in accuracy_rows.ROWS}
    assert len({row.name for row in accuracy_rows.ROWS}) == len(distinct)


def test_the_records_are_of_the_configs_they_stand_for():
    """A recipe that changes after its runs makes its table untrue."""
    for row in accuracy_rows.ROWS:
        config = importlib.import_module(f"configs.{row.config.replace('/', '.')}").get_config()
        now = flat_settings(config)
        for results in row.results():
            then = flatten(results["config"])
            differing = {key for key in now.keys() & then.keys() if now[key] != then[key]}
            assert differing <= {*HARMLESS, *(key for key, _ in row.settings)}, row.folder(results["seed"])
            assert Path(results["config"]["dataset"]).stem == row.dataset
            assert results["commit"] and not results["commit"].endswith("-dirty")


def test_the_pages_are_those_written_from_the_records():
    for page in accuracy.PAGES:
        text = page.read_text()
        assert accuracy.render(text, accuracy.tables(accuracy_rows.ROWS) | accuracy.TRIALS) == text


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
def test_one_of_several_seeds_is_published(programs: Programs, tmp_path):
    programs.run(f"--workdir={tmp_path / 'run'}", "--config.num_seeds=2", "--config.seed=3")
    with pytest.raises(ValueError, match=r"the seeds 3, 4 at once; say which"):
        publish.publish(tmp_path / "run", "net", "configs/x.py", tmp_path / "shelf")
    with pytest.raises(ValueError, match=r"did not train the seed 5, but 3, 4"):
        publish.publish(tmp_path / "run", "net", "configs/x.py", tmp_path / "shelf", seed=5)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    found = read_network(publish.publish(tmp_path / "run", "net", "configs/x.py", tmp_path / "shelf", seed=4))
    assert found.results["test_loss"] == results["test_loss"][1] != results["test_loss"][0]
    run = prepare(ConfigDict(results["config"] | {"num_seeds": 1, "seed": 4}))
    evaluator = Evaluator(
        run.model, crop=run.augmentation.crop, batch_size=50, mesh=run.mesh, statistics="running", seeds=1
    )
    images, labels = run.dataset.test_images, run.dataset.test_labels
    again = evaluator(found.variables["params"], found.variables["batch_stats"], images, labels, np.arange(len(labels)))
    np.testing.assert_allclose(again.loss, results["test_loss"][1], rtol=1e-5)


@pytest.fixture(scope="module")
def cifar10(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """All test images of CIFAR-10 and few others, read faster than the whole set; the fingerprint of that."""
    whole = load_dataset("cifar10", real_data_dir("cifar10"))
    path = tmp_path_factory.mktemp("cifar10") / "test.npz"
    few = {"x_train": whole.train_images[:1000], "y_train": whole.train_labels[:1000]}
    np.savez(path, x_test=whole.test_images, y_test=whole.test_labels, **few)
    return path, whole.fingerprint


@pytest.mark.slow
@pytest.mark.parametrize("name", pretrained_names())
def test_the_networks_of_the_package_have_the_accuracy_on_record(name, cifar10):
    results, (path, fingerprint) = load_pretrained(name).results, cifar10
    if fingerprint != results["dataset"]["fingerprint"]:
        pytest.skip("another copy of CIFAR-10 than the JPEG copy that the networks were trained on")
    config = results["config"] | {"dataset": str(path), "num_validation": 100, "num_seeds": 1}
    found = evaluate(ConfigDict(config), f"pretrained:{name}")
    assert found["num_images"] == 10_000
    # Five images, because processors round differently.
    assert abs(found["test_accuracy"] - results["test_accuracy"]) <= 5e-4


@pytest.mark.slow
def test_a_network_of_the_package_evaluates_to_its_number(programs: Programs, tmp_path, monkeypatch):
    from deepnmf_jax.models import pretrained

    assert programs.run_from_scratch(f"--workdir={tmp_path / 'run'}").status == 0  # compiled as here
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
