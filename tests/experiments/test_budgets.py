"""Trainings within a budget: which images, which settings."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from deepnmf_jax.data.datasets import load_dataset
from deepnmf_jax.experiments import budgets


@pytest.fixture
def config():
    return ConfigDict(
        {
            "dataset": "mnist5k",
            "data_dir": "",
            "train_images": 200,
            "validation_images": 40,
            "test_images": 50,
            "epochs": 1,
        }
    )


def test_the_chosen_images_are_real_ones_of_all_classes_and_always_the_same(config, tmp_path):
    path = budgets.images_of(config, tmp_path / "new")
    chosen, whole = load_dataset(path), load_dataset("mnist5k")
    assert (len(chosen.train_labels), len(chosen.test_labels)) == (240, 50)
    assert np.bincount(chosen.train_labels).min() > 20
    known = {image.tobytes() for image in whole.train_images}
    assert all(image.tobytes() in known for image in chosen.train_images)
    assert load_dataset(budgets.images_of(config, tmp_path)).fingerprint == chosen.fingerprint
    with config.unlocked():
        config.train_images = config.test_images = 0
    assert budgets.images_of(config, tmp_path) == "mnist5k"


def test_a_recipe_has_the_budget_and_the_changes(config, tmp_path):
    settings = budgets.recipe("fast/cnn", config, tmp_path, {"model.width": 0.5, "seed": 3})
    assert settings.dataset.startswith(str(tmp_path)) and settings.num_validation == 40
    assert (settings.num_epochs, settings.seed, settings.model.width, settings.model.layer) == (1, 3, 0.5, "conv")
    assert (settings.augmentation.crop, settings.augmentation.flip) == (24, False)
    with pytest.raises(ValueError, match="no setting 'model.widht'"):
        budgets.recipe("fast/cnn", config, tmp_path, {"model.widht": 2})
    config.epochs = 0
    with pytest.raises(ValueError, match="epochs"):
        budgets.check_budget(config)


def test_a_finished_training_is_read(config, tmp_path):
    (tmp_path / "results.json").write_text('{"test_accuracy": 0.5, "config": {}, "seed": 0}')
    assert budgets.train(None, tmp_path) == {"test_accuracy": 0.5, "seed": 0}
