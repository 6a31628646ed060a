"""The experiment on spikes: it goes on where it was stopped, and its numbers are those of the network."""

import json

import numpy as np
import pytest

from configs.experiments import spikes as config_file
from deepnmf_jax import load_pretrained
from deepnmf_jax.experiments import run as run_experiment
from deepnmf_jax.experiments import spikes
from deepnmf_jax.models.summary import layer_rows


@pytest.fixture
def config(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (12, 32, 32, 3), np.uint8), np.arange(12) % 10
    path = tmp_path / "images.npz"
    np.savez(path, x_train=images, y_train=labels, x_test=images[:4], y_test=labels[:4])
    config = config_file.get_config()
    config.update(
        {
            "dataset": str(path),
            "networks": ("cnmf",),
            "images": 4,
            "batch_size": 2,
            "spikes": (2,),
            "steps": ((1.0, 0.5),),
            "total": 2.0,
            "iterations": (1,),
            "rows": 5,
            "noise_spikes": 3,
            "input_spikes": (10,),
        }
    )
    config.noise = {"holes": (0.5,), "fgsm": (0.01,)}
    return config


def test_goes_on_after_a_stop_without_measuring_anything_twice(config, tmp_path, monkeypatch):
    asked = []

    def accuracy(self, how, with_noise=None):
        asked.append((tuple(how.items()), with_noise))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return 0.5

    layers = {"kl": [0.1] * 4, "certificate": [0.2] * 4}
    monkeypatch.setattr(spikes._Subject, "accuracy", accuracy)
    monkeypatch.setattr(spikes._Subject, "_layers", lambda self, code: layers)
    workdir = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run_experiment(config, "train", str(workdir))
    assert len(json.loads((workdir / "results.json").read_text())["cells"]) == 4
    run_experiment(config, "train", str(workdir))
    assert len(asked) == len(set(asked)) + 1  # the one that was stopped is asked again
    assert {path.suffix for path in workdir.iterdir()} == {".json", ".md", ".png", ".pdf"}
    with config.unlocked():
        config.seed = 1
    with pytest.raises(ValueError, match="other settings"):
        run_experiment(config, "train", str(workdir))


@pytest.mark.slow
def test_the_numbers_of_a_whole_run(config, tmp_path):
    config.update({"input_spikes": (), "total": 0.0})
    run_experiment(config, "train", str(tmp_path / "run"))
    record = json.loads((tmp_path / "run" / "results.json").read_text())
    assert all(0 <= value <= 1 for name, value in record["cells"].items() if name.endswith("accuracy"))
    one = record["cells"]["cnmf/iterations/1/layers"]
    assert len(one["kl"]) == 4 and min(one["certificate"]) > 0
    assert "| fgsm | 0.01 |" in (tmp_path / "run" / "spikes.md").read_text()
    assert "| spikes, step 1 t^-0.5 | 2 |" in (tmp_path / "run" / "spikes.md").read_text()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("spikes", (0,)),
        ("networks", ("cnn",)),
        ("noise", {"fog": (0.1,)}),
        ("noise", {"holes": (2.0,)}),
        ("steps", ((0.0, 1.0),)),
    ],
)
def test_settings_are_checked_before_anything_is_written(config, tmp_path, name, value):
    config[name] = value
    with pytest.raises(ValueError, match=f"{name}|levels"):
        run_experiment(config, "train", str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_operations_are_counted_by_hand():
    found = load_pretrained("cnmf")
    counts = spikes.count_operations(found.model, found.image_shape)
    layers = ((576, 75, 32), (64, 800, 64), (1, 1024, 96), (1, 96, 10))
    assert counts["iteration"]["multiplications"] == sum(p * (2 * n * k + k) for p, n, k in layers)
    spike = counts["spike"]
    assert spike["weight reads"] == sum(p * k for p, n, k in layers)
    summary = layer_rows(found.model.clone(num_spikes=7), found.image_shape)
    ours = sum(row.operations for row in summary if row.layer.startswith("NMF"))
    assert 7 * (spike["multiplications"] + spike["additions"]) == ours
