"""The accuracy tables and their runner: what the rows and records are, what is trained, kept and written."""

import json
import os
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from deepnmf_jax.experiments import accuracy, accuracy_rows
from deepnmf_jax.experiments.trials import settings_of
from deepnmf_jax.training.records import flatten

# Settings that change where a run reads and how its steps are put together, not what it learns.
HARMLESS = {"seed", "num_seeds", "data_dir", "dataset", "steps_per_call", "save_every_epochs"}
IMPLICIT = (("model.gradient", "implicit"),)
ROW = accuracy.Row("t", "cnmf_1x1-implicit", "CNMF+1x1", "fast/cnmf_1x1", (0, 1), IMPLICIT, paper=83.7)
OTHER = ROW._replace(name="cnn-implicit", config="fast/cnn")


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
    """An empty folder of records; the pages stay as they are."""
    monkeypatch.setattr(accuracy_rows, "RECORDS", tmp_path / "records")
    monkeypatch.setattr(accuracy, "write_pages", lambda: None)


def test_a_row_without_runs_says_so(records):
    line = accuracy_rows.accuracy_table([ROW]).splitlines()[-1]
    assert "| not run |" in line and "83.7" in line
    assert f"`{ROW.name}`" in line


def test_a_run_that_has_not_ended_shows_its_epochs(records):
    row = ROW._replace(seeds=(0,))
    row.folder(0).mkdir(parents=True)
    lines = [
        {"epoch": e, "train_loss": 2 / e, "validation_accuracy": right} for e, right in ((1, 0.3), (2, 0.5), (3, 0.4))
    ]
    (row.folder(0) / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "| not ended | 50.00 |" in (found := accuracy_rows.accuracy_table([row])) and "| 3 so far |" in found


def test_the_epochs_of_runs_stand_side_by_side(records, monkeypatch):
    rows = [ROW._replace(table="plateau", name=name, label=name, seeds=(0,)) for name in ("a-long", "a-short", "none")]
    monkeypatch.setattr(accuracy_rows, "ROWS", rows)
    for row, count in zip(rows, (12, 5), strict=False):
        row.folder(0).mkdir(parents=True)
        lines = [{"epoch": e, "train_loss": 2 / e, "validation_accuracy": e / 100} for e in range(1, count + 1)]
        (row.folder(0) / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    written = accuracy_rows.epochs_table().splitlines()
    assert written[0] == "| epoch | a-long | a-short |"
    assert written[2:] == [
        "| 1 | 2.000, 1.0 % | 2.000, 1.0 % |",
        "| 2 | 1.000, 2.0 % | 1.000, 2.0 % |",
        "| 5 | 0.400, 5.0 % | 0.400, 5.0 % |",
        "| 10 | 0.200, 10.0 % |  |",
    ]


def test_the_epochs_of_a_run_that_is_stopped_are_kept(records, monkeypatch, tmp_path):
    def run(command, **_):
        folder = Path(next(c for c in command if c.startswith("--workdir=")).partition("=")[2])
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_text('{"epoch": 1, "train_loss": 0.123456789}\n')
        raise subprocess.CalledProcessError(143, command)

    monkeypatch.setattr(accuracy.subprocess, "run", run)
    monkeypatch.setattr(accuracy, "git_commit", lambda _: "abc")
    monkeypatch.setattr(accuracy, "ROWS", (ROW._replace(seeds=(0,)),))
    assert accuracy.main([f"--workdir={tmp_path / 'runs'}"]) == 1
    assert json.loads((ROW.folder(0) / "metrics.jsonl").read_text()) == {"epoch": 1, "train_loss": 0.123457}
    assert not (ROW.folder(0) / "results.json").exists()


def test_mean_and_deviation_are_those_of_the_records(records):
    write_record(ROW, 0, 0.80)
    assert "| 80.00 | 70.00 | 0 | 5 | 10.0 | 83.7 |" in accuracy_rows.accuracy_table([ROW])
    write_record(ROW, 1, 0.82)
    table = accuracy_rows.accuracy_table([ROW])
    assert "| 1,234 | 81.00 ± 1.41 | 70.00 ± 0.00 | 0, 1 | 5 | 10.0 | 10.0 | 83.7 |" in table
    assert table.startswith("2 cores, cpu; jax 0.10.2; 2026-01-01.")
    other = OTHER._replace(seeds=(0,))
    write_record(other, 0, 0.70, cores=1)
    table = accuracy_rows.accuracy_table([ROW, other])
    assert "| 10.0 (2 cores, cpu) |" in table and "| 10.0 (1 core, cpu) |" in table


def test_only_missing_runs_of_the_tables_asked_for_are_trained(records, monkeypatch, tmp_path):
    other = OTHER._replace(table="u")
    trained = []
    monkeypatch.setattr(accuracy, "ROWS", (other, ROW))
    monkeypatch.setattr(accuracy, "train", lambda row, seeds, options: trained.append((row.config, seeds, options)))
    write_record(ROW, 0, 0.80)
    assert accuracy.main([f"--workdir={tmp_path}", "--tables=t", "--config.steps_per_call=9"]) == 0
    [(config, seeds, options)] = trained
    assert (config, seeds) == ("fast/cnmf_1x1", (1,))
    assert options.workdir == tmp_path and options.flags == ["--config.steps_per_call=9"]
    write_record(ROW, 1, 0.82)
    assert accuracy.main([f"--workdir={tmp_path}", "--tables=t"]) == 0 and len(trained) == 1


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("--tables=t,v", "there is no table v; there are t"),
        ("--worker_count=2", "unknown: --worker_count=2"),
        ("--config=configs/cnn.py", "unknown: --config=configs/cnn.py"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(records, monkeypatch, capsys, mistake, message):
    monkeypatch.setattr(accuracy, "ROWS", (ROW,))
    monkeypatch.setattr(accuracy, "train", lambda *_: pytest.fail("trained"))
    with pytest.raises(SystemExit):
        accuracy.main([mistake])
    assert message in capsys.readouterr().err


def test_settings_and_packs_that_are_not_there_are_told_before_anything_is_trained(records, monkeypatch, capsys):
    monkeypatch.setattr(accuracy, "ROWS", (ROW,))
    monkeypatch.setattr(accuracy, "train", lambda *_: pytest.fail("trained"))
    with pytest.raises(ValueError, match="--config.num_itters is no setting .*is --config.model.num_iters meant"):
        accuracy.main(["--config.seed=1", "--config.num_itters=3"])
    monkeypatch.setenv("HOME", "/home/somebody")
    with pytest.raises(SystemExit):
        accuracy.main(["--packs=~/packs"])
    assert "there is no /home/somebody/packs/cifar10.pack" in capsys.readouterr().err


def test_a_failed_run_leaves_the_others_and_is_told(records, monkeypatch, capsys):
    def train(row, seeds, options):
        if row.config == "fast/cnn":
            raise OSError("no room")
        trained.append(row.config)

    trained = []
    monkeypatch.setattr(accuracy, "ROWS", (OTHER, ROW))
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
    (packs := tmp_path / "packs").mkdir()
    (packs / "cifar10.pack").touch()
    arguments = [f"--workdir={tmp_path / 'runs'}", "--together", f"--packs={packs}", "--config.steps_per_call=9"]
    assert accuracy.main(arguments) == 0
    [command] = commands
    pack = f"dataset={packs / 'cifar10.pack'}"
    for flag in ("seed=0", "num_seeds=2", pack, "model.gradient=implicit", "steps_per_call=9"):
        assert f"--config.{flag}" in command
    for seed, (right, loss) in enumerate([(0.25, 1.0), (0.75, 3.0)]):
        results = json.loads((ROW.folder(seed) / "results.json").read_text())
        assert results == {"seed": seed, "seeds_at_once": [0, 1], "test_accuracy": right}
        assert json.loads((ROW.folder(seed) / "metrics.jsonl").read_text()) == {"epoch": 1, "loss": loss}


def test_the_commands_are_printed_and_nothing_is_trained(monkeypatch, capsys):
    monkeypatch.setattr(accuracy.subprocess, "run", None)
    assert accuracy.main(["--tables=twenty,fast", "--commands"]) == 0
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines.keys() == {row.name for row in accuracy_rows.ROWS if row.table in ("twenty", "fast")}
    assert lines["cnn-twenty"] == (
        "python main.py --config=configs/fast/cnn.py --config.num_epochs=20 --workdir=runs/cnn-twenty"
    )


def test_a_shell_takes_a_printed_command_for_the_flags_of_the_run():
    for row in accuracy_rows.ROWS:
        assert shlex.split(row.command)[2:-1] == row.flags(row.seeds[0])[:-1]


def test_every_row_names_a_config_and_settings_it_has():
    for row in accuracy_rows.ROWS:
        assert {key for key, _ in row.settings} <= settings_of(row.config).keys()


def test_a_name_stands_for_one_run_and_every_record_is_of_a_row():
    rows = {(row.name, row.config, row.settings) for row in accuracy_rows.ROWS}
    assert len(rows) == len({name for name, *_ in rows}) == len({(config, settings) for _, config, settings in rows})
    folders = {row.folder(seed) for row in accuracy_rows.ROWS for seed in row.seeds}
    assert set(accuracy_rows.RECORDS.iterdir()) <= folders


def test_the_records_are_of_the_configs_they_stand_for():
    """A recipe that changes after its runs makes its table untrue."""
    for row in accuracy_rows.ROWS:
        now = settings_of(row.config)
        for results in row.results():
            then = flatten(results["config"])
            differing = {key for key in now.keys() & then.keys() if now[key] != then[key]}
            assert differing <= {*HARMLESS, *(key for key, _ in row.settings)}, row.folder(results["seed"])
            for key, value in row.settings:
                assert key in HARMLESS or str(then[key]) == value, (row.folder(results["seed"]), key)
            assert Path(results["config"]["dataset"]).stem == row.dataset
            assert results["commit"] and not results["commit"].endswith(("-dirty", "+changes"))


def test_the_short_table_has_the_best_network_beside_the_papers():
    lines = accuracy_rows.results_table().splitlines()
    assert len(lines) == 2 + 4 + len(accuracy_rows.BEST)
    assert lines[2].startswith("| CNMF+1x1 | 167,886 | 80.0 ± 0.3 | 3 | 20 |") and "`residual`" in lines[6]
