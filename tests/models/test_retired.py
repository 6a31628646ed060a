"""Configs of earlier versions: settings that are gone are dropped where they did nothing, and named where they did."""

import copy
import json

import pytest

from configs import base
from deepnmf_jax.models.network import Network
from deepnmf_jax.models.pretrained import load_pretrained, pretrained_names, read_network, write_network
from deepnmf_jax.models.retired import as_of_today, drop_retired
from deepnmf_jax.training.records import flatten

OLD = {
    "early": {"share": 0.0, "num_iters": 7},
    "optimizer": {"average": 0.0},
    "loss": {"label_smoothing": 0},
    "command_buffers": "default",
    "model": {"normalization": "maps"},
}


def merged(a, b):
    return {k: merged(a.get(k, {}), b.get(k, {})) if isinstance(a.get(k, b.get(k)), dict) else b.get(k, a.get(k))
            for k in {**a, **b}}  # fmt: skip


def test_an_old_config_at_neutral_values_is_todays():
    new = base.get_config().to_dict()
    old = merged(new, OLD)
    before = copy.deepcopy(old)
    assert drop_retired(old) == new != old
    assert old == before
    assert drop_retired(new) == new


@pytest.mark.parametrize(
    "change, message",
    [
        ({"early": {"share": 0.5, "num_iters": 5}}, "early.share = 0.5"),
        ({"optimizer": {"average": 0.99}}, "optimizer.average = 0.99"),
        ({"loss": {"label_smoothing": 0.1}}, "loss.label_smoothing = 0.1"),
        ({"command_buffers": "loops"}, "command_buffers = 'loops'"),
        ({"model": {"normalization": "hidden"}}, "model.normalization = 'hidden'"),
        ({"model": {"acceleration": "power"}}, "acceleration = 'power' is gone: use 'multistep'"),
        ({"model": {"block_settings": [{}, {"acceleration": "power"}]}}, "acceleration = 'power' is gone"),
    ],
)
def test_another_value_is_an_error_that_names_it(change, message):
    with pytest.raises(ValueError, match=message):
        drop_retired(merged(OLD, change))


def test_unknown_settings_and_empty_parts_are_left_to_others():
    config = {"early": {"other": 1}, "model": {"normalisation": "maps"}, "empty": {}}
    assert drop_retired(config) == config


def test_an_old_network_is_read_and_one_that_is_gone_is_refused(tmp_path):
    def written(name, **settings):
        write_network(tmp_path / name, {"features": [6, 5, 8], **settings}, 4, (12, 12, 3), {"params": {}})
        (tmp_path / name / "results.json").write_text(json.dumps({}))
        return tmp_path / name

    assert read_network(written("old", normalization="maps")).model == Network(4, features=(6, 5, 8))
    with pytest.raises(ValueError, match="model.normalization = 'hidden'"):
        read_network(written("gone", normalization="hidden"))


@pytest.mark.parametrize("name", pretrained_names())
def test_the_config_of_a_network_on_record_has_the_settings_of_today(name):
    today = base.get_config().to_dict()
    assert flatten(as_of_today(load_pretrained(name).results["config"])).keys() == flatten(today).keys()
