"""Each experiment of the paper's figures with its smallest budget, on the digits that come along: stopped in the middle
of it, it goes on and ends with what an unstopped one gives."""

import json
import logging

import pytest

from configs.experiments import accuracy as accuracy_config
from configs.experiments import cost as cost_config
from configs.experiments import gradients as gradients_config
from deepnmf_jax.experiments import cells
from deepnmf_jax.experiments import run as run_experiment
from tests.experiments.small import DIGITS

SMALLEST = {
    "accuracy": (accuracy_config, {"networks": ("cnn", "cnmf"), "seeds": (0,), "committed": False}),
    "cost": (
        cost_config,
        {
            "networks": ("CNN", "CNMF"),
            "gradients": ("approximate",),
            "shown": 1,
            "iterations": (),
            "side": 10,
            "batch_size": 2,
            "rounds": 1,
        },
    ),
    "gradients": (
        gradients_config,
        {
            "states": ("untrained",),
            "iterations": (1, 2),
            "implicit_steps": (),
            "phantom_steps": (1,),
            "shown": 2,
            "batches": 1,
            "batch_size": 2,
            "trained_iterations": 2,
            "trainings": ("phantom 1",),
        },
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_a_stopped_command_goes_on(name, tmp_path, monkeypatch):
    module, settings = SMALLEST[name]
    config = module.get_config()
    config.update({**DIGITS, "validation_images": 20, **settings})
    write, written = cells.write_atomically, []

    def stopping(path, content):
        write(path, content)
        written.append(path.name)
        if len(written) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(cells, "write_atomically", stopping)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(config, "train", str(tmp_path))
    before = json.loads((tmp_path / "results.json").read_text())
    assert len(before["cells"]) == 1
    # What is done is not touched again, and comes out of the file as it went in.
    logging.getLogger("fontTools").setLevel(logging.ERROR)
    run_experiment(config, "train", str(tmp_path))
    after = json.loads((tmp_path / "results.json").read_text())
    assert {k: after["cells"][k] for k in before["cells"]} == before["cells"]
    assert len(after["cells"]) > 1 and written.count("results.json") == len(after["cells"])
    assert {path.suffix for path in tmp_path.iterdir() if path.stem == name} == {".md", ".png", ".pdf"}
    assert "not run" not in (tmp_path / f"{name}.md").read_text()
    if name == "accuracy":
        assert all(0 <= cell["test_accuracy"] <= 1 for cell in after["cells"].values())
