"""A run that an older version of the package began: it is resumed, or refused in words.

`old_workdir` holds a run of two epochs of three, written when configs still had the settings `command_buffers`,
`early`, `loss.label_smoothing` and `optimizer.average`.
"""

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
from ml_collections import ConfigDict

from configs import quickstart
from deepnmf_jax.training.loop import train_and_evaluate
from deepnmf_jax.training.records import flatten
from deepnmf_jax.training.reports import evaluate
from deepnmf_jax.training.setup import prepare

ROOT = Path(__file__).resolve().parents[2]
OLD = Path(__file__).with_name("old_workdir")
STEP = OLD / "checkpoints" / "latest" / "8"


@pytest.fixture(autouse=True)
def as_it_was_begun(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In the folder from which the images have the path that the config gives, and without float64."""
    monkeypatch.chdir(ROOT)
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", True)


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "run"))


def old_config() -> dict[str, Any]:
    config = json.loads((OLD / "config.json").read_text())
    del config["data_fingerprint"]
    return config


def new_config() -> ConfigDict:
    """The same settings, as today's configs have them."""
    config = quickstart.get_config()
    old, known = flatten(old_config()), set(flatten(config.to_dict()))
    config.update_from_flattened_dict({k: tuple(v) if isinstance(v, list) else v for k, v in old.items() if k in known})
    return config


def test_its_config_is_read_as_one_of_today() -> None:
    old, new = (prepare(config).config.to_dict() for config in (ConfigDict(old_config()), new_config()))
    assert json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True)
    assert flatten(old_config()).keys() - flatten(new).keys() >= {"early.num_iters", "early.share", "command_buffers"}


@pytest.mark.slow
def test_it_is_resumed_to_its_end(workdir: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "deepnmf_jax"):
        results = train_and_evaluate(new_config(), workdir)
    assert "going on at step 8 of 12" in caplog.text
    assert (results["epochs"], results["steps"]) == (3, 12)
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    assert lines[:2] == (OLD / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["train_loss"] for line in lines]
    assert losses[2] < losses[1] < losses[0]
    assert (workdir / "config.json").read_bytes() == (OLD / "config.json").read_bytes()


@pytest.mark.slow
def test_it_is_evaluated(workdir: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By one step, and by its best variables, also where they are not in the checkpoint in which they should be."""
    found = evaluate(new_config(), str(STEP))
    assert (found["step"], found["num_images"]) == (8, 12)
    assert found["test_accuracy"] > 0.8
    assert evaluate(ConfigDict(old_config()), str(OLD)) == found | {"checkpoint": str(OLD)}
    best = workdir / "checkpoints" / "best" / "8"
    shutil.copytree(STEP, best)
    (best / "state" / "_METADATA").write_bytes(b"")
    with caplog.at_level(logging.INFO, "deepnmf_jax"):
        assert evaluate(new_config(), str(workdir)) == found | {"checkpoint": str(workdir)}
    assert [line for line in caplog.messages if "checkpoints" in line] == [
        f"skipped the damaged checkpoint {best}: state/_METADATA is changed",
        f"testing the best variables, of epoch 2, from {workdir / 'checkpoints' / 'latest' / '8'}",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("command_buffers", "loops"),
        ("early.share", 0.5),
        ("loss.label_smoothing", 0.1),
        ("optimizer.average", 0.8),
    ],
)
def test_what_was_trained_by_a_setting_that_is_gone_is_refused(workdir: Path, name: str, value: Any) -> None:
    config = ConfigDict(old_config())
    config.update_from_flattened_dict({name: value})
    (workdir / "config.json").write_text(json.dumps(config.to_dict()))
    with pytest.raises(ValueError, match=rf"the run in {workdir} cannot go on: .*{name}.*{value}"):
        train_and_evaluate(new_config(), workdir)
    # As is a config that still asks for it.
    with pytest.raises(ValueError, match=rf"{name}.*{value}"):
        prepare(config)
    assert not (workdir / "results.json").exists()
