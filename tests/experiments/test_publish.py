"""Networks put into the package: they are the runs' best, and evaluate to the accuracy on record."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from deepnmf_jax import load_pretrained, pretrained_names
from deepnmf_jax.data.datasets import load_dataset
from deepnmf_jax.experiments import publish
from deepnmf_jax.models import pretrained
from deepnmf_jax.models.pretrained import read_network
from deepnmf_jax.training.reports import evaluate
from tests.data.test_datasets import real_data_dir
from tests.programs import SETTINGS, Programs


def results_of(workdir: Path) -> dict[str, Any]:
    return json.loads((workdir / "results.json").read_text())


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the package's networks, empty."""
    monkeypatch.setattr(pretrained, "_shelf", lambda: tmp_path / "shelf")
    return tmp_path / "shelf"


@pytest.mark.slow
def test_a_published_network_is_the_runs_best_and_evaluates_to_its_number(
    programs: Programs, tmp_path: Path, shelf: Path
) -> None:
    assert programs.run_from_scratch(f"--workdir={tmp_path / 'run'}").status == 0  # compiled as here
    found = read_network(publish.publish(tmp_path / "run", "net", "configs/x.py", shelf))
    results = results_of(tmp_path / "run")
    assert found.results["test_accuracy"] == results["test_accuracy"]
    assert found.results["config_file"] == "configs/x.py"
    assert len(found.class_names) == found.model.num_classes
    assert np.isclose(found.model.width, SETTINGS["model.width"])
    config = ConfigDict(results["config"])
    for checkpoint in (str(tmp_path / "run"), "pretrained:net"):
        again = evaluate(config, checkpoint)
        assert (again["test_accuracy"], again["test_loss"]) == (results["test_accuracy"], results["test_loss"])
    assert again["step"] == results["steps"]
    # Other codes of the same weights are allowed, of the run as of the published network; another network is not.
    config.model.num_iters += 1
    config.model.block_settings = ({}, {"num_iters": 2})
    losses = {evaluate(config, checkpoint)["test_loss"] for checkpoint in (str(tmp_path / "run"), "pretrained:net")}
    assert len(losses) == 1 and losses != {results["test_loss"]}
    config.model.logit_scale = 3.0
    for checkpoint, advice in (("pretrained:net", "configs/x.py"), (str(tmp_path / "run"), "flags of its training")):
        with pytest.raises(ValueError, match=rf"\(model.logit_scale = 3.0, then .*\).*{advice}"):
            evaluate(config, checkpoint)


@pytest.mark.slow
def test_one_of_several_seeds_is_published(programs: Programs, tmp_path: Path, shelf: Path) -> None:
    run = tmp_path / "run"
    programs.run(f"--workdir={run}", "--config.num_seeds=2", "--config.seed=3")
    with pytest.raises(ValueError, match=r"the seeds 3, 4 at once; say which"):
        publish.publish(run, "net", "configs/x.py", shelf)
    with pytest.raises(ValueError, match=r"did not train the seed 5, but 3, 4"):
        publish.publish(run, "net", "configs/x.py", shelf, seed=5)
    results = results_of(run)
    found = read_network(publish.publish(run, "net", "configs/x.py", shelf, seed=4))
    assert found.results["test_loss"] == results["test_loss"][1] != results["test_loss"][0]
    again = evaluate(ConfigDict(results["config"] | {"num_seeds": 1, "seed": 4}), "pretrained:net")
    np.testing.assert_allclose(again["test_loss"], results["test_loss"][1], rtol=1e-5)


# Accuracy and loss on the first 1,000 test images of the JPEG copy, by the evaluation that gives the cards' accuracy on
# all 10,000 (2026-12-01): a tenth of the time.
FIRST_THOUSAND = {
    "cnn": (0.756, 0.86133),
    "cnmf": (0.773, 0.84517),
    "cnn_1x1": (0.805, 0.70402),
    "cnmf_1x1": (0.822, 0.66542),
    "residual": (0.863, 0.49239),
}


@pytest.mark.slow
def test_the_networks_of_the_package_answer_as_they_did(tmp_path: Path) -> None:
    # One test, because the workers of pytest-xdist would decode all of CIFAR-10 once each.
    whole = load_dataset("cifar10", real_data_dir("cifar10"))
    records = {name: load_pretrained(name).results for name in FIRST_THOUSAND}
    assert set(records) == set(pretrained_names())
    if {whole.fingerprint} != {results["dataset"]["fingerprint"] for results in records.values()}:
        pytest.skip("another copy of CIFAR-10 than the JPEG copy that the networks were trained on")

    def tested(name: str, num_images: int) -> dict[str, Any]:
        few = {"x_train": whole.train_images[:1000], "y_train": whole.train_labels[:1000]}
        path = tmp_path / f"{num_images}.npz"
        np.savez(path, x_test=whole.test_images[:num_images], y_test=whole.test_labels[:num_images], **few)
        config = records[name]["config"] | {"dataset": str(path), "num_validation": 100, "num_seeds": 1}
        found = evaluate(ConfigDict(config), f"pretrained:{name}")
        assert found["num_images"] == num_images
        return found

    for name, (accuracy, loss) in FIRST_THOUSAND.items():
        found, recorded = tested(name, 1000), records[name]["test_accuracy"]
        # One image, because processors round differently.
        assert abs(found["test_accuracy"] - accuracy) < 0.0015, name
        assert found["test_loss"] == pytest.approx(loss, rel=1e-3), name
        # Three deviations of a share of 1,000 images.
        assert abs(found["test_accuracy"] - recorded) < 3 * (accuracy * (1 - accuracy) / 1000) ** 0.5, name
    # The card's own number, of the network that takes the least time; five images.
    assert abs(tested("cnn", 10_000)["test_accuracy"] - records["cnn"]["test_accuracy"]) <= 5e-4
