"""Settings that no experiment can work with are refused before the first cell, not after the cells before it."""

import runpy

import pytest
from ml_collections import ConfigDict

from deepnmf_jax.experiments import run
from deepnmf_jax.experiments.tables import ROOT

TRAINING = ("accuracy", "cost", "gradients", "local_learning", "robustness", "variants")
WRONG = [
    *((name, {"dataset": "cifar11"}, "unknown data set 'cifar11'") for name in (*TRAINING, "spikes")),
    *((name, {"validation_images": 0}, "validation_images = 0") for name in TRAINING[3:]),
    ("accuracy", {"networks": ()}, "networks is empty"),
    ("accuracy", {"seeds": (2**32,)}, "seeds = 4294967296"),
    ("accuracy", {"committed": 2}, "committed = 2"),
    ("cost", {"parts": ()}, "parts is empty"),
    ("cost", {"gradients": ()}, "gradients is empty"),
    ("cost", {"seeds": (-1,)}, "seeds = -1"),
    ("gradients", {"states": (), "trainings": ()}, "are empty"),
    ("gradients", {"iterations": ()}, "iterations is empty"),
    ("gradients", {"shown": 7}, "shown = 7"),
    ("gradients", {"seed": 2**40}, "seed = 1099511627776"),
    ("local_learning", {"network": "fast/cnmff"}, "no configs/fast/cnmff.py"),
    ("local_learning", {"network": "fast/cnn"}, "layer = 'conv'"),
    ("robustness", {"levels": {}}, "levels is empty"),
    ("robustness", {"levels": {"holes": ()}}, "holes is empty"),
    ("robustness", {"statistics": ()}, "statistics is empty"),
    ("robustness", {"seed": 1.5}, "seed = 1.5"),
    ("spikes", {"steps": (1.0,)}, "no pair"),
    ("spikes", {"seed": -1}, "seed = -1"),
    ("spikes", {"networks": ()}, "networks is empty"),
    ("variants", {"widths": ()}, "widths is empty"),
    ("variants", {"widths": (0.0,)}, "widths = 0"),
    ("variants", {"mixing_groups": (1, 7)}, "mixing_groups = 7 divides the channels of no block"),
    ("variants", {"groups": (0,)}, "groups = 0"),
    ("variants", {"epochs": 0}, "epochs = 0"),
    ("robustness", {"networks": ("cnnf",)}, "networks = 'cnnf'"),
    ("robustness", {"networks": (), "pretrained": ()}, "are empty"),
    ("robustness", {"train_noise": ("fog",)}, "train_noise = 'fog'"),
    ("robustness", {"statistics": ("none",)}, "statistics = 'none'"),
    ("robustness", {"num_seeds": 0}, "num_seeds = 0"),
    ("robustness", {"levels": {"holes": (0.5, 0.2)}}, "levels of holes = 0.2"),
    ("robustness", {"levels": {"holes": (1.5,)}}, "levels of holes = 1.5"),
    ("local_learning", {"rules": ("hebb",)}, "rules = 'hebb'"),
    ("local_learning", {"rules": ()}, "rules is empty"),
    ("local_learning", {"best": -1}, "best = -1"),
    ("cost", {"networks": ("RNN",)}, "networks"),
    ("cost", {"parts": ("speed",)}, "parts"),
    ("cost", {"shown": 0}, "shown"),
    ("gradients", {"trainings": ("exact",)}, "trainings"),
    ("gradients", {"phantom_steps": (0,)}, "phantom_steps"),
    ("gradients", {"states": ("old",)}, "states"),
]


def config_of(name, changes):
    config = runpy.run_path(str(ROOT / "configs" / "experiments" / f"{name}.py"))["get_config"]()
    return ConfigDict(config.to_dict() | changes)


@pytest.mark.parametrize(("name", "settings", "message"), WRONG)
def test_wrong_settings_are_refused_before_anything_is_written(name, settings, message, tmp_path):
    config = config_of(name, settings)
    with pytest.raises(ValueError, match=message):
        run(config, "train", str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", TRAINING)
def test_a_file_of_images_that_is_not_there_is_missed_at_once(name, tmp_path):
    config = config_of(name, {"dataset": str(tmp_path / "mine.npz")})
    with pytest.raises(FileNotFoundError, match=r"mine\.npz"):
        run(config, "train", str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
