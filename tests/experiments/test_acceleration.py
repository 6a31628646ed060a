"""What fewer products cost a trained network: settings by block against plain iterations, the records, the table."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from deepnmf_jax.data.augmentation import center_crop
from deepnmf_jax.experiments import acceleration
from deepnmf_jax.training.setup import prepare
from tests.programs import SETTINGS, Programs


@pytest.mark.slow
def test_settings_by_block_are_held_against_plain_iterations(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = base.get_config()
    config.update_from_flattened_dict({"dataset": str(programs.images), **SETTINGS, "model.num_iters": 20})
    run = prepare(config)
    variables = jax.jit(run.model.init)(jax.random.key(0), jnp.zeros((1, *run.image_shape)))
    images = run.dataset.train_images[run.split.validation[:4]]
    inputs = acceleration.layer_inputs(
        run.model, variables, center_crop(jnp.asarray(images), run.augmentation.crop), 50
    )
    assert [w.shape[0] for _, w in inputs] == [8, 16, 24, 3]
    names = "20 plain", "multistep: 7, 4, 4 pairs, fourth plain"
    monkeypatch.setattr(acceleration, "SETTINGS", {name: acceleration.SETTINGS[name] for name in names})
    by_block = acceleration.by_block(run, variables, inputs)
    plain, multistep = by_block.values()
    assert plain["other answers"] == 0 and plain["operations"] == 1 and plain["l1"] == [0] * 4
    assert 0.2 < multistep["operations"] < 0.4
    assert all(0 < distance < 0.05 for distance in multistep["l1"][:3])
    assert multistep["l1"][3] < 1e-6  # the same iterations
    np.testing.assert_allclose(multistep["kl"], plain["kl"], rtol=0.02)
    monkeypatch.setattr(acceleration, "METHODS", {"multistep 6": acceleration.METHODS["multistep 6"]})
    monkeypatch.setattr(acceleration, "PAIRS", (2, 10))
    methods = acceleration.by_method(run, variables, inputs, images=8)
    [found] = methods.values()
    assert len(found["accuracy"]) == 2 and np.mean(found["l1"][1]) < np.mean(found["l1"][0])
    table = acceleration.acceleration_table({"pairs": (2, 10), "methods": methods, "by_block": by_block})
    assert "| pairs | 2 | 10 |" in table and f"| {names[0]} | {100 * plain['accuracy']:.2f} | 0 | 100 % |" in table


def test_the_trainings_are_told_epoch_by_epoch_and_as_the_report_says() -> None:
    record = json.loads(acceleration.TRAININGS.read_text())
    written = acceleration.trainings_table(record).splitlines()
    plain, multistep = (run["epochs"] for run in record["runs"].values())
    first = f"{plain[0]['train_loss']:.3f}, {100 * plain[0]['validation_accuracy']:.1f} %"
    assert len(plain) == 10 and written[4].startswith(f"| 1 | {first} | ") and written[-1].startswith("| 10 | ")
    losses, accuracies = (
        [abs(a[name] - b[name]) for a, b in zip(plain, multistep, strict=True)]
        for name in ("train_loss", "validation_accuracy")
    )
    report = (acceleration.ROOT / "docs" / "reports" / "speed.md").read_text(encoding="utf-8")
    assert max(losses) < 0.004 and "The losses differ by 0.004 at most" in report
    assert f"the accuracies by {100 * max(accuracies):.1f} points at most" in report


@pytest.mark.parametrize("name", ["twenty_epochs", "three_epochs"])
def test_the_records_say_where_they_come_from_and_have_the_methods(name: str) -> None:
    record = json.loads(acceleration.FILE.with_name(f"{name}.json").read_text())
    assert {"device", "cpu", "cores", "python", "jax", "commit"} <= record["machine"].keys()
    assert tuple(record["pairs"]) == acceleration.PAIRS
    missing = acceleration.METHODS.keys() - record["methods"].keys()
    assert missing <= ({"multistep 6"} if name == "three_epochs" else set())
