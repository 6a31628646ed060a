"""Accelerated iterations that stand in for a trained network's plain ones."""

import numpy as np
import pytest

from configs import quickstart
from deepnmf_jax.training import tuning
from deepnmf_jax.training.setup import prepare
from tests.programs import write_images

ROWS = {"features": (8,), "kernels": (3, 0), "num_iters": 12}


@pytest.fixture
def config(tmp_path):
    found = quickstart.get_config()
    found.update_from_flattened_dict({"dataset": str(write_images(tmp_path / "images.npz")), "augmentation.crop": 0})
    found.update_from_flattened_dict({f"model.{name}": value for name, value in ROWS.items()})
    found.num_validation = 10
    return found


@pytest.fixture
def tune(config, monkeypatch):
    """Of a network that nobody trained; each acceleration counts as worth its while."""

    def of_a_run(run, checkpoint):
        state = run.initial_state()
        return (state.params, state.batch_stats), 0

    monkeypatch.setattr(tuning, "variables_of", of_a_run)
    monkeypatch.setattr(tuning._Search, "time_over", lambda *_: 0.5)
    return lambda tolerance: tuning.tune(config, "runs/none", tolerance)


@pytest.mark.slow
def test_of_no_change_asked_none_is_made(tune):
    found = tune(0.0)
    assert found["changed"] == 0 and found["accuracy"] == found["accuracy_before"]


@pytest.mark.slow
def test_the_fewest_pairs_that_change_little_enough(tune, config, monkeypatch):
    """Two pairs in each block if all answers may change; otherwise one pair fewer in the first block is too few."""
    assert [own["num_iters"] for own in tune(1.0)["block_settings"]] == [2, 2]
    share = {pairs: max(0.0, 0.5 - 0.1 * pairs) for pairs in range(2, 13)}

    def changed(search, settings):
        return share[settings[0]["num_iters"]]

    monkeypatch.setattr(tuning._Search, "changed", changed)
    first, second = tune(0.4)["block_settings"]
    assert first == {"num_iters": 3, "acceleration": "multistep", "exponent": 5.5}  # 0.2 for one block of two
    assert second == {"num_iters": 2, "acceleration": "multistep", "exponent": 11.0}


def test_all_images_are_looked_at_and_of_many_a_share_of_each_class(config, tune, monkeypatch):
    """Images in folders lie class after class, and the last batch need not be full."""
    config.eval_batch_size = 7
    assert tune(0.0)["images"] == 10
    config.num_validation = 0
    config.optimizer.plateau.loss = "train"
    monkeypatch.setattr(tuning, "MOST_IMAGES", 12)
    seen = []
    monkeypatch.setattr(tuning._Search, "accelerate", lambda search, *_: seen.append(search))
    assert tune(0.0)["images"] == 12
    labels = seen[0].run.dataset.train_labels
    np.testing.assert_allclose(np.bincount(labels[seen[0].subset]), np.bincount(labels) * 12 / len(labels), atol=1)


@pytest.mark.slow
def test_other_settings_of_a_block_stay_as_they_are(config, tune):
    config.model.block_settings = ({"products": "bfloat16"}, {})
    found = tune(1.0)["block_settings"]
    assert [own.get("products") for own in found] == ["bfloat16", None]
    assert [own["acceleration"] for own in found] == ["multistep"] * 2


@pytest.mark.slow
def test_what_is_no_faster_stays_plain(tune, monkeypatch):
    monkeypatch.setattr(tuning._Search, "time_over", lambda *_: 0.99)
    found = tune(1.0)
    assert found["block_settings"] == [{"num_iters": 12, "acceleration": "none"}] * 2
    assert found["changed"] == 0


@pytest.mark.slow
def test_the_flag_is_read_as_the_settings(tune, config):
    found = tune(1.0)
    text = found["flag"].removeprefix("--config.model.block_settings=")
    config.model.block_settings = eval(text)
    assert [dict(own) for own in prepare(config).model.block_settings] == found["block_settings"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer": "conv"}, "no NMF layers"),
        ({"num_spikes": 100}, "no NMF layers"),
        ({"acceleration": "adaptive"}, "only plain iterations .* are tuned"),
        ({"epsilon": 0.5}, "only plain iterations .* are tuned"),
    ],
)
def test_what_cannot_be_tuned(config, changes, message):
    config.update_from_flattened_dict({f"model.{name}": value for name, value in changes.items()})
    with pytest.raises(ValueError, match=message):
        tuning.tune(config, "runs/none")


def test_a_tolerance_that_is_no_share(config):
    with pytest.raises(ValueError, match="tolerance"):
        tuning.tune(config, "runs/none", 1.5)


def test_an_unknown_network_is_refused_before_the_data_are_read(config):
    config.dataset = "nowhere.npz"
    with pytest.raises(ValueError, match="no pretrained network 'bert'"):
        tuning.tune(config, "pretrained:bert")
