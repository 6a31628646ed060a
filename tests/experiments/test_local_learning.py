"""Readings of local learning: what learns, what the read-out sees, and going on after a stop."""

import json
import zlib

import jax
import numpy as np
import pytest

from configs.experiments import local_learning as config_file
from configs.fast import cnmf
from deepnmf_jax import models
from deepnmf_jax.experiments import claims, local_learning
from deepnmf_jax.experiments import run as run_experiment
from deepnmf_jax.experiments.local_learning import BLOCKS, Reading, last_features, linear_classifier, readings
from tests.experiments.small import DIGITS


@pytest.fixture
def config():
    config = config_file.get_config()
    config.update(
        {
            **DIGITS,
            "rules": ("kl",),
            "best": 1,
            "best_seeds": (1,),
            "readout_steps": 20,
        }
    )
    return config


def test_each_reading_has_a_name_and_settings_of_its_own():
    def applied(reading):
        settings = cnmf.get_config()
        reading.apply(settings)
        return settings.model.local_learning, tuple(settings.optimizer.learning_rate.values())

    asked = readings(("kl", "mse"))
    assert len({r.name for r in asked}) == len({applied(r) for r in asked}) == len(asked) == 10
    rules, rates = applied(Reading(BLOCKS[2], "mse", True))
    assert rules == ("mse",) * 3 + ("none",) and min(rates) > 1e-4
    rules, rates = applied(Reading(BLOCKS[1], "kl", False))
    assert rules == ("kl",) * 4 and sum(rate < 1e-9 for rate in rates) == 1


def test_the_linear_readout_separates_what_a_line_separates():
    rng = np.random.default_rng(0)
    centres = 4 * rng.normal(size=(3, 5)).astype(np.float32)
    labels = rng.integers(0, 3, 200)
    features = centres[labels] + 0.1 * rng.normal(size=(200, 5)).astype(np.float32)
    predict = linear_classifier(features[:100], labels[:100], 3, steps=200)
    assert (predict(features[100:]) == labels[100:]).all()


def test_the_readout_sees_what_the_last_block_is_given():
    model = models.CNMF(features=(3, 4), kernels=(3, 0, 1), num_iters=1)
    images = jax.random.uniform(jax.random.key(0), (2, 8, 8, 1))
    variables = jax.jit(model.init)(jax.random.key(1), images)
    features = jax.jit(lambda x: last_features(model, variables, x))(images)
    assert features.shape == (2, 4)
    # The last block codes them, so that its weights see a change of them alone.
    np.testing.assert_allclose(features.sum(1), 1, rtol=1e-5)


@pytest.mark.slow
def test_goes_on_after_a_stop_to_the_same_results(config, tmp_path, monkeypatch):
    trained = []

    def train(settings, folder):
        trained.append(folder.name)
        if len(trained) == 2:
            raise KeyboardInterrupt
        share = zlib.crc32(settings.to_json().encode()) / 2**32
        return {"test_accuracy": share, "validation_accuracy": share}

    readout = {"readout_validation_accuracy": 0.1, "readout_test_accuracy": 0.2}
    monkeypatch.setattr(local_learning, "train", train)
    monkeypatch.setattr(local_learning, "trained", lambda folder: (None, None))
    monkeypatch.setattr(local_learning, "_readout", lambda run, variables, steps: readout)
    monkeypatch.setattr(local_learning, "recipe", fixed_images(local_learning.recipe))
    with pytest.raises(KeyboardInterrupt):
        run_experiment(config, "train", str(tmp_path / "stopped"))
    run_experiment(config, "train", str(tmp_path / "stopped"))
    assert len(trained) == len(set(trained)) + 1
    run_experiment(config, "train", str(tmp_path / "whole"))
    stopped, whole = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("stopped", "whole"))
    assert stopped["cells"] == whole["cells"]
    # Back-propagation, the initial weights and four readings, of which the best has another seed.
    assert len(whole["cells"]) == 7
    assert sum(name.endswith("/seed 1") and "local" in name for name in whole["cells"]) == 1


def fixed_images(recipe):
    """Without the folder of the experiment in the settings."""

    def changed(*arguments):
        settings = recipe(*arguments)
        settings.dataset = "mnist5k"
        return settings

    return changed


@pytest.mark.slow
def test_its_smallest_budget_trains_and_reads_out(config, tmp_path, monkeypatch):
    local = Reading("all", "kl", False)
    monkeypatch.setattr(local_learning, "readings", lambda rules: [local])
    config.best_seeds = ()
    run_experiment(config, "train", str(tmp_path))
    (cell,) = json.loads((tmp_path / "results.json").read_text())["cells"].values()
    assert all(0 <= value <= 1 for value in cell.values()) and "readout_test_accuracy" in cell
    assert local.name in (tmp_path / "local_learning.md").read_text()


def test_the_claim_is_judged_by_the_nearest_reading():
    def record(*accuracies):
        names = (f"{readings(('kl',))[i].name}/seed 0" for i in range(2, 6))
        cells = [{"test_accuracy": a, "readout_test_accuracy": 0.99} for a in accuracies]
        return {"config": {"train_images": 1000}, "cells": dict(zip(names, cells, strict=False))}

    ours, verdict = local_learning.claim(record(0.6, 0.33))
    assert ours.startswith("33.0 %: all blocks local, kl, labels") and verdict == claims.IN_PART
    assert local_learning.claim(record(0.6, 0.1))[1] == claims.NOT
    assert local_learning.claim(record())[1] == claims.NOT_RUN
