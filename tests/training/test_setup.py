"""Settings that no machine can do are refused before anything is written, with what is allowed."""

import functools
from pathlib import Path

import pytest

from configs import quickstart
from deepnmf_jax.training import setup
from deepnmf_jax.training.reports import evaluate
from tests.programs import BATCH_SIZE, NUM_VALIDATION, write_images

ABSURD = {
    "num_epochs=10**18": r"num_epochs = 1000000000000000000, but at most 268,435,455 is allowed: steps",
    "eval_batch_size=10**9": r"eval_batch_size = 1000000000, but at most 10,000 is allowed",
    "split_seed=-1": r"split_seed = -1, but it must be a whole number of at least 0",
    "split_seed=2**64": r"split_seed = 18446744073709551616, but at most 18,446,744,073,709,551,615",
    "num_seeds=10**7": r"num_seeds = 10000000, but at most 10,000",
    "model.num_iters=10**10": r"model.num_iters = 10000000000, but at most 100,000",
    "model.cg_steps=10**9": r"model.cg_steps = 1000000000, but at most 100,000",
    "model.block_settings=({}, {}, {'num_iters': 10**9}, {})": r"num_iters = 1000000000, but at most 100,000",
    "model.width=1e9": r"model.features = 32 times model.width = 1000000000.0 are 3.2e\+10 units; at most 1,000,000",
    "model.features=(32, 64, 10**10)": r"model.features = 10000000000 times .*at most 1,000,000",
    "model.width=9e3": r"the network has [\d,]+ parameters .* GB, but there are .* smaller model.width",
    "augmentation.pad=10**9": r"augmentation.pad = 1000000000, but at most 11 is allowed: the images are 12 x 12",
    "augmentation.cutout=10**12": r"augmentation.cutout = 1000000000000, but at most 24",
    "optimizer.plateau.patience=10**18": r"plateau.patience = 1000000000000000000, but at most 2,147,483,647",
    "optimizer.learning_rate.nmf=1e300": r"optimizer.learning_rate.nmf = 1e\+300, .*float32",
    "loss.mse_weight=float('nan')": r"loss.mse_weight = nan",
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "images.npz")


def changed(images: Path, setting: str):
    config = quickstart.get_config()
    config.update({"dataset": str(images), "num_validation": NUM_VALIDATION, "batch_size": BATCH_SIZE})
    config.augmentation.crop = 10
    name, _, value = setting.partition("=")
    *parents, last = name.split(".")
    place = functools.reduce(getattr, parents, config)
    with config.unlocked(), config.ignore_type():
        place[last] = eval(value, {"float": float})
    return config


@pytest.mark.parametrize("setting", ABSURD)
def test_absurd_settings(images: Path, setting: str) -> None:
    with pytest.raises(ValueError, match=ABSURD[setting]):
        setup.prepare(changed(images, setting))


def test_the_largest_that_are_allowed(images: Path) -> None:
    for setting in ("num_epochs=268435455", "eval_batch_size=10000", "augmentation.pad=11", "model.num_iters=100000"):
        setup.prepare(changed(images, setting))


def test_a_misspelt_network_of_the_package_is_named_before_data_are_read() -> None:
    config = quickstart.get_config()
    config.dataset = "/nowhere/images.npz"
    with pytest.raises(ValueError, match="no pretrained network 'cnmf_1x2'; there are .*cnmf_1x1"):
        evaluate(config, "pretrained:cnmf_1x2")


def test_a_run_says_what_it_trains(images: Path) -> None:
    run = setup.prepare(changed(images, "num_seeds=2"))
    line = setup.summary_line(run)
    for part in ("4 blocks (NMF + 1x1)", "32, 64, 96, 3 units", "10 epochs of 8 steps of 8 images", "seeds 0 to 1"):
        assert part in line
    (total,) = [row for row in setup.describe(run.config).splitlines() if row.startswith("total")]
    assert f" {total.split()[1]} parameters" in line
