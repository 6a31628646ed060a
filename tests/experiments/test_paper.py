"""The paper's networks on a machine that has eight packages and no other: from a pack, in slices, over an archive."""

import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deepnmf_jax.data.make_pack import pack
from deepnmf_jax.experiments import paper
from tests.programs import SETTINGS, write_images

ROOT = Path(__file__).resolve().parents[2]
ENOUGH = ("jax", "flax", "optax", "orbax-checkpoint", "chex", "numpy", "pillow", "ml_collections")

# Python runs it at the start of each program that has its folder in PYTHONPATH.
REFUSE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"{{name}} is refused", name=name)
sys.meta_path.insert(0, Refuse())
"""


def needed_by(packages: tuple[str, ...]) -> set[str]:
    """Normalized names of the installed distributions that come with these."""
    found: dict[str, set[str]] = {}
    waiting = [(name, frozenset[str]()) for name in packages]
    while waiting:
        name, extras = waiting.pop()
        name = canonicalize_name(name)
        if name in found and extras <= found[name]:
            continue
        found.setdefault(name, set()).update(extras)
        try:
            lines = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for requirement in map(Requirement, lines):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *found[name])):
                waiting.append((requirement.name, frozenset(requirement.extras)))
    return set(found)


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """The environment of a program that finds what comes with the eight packages alone."""
    allowed = needed_by(ENOUGH) | {"deepnmf-jax"}
    refused = {
        module
        for module, owners in importlib.metadata.packages_distributions().items()
        if not allowed & {canonicalize_name(owner) for owner in owners}
    }
    assert {"matplotlib", "tensorboardX", "tqdm", "mlxtend", "tensorflow_datasets"} <= refused
    (tmp_path / "sitecustomize.py").write_text(REFUSE.format(names=refused))
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1"}


def arguments(folder: Path) -> list[str]:
    # Short epochs, about 25 of them until the rates are at their end: time to be stopped.
    given = {**SETTINGS, "num_epochs": 500, "optimizer.plateau.factor": 0.6, "optimizer.plateau.smallest_rate": 1e-6}
    return [
        f"--dataset={folder / 'images.pack'}", f"--runs={folder / 'runs'}", f"--archive={folder / 'runs.tar'}",
        "--networks", "cnn", "--seeds=2", "--steps_per_call=100",
        *(f"--config.{name}={value}" for name, value in given.items()),
    ]  # fmt: skip


@pytest.mark.slow
def test_a_network_is_trained_from_a_pack_with_few_packages_and_over_an_archive(tmp_path, bare):
    pack(str(write_images(tmp_path / "images.npz")), tmp_path / "images.pack")
    command = [sys.executable, "-m", "deepnmf_jax.experiments.paper", *arguments(tmp_path)]
    with (tmp_path / "log").open("w") as log:
        first = subprocess.Popen(command, env=bare, stdout=log, stderr=subprocess.STDOUT, cwd=tmp_path)
    while "epoch 2/500" not in (tmp_path / "log").read_text():
        assert first.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.02)
    first.send_signal(signal.SIGTERM)
    assert first.wait(200) == 128 + signal.SIGTERM
    assert "SIGTERM: saved at step" in (tmp_path / "log").read_text()
    shutil.rmtree(tmp_path / "runs")
    done = subprocess.run(command, env=bare, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("all networks are trained") and "going on at step" in done.stderr
    for missing in ("TensorBoard files: tensorboardX is refused", "no pictures: matplotlib is refused"):
        assert missing in done.stderr
    results = json.loads((tmp_path / "runs" / "paper-cnn" / "results.json").read_text())
    assert 22 < results["epochs"] < 500
    # A seed whose rates are at their end waits for the other.
    last = json.loads((tmp_path / "runs" / "paper-cnn" / "metrics.jsonl").read_text().splitlines()[-2])
    assert max(last["learning_rate_nmf_by_seed"]) > 1e-6 and results["seed"] == [6, 7]
    assert results["dataset"]["name"].endswith("images.npz")


def test_the_refusal_refuses(bare):
    for module, status in (("matplotlib.figure", 1), ("numpy", 0)):
        done = subprocess.run([sys.executable, "-c", f"import {module}"], env=bare, capture_output=True, text=True)
        assert done.returncode == status, done.stderr


def test_a_run_is_one_of_main_with_the_paper_s_config():
    options = paper.parse(["--dataset=a.pack", "--runs=r", "--config.model.num_iters=3"])
    python, program, *flags = paper.command(options, "cnn")
    assert (python, program) == (sys.executable, str(ROOT / "main.py"))
    assert {"--workdir=r/paper-cnn", "--config.dataset=a.pack", "--config.num_seeds=5"} <= set(flags)
    assert flags[0] == f"--config={ROOT}/configs/cnn.py" and flags[-1] == "--config.model.num_iters=3"
    for network in paper.NETWORKS:
        assert (ROOT / "configs" / f"{network}.py").exists()
    with pytest.raises(SystemExit):
        paper.parse(["--set", "model.depth=3"])


ENDS_ON_REQUEST = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
open(sys.argv[1], "w").close()
time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "seconds", "grace", "status"),
    [
        ("raise SystemExit(4)", 60, 60, 4),
        (ENDS_ON_REQUEST, 2, 60, 5),
        (ENDS_ON_REQUEST.replace("sys.exit(5)", "None"), 2, 0.1, -signal.SIGKILL),
    ],
)
def test_a_program_ends_by_itself_on_request_or_by_force(tmp_path, program, seconds, grace, status):
    command = [sys.executable, "-c", program, str(tmp_path / "started")]
    if program.startswith("raise"):
        assert paper.supervise(command, seconds, grace) == status
        return
    found = paper.supervise(command, seconds, grace)
    # On a very busy machine the time is over before it has begun.
    assert found == (status if (tmp_path / "started").exists() else -signal.SIGTERM)


def test_settings_are_checked_before_a_run_begins(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    options = paper.parse(["--runs=~/runs", "--archive=~/runs.tar", "--config.model.width=2"])
    assert (options.runs, options.archive) == (tmp_path / "runs", tmp_path / "runs.tar")
    for mistake, message in (
        ("--config.model.widht=2", "--config.model.widht is no setting .*is --config.model.width meant"),
        ("--seeds=0", "--seeds = 0"),
        ("--minutes=-1", "--minutes = -1"),
    ):
        with pytest.raises(ValueError, match=message):
            paper.parse([mistake])
    with pytest.raises(OSError, match="there is no folder"):
        paper.parse(["--archive=~/nowhere/runs.tar"])


def test_no_time_left_starts_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(paper, "supervise", lambda *_: pytest.fail("started a run"))
    done = tmp_path / "runs" / "paper-cnn_1x1"
    done.mkdir(parents=True)
    (done / "results.json").touch()
    assert paper.main([f"--runs={tmp_path / 'runs'}", "--minutes=1"]) == 0
    assert "not done yet: cnmf_1x1, cnmf, cnn; call again" in capsys.readouterr().out
    assert paper.main([f"--runs={tmp_path / 'runs'}", "--minutes=1", "--networks", "cnn_1x1"]) == 0
    assert "all networks are trained" in capsys.readouterr().out
