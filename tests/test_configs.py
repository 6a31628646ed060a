"""Every config has the keys of the base, describes the network it names, and is the recipe its docstring promises."""

import importlib
import json
import re
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import base
from deepnmf_jax.data.augmentation import Augmentation
from deepnmf_jax.experiments.accuracy_rows import ROWS
from deepnmf_jax.training.optimizers import create_optimizer
from deepnmf_jax.training.records import flatten
from deepnmf_jax.training.setup import create_model, describe, prepare
from tests.programs import SETTINGS, write_images

FOLDER = Path(__file__).parent.parent / "configs"
NAMES = sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.py"))
# Experiments have keys of their own: tests/experiments.
NAMES = [name for name in NAMES if not name.startswith("clustering/")]
# They are changed by the files beside them.
PARTS = {"fast/recipe"}


@pytest.mark.parametrize("name", NAMES)
def test_config(name):
    module = importlib.import_module(f"configs.{name.replace('/', '.')}")
    config = module.get_config()
    assert set(flat(config)) == set(flat(base.get_config()))
    assert name in PARTS or f"--config=configs/{name}.py" in module.__doc__
    parameters = describe(config).splitlines()[-1].split()[1]
    for promised in re.findall(r"([\d,]+) parameters", module.__doc__):
        assert parameters == promised
    Augmentation(**config.augmentation)
    create_optimizer(config.optimizer, 10)


@pytest.mark.parametrize("layer", ["nmf", "conv"])
@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("beyond/")])
def test_the_networks_beyond_the_papers_are_no_larger(name, layer):
    config = importlib.import_module(f"configs.{name.replace('/', '.')}").get_config()
    config.model.layer = layer
    assert int(describe(config).splitlines()[-1].split()[1].replace(",", "")) <= 170_000
    assert (name, layer) in {(row.config, dict(row.settings).get("model.layer", "nmf")) for row in ROWS}


def flat(config):
    return [f"{name}.{key}" if hasattr(part, "items") else name
            for name, part in config.items() for key in (part if hasattr(part, "items") else [""])]  # fmt: skip


def test_the_papers_recipe():
    config = base.get_config()
    assert (config.num_epochs, config.batch_size, config.model.num_iters, config.model.epsilon) == (500, 50, 20, 1.0)
    assert dict(config.optimizer.learning_rate) == {"nmf": 0.001, "mixing": 0.001, "batch_norm": 0.001}
    plateau = config.optimizer.plateau
    assert (config.optimizer.schedule, plateau.loss, plateau.factor, plateau.patience) == (
        "plateau",
        "validation",
        0.1,
        10,
    )
    assert (config.model.batch_statistics, config.model.gradient) == ("running", "approximate")
    assert dict(config.augmentation) == {
        "crop": 28, "flip": True, "alternate": False, "brightness": 0.5, "contrast": 0.1, "saturation": 0.1,
        "hue": 0.15, "per": "image", "pad": 0, "cutout": 0,
    }  # fmt: skip


def test_the_four_fast_networks_differ_in_their_layers_alone():
    configs = [
        flatten(importlib.import_module(f"configs.fast.{name}").get_config().to_dict())
        for name in ("cnn", "cnmf", "cnn_1x1", "cnmf_1x1")
    ]
    differing = {key for key in configs[0] if any(c[key] != configs[0][key] for c in configs)}
    assert differing == {"model.layer", "model.mixing"}


def test_the_released_recipe():
    config = importlib.import_module("configs.reference").get_config()
    assert (config.model.batch_statistics, config.eval_batch_size, config.num_validation) == ("batch", 50, 0)
    assert (config.augmentation.per, config.optimizer.plateau.loss) == ("batch", "train")
    assert dict(config.optimizer.learning_rate) == {"nmf": 0.01, "mixing": 0.001, "batch_norm": 0.001}


def test_early_iterations_are_those_of_all_blocks_and_settings_survive_json(tmp_path):
    config = base.get_config()
    config.update_from_flattened_dict({"dataset": str(write_images(tmp_path / "images.npz")), **SETTINGS})
    config.early.num_iters = 3
    config.model.block_settings = ({"num_iters": 7, "acceleration": "multistep"}, {}, {}, {"num_iters": 20})
    run = prepare(config)
    assert run.model.num_iters == SETTINGS["model.num_iters"] and run.early_model.num_iters == 3
    assert run.early_model.block_settings == ({"acceleration": "multistep"}, {}, {}, {})
    again = ConfigDict(json.loads(json.dumps(config.to_dict())))
    assert create_model(again, 3) == create_model(config, 3) != create_model(base.get_config(), 3)


def test_quick_start_splits():
    config = importlib.import_module("configs.quickstart").get_config()
    assert (config.dataset, config.num_validation, config.seed) == ("mnist5k", 500, 0)
