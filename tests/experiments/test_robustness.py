"""Noise as an experiment: what is asked of which network, who is ahead, and going on after a stop."""

import json

import jax
import numpy as np
import pytest

from configs.experiments import robustness as config_file
from deepnmf_jax import models
from deepnmf_jax.data.datasets import load_dataset
from deepnmf_jax.experiments import claims, robustness, robustness_pages
from deepnmf_jax.experiments import run as run_experiment
from deepnmf_jax.experiments.robustness_pages import Curves
from tests.experiments.small import DIGITS


@pytest.fixture
def config():
    config = config_file.get_config()
    config.update(
        {
            **DIGITS,
            "pretrained": (),
            "networks": ("cnn_1x1", "cnmf_1x1"),
            "num_seeds": 2,
            "train_noise": ("uniform",),
            "batch_size": 10,
        }
    )
    with config.unlocked():
        config.levels = {"holes": (0.5,), "picture": (0.2, 0.5), "fgsm": (0.01,)}
    return config


def small_network(folder):
    """A network of the form that the experiment trains, with other variables for each of two seeds."""
    layer = "nmf" if "cnmf" in str(folder) else "conv"
    model = models.Network(features=(3,), kernels=(5, 0), layer=layer, num_iters=2)
    images = jax.numpy.zeros((1, 24, 24, 1))
    init = jax.jit(model.init)
    return model, [init(jax.random.key(seed), images) for seed in range(2)]


@pytest.mark.slow
def test_goes_on_after_a_stop_to_the_same_results(config, tmp_path, monkeypatch):
    trained = []

    def train(settings, folder):
        trained.append(folder.name)
        if len(trained) == 2:
            raise KeyboardInterrupt
        assert settings.num_seeds == 2 and "uniform" in settings.dataset
        return {"test_accuracy": [0.5, 0.4], "validation_accuracy": [0.5, 0.5], "parameters": 7, "best_epoch": [1, 1]}

    monkeypatch.setattr(robustness, "train", train)
    monkeypatch.setattr(robustness, "_from_training", small_network)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(config, "train", str(tmp_path / "stopped"))
    done = json.loads((tmp_path / "stopped" / "results.json").read_text())["cells"]
    assert [name.split("/")[-1] for name in done] == ["training", "clean", "fgsm", "holes", "picture"]
    run_experiment(config, "train", str(tmp_path / "stopped"))
    run_experiment(config, "train", str(tmp_path / "whole"))
    stopped, whole = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("stopped", "whole"))
    assert stopped["cells"] == whole["cells"] and len(whole["cells"]) == 10
    assert np.shape(whole["cells"]["trained, uniform/cnmf_1x1/running/picture"]) == (2, 2)
    text = (tmp_path / "stopped" / "robustness.md").read_text()
    assert text == (tmp_path / "whole" / "robustness.md").read_text()
    assert "| CNMF+1x1 | here, uniform noise | 2 |" in text and "CNMF+1x1 against CNN+1x1" in text


def test_training_images_have_noise_of_all_levels_and_the_test_images_none(config, tmp_path):
    path = robustness._noisy_images(config, tmp_path, "uniform")
    noisy, clean = load_dataset(path), load_dataset(str(tmp_path / "mnist5k-64-20.npz"))
    np.testing.assert_array_equal(noisy.test_images, clean.test_images)
    np.testing.assert_array_equal(noisy.train_labels, clean.train_labels)
    # Digits are black at the border: what is there is noise, more of it with each level.
    border = noisy.train_images[:, :2].mean((1, 2, 3)) / noisy.train_images.mean((1, 2, 3))
    by_level = [border[i :: robustness.TRAIN_LEVELS].mean() for i in range(robustness.TRAIN_LEVELS)]
    assert by_level[0] == 0 and (np.diff(by_level) > 0).all()


@pytest.mark.slow
def test_an_attack_raises_the_loss_where_noise_of_its_size_does_not():
    model, variables = small_network("cnmf")
    classify, attack = robustness._compiled(model)
    images = jax.random.uniform(jax.random.key(3), (40, 24, 24, 1), minval=0.2, maxval=0.8)
    labels = np.asarray(classify(variables[0], images))  # as if it were always right
    attacked = attack(variables[0], images, labels, 0.05)
    assert np.abs(attacked - images).max() == pytest.approx(0.05, rel=1e-4)
    signs = np.where(np.random.default_rng(0).random(images.shape) < 0.5, -1, 1).astype("float32")
    right = [(np.asarray(classify(variables[0], some)) == labels).mean() for some in (attacked, images + 0.05 * signs)]
    assert right[0] < right[1]


def test_who_is_ahead():
    def curves(network, clean, noisy):
        kinds = {"holes": (np.array([0.0, 0.5]), np.array([clean, noisy]))}
        return Curves("trained, none", network, "running", np.array(clean), kinds)

    nmf, conv = curves("cnmf", [0.8, 0.7], [0.6, 0.5]), curves("cnn", [0.5, 0.4], [0.3, 0.2])
    np.testing.assert_allclose(nmf.area("holes"), [0.7, 0.6])
    assert robustness_pages._pairs([nmf, conv]) == [(nmf, conv)]
    assert robustness_pages._verdict(nmf, conv, "holes", Curves.area) == "+30.0"
    near = curves("cnn", [0.7, 0.6], [0.6, 0.5])
    assert robustness_pages._verdict(nmf, near, "holes", Curves.area) == "not told apart"


def test_the_claim_is_judged_by_seeds_that_do_not_overlap(monkeypatch):
    def record(*noisy):
        networks = {"cnn_1x1": ([0.5, 0.6], [0.3, 0.4]), "cnmf_1x1": ([0.9, 0.8], list(noisy))}
        cells = {
            f"trained, none/{network}/running/{kind}": [accuracies]
            for network, both in networks.items()
            for kind, accuracies in zip(("clean", "holes"), both, strict=True)
        }
        return {"config": {"levels": {"holes": [0.5]}, "statistics": ["running"]}, "cells": cells}

    monkeypatch.setattr(robustness_pages, "stored", lambda name: None)
    ours, verdict = robustness.claim(record(0.9, 0.8))
    assert ours == "CIFAR-10, 2 seeds, accuracy that CNMF+1x1 keeps against CNN+1x1: more in all kinds of noise"
    assert verdict == claims.HOLDS
    # As much of its accuracy as its twin, of which it has more; and less of it.
    ours, verdict = robustness.claim(record(0.56, 0.52))
    assert ours.endswith("not told apart in all kinds of noise") and verdict == claims.EVEN
    ours, verdict = robustness.claim(record(0.1, 0.2))
    assert ours.endswith("less in all kinds of noise") and verdict == claims.NOT
    assert robustness.claim({"config": {"levels": {}}, "cells": {}})[1] == claims.NOT_RUN
