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
from deepnmf_jax.training.setup import create_model, describe

FOLDER = Path(__file__).parent.parent / "configs"
NAMES = sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.py"))
# Experiments have keys of their own: tests/experiments.
NAMES = [name for name in NAMES if not name.startswith(("clustering/", "experiments/"))]
# They are changed by the files beside them.
PARTS = {"fast/recipe"}


def module_of(name):
    return importlib.import_module(f"configs.{name.replace('/', '.')}")


def flat(name):
    return flatten(module_of(name).get_config().to_dict())


def parameters(config):
    return int(describe(config).splitlines()[-1].split()[1].replace(",", ""))


@pytest.mark.parametrize("name", NAMES)
def test_config(name):
    module = module_of(name)
    config = module.get_config()
    assert flat(name).keys() == flat("base").keys()
    assert name in PARTS or f"--config=configs/{name}.py" in module.__doc__
    for promised in re.findall(r"([\d,]+) parameters", module.__doc__):
        assert f"{parameters(config):,}" == promised
    Augmentation(**config.augmentation)
    create_optimizer(config.optimizer, 10)
    if name.startswith("beyond/"):
        rows = {dict(row.settings).get("model.layer", "nmf") for row in ROWS if row.config == name}
        for layer in ("nmf", "conv"):  # both no larger than the paper's networks, and in the tables
            config.model.layer = layer
            assert layer in rows and parameters(config) <= 170_000


def test_a_variant_has_no_new_settings_and_leaves_the_base_as_it_is():
    config = base.variant({"seed": 1, "model.width": 2.0}, {"seed": 2})()
    assert (config.seed, config.model.width) == (2, 2.0)
    assert (base.get_config().seed, base.get_config().model.width) == (0, 1.0)
    for unknown in ("sed", "model.widht", "modle.width"):
        with pytest.raises(AttributeError, match="sed|widht|modle"):
            base.variant({unknown: 1})()


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
    configs = [flat(f"fast/{name}") for name in ("cnn", "cnmf", "cnn_1x1", "cnmf_1x1")]
    differing = {key for key in configs[0] if any(c[key] != configs[0][key] for c in configs)}
    assert differing == {"model.layer", "model.mixing"}


def test_the_released_recipe():
    config = module_of("reference").get_config()
    assert (config.model.batch_statistics, config.eval_batch_size, config.num_validation) == ("batch", 50, 0)
    assert (config.augmentation.per, config.optimizer.plateau.loss) == ("batch", "train")
    assert dict(config.optimizer.learning_rate) == {"nmf": 0.01, "mixing": 0.001, "batch_norm": 0.001}


def test_settings_of_single_blocks_survive_json():
    config = base.get_config()
    config.model.block_settings = ({"num_iters": 7, "acceleration": "multistep"}, {}, {}, {"num_iters": 20})
    again = ConfigDict(json.loads(json.dumps(config.to_dict())))
    assert create_model(again, 3) == create_model(config, 3) != create_model(base.get_config(), 3)


def test_quick_start_splits():
    config = module_of("quickstart").get_config()
    assert (config.dataset, config.num_validation, config.seed) == ("mnist5k", 500, 0)
