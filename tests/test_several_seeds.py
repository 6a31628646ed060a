"""Seeds that are trained at once, as one program, are what each is alone."""

from pathlib import Path

import numpy as np
import pytest

from tests.programs import Programs, metrics, results

# Biases before a batch norm have gradients of pure rounding, which Adam makes steps of; this network has none.
NO_BIAS = "--config.model.mixing=False"


@pytest.mark.slow
def test_each_as_alone(programs: Programs, tmp_path: Path) -> None:
    together = tmp_path / "together"
    programs.run(f"--workdir={together}", NO_BIAS, "--config.num_seeds=2")
    alone = [tmp_path / str(seed) for seed in (6, 7)]
    for folder in alone:
        programs.run(f"--workdir={folder}", NO_BIAS, f"--config.seed={folder.name}")
    lines, single_lines = metrics(together), [metrics(folder) for folder in alone]
    for epoch, line in enumerate(lines):
        for name, value in single_lines[0][epoch].items():
            if name in ("epoch", "step"):
                assert line[name] == value
                continue
            values = [run[epoch][name] for run in single_lines]
            assert line[f"{name}_by_seed"] == pytest.approx(values, rel=1e-4), name
            assert line[name] == pytest.approx(np.mean(line[f"{name}_by_seed"]))
    # Weights, order of the data and augmentation are those of the seed.
    assert abs(lines[0]["train_loss_by_seed"][0] - lines[0]["train_loss_by_seed"][1]) > 1e-3
    found, singles = results(together), [results(folder) for folder in alone]
    assert found["seed"] == [6, 7]
    for name in ("test_accuracy", "test_accuracy_last", "test_loss", "validation_accuracy"):
        assert found[name] == pytest.approx([single[name] for single in singles], rel=1e-4), name
    assert found["test_accuracy_mean"] == pytest.approx(np.mean(found["test_accuracy"]))
    assert found["test_accuracy_deviation"] == pytest.approx(np.std(found["test_accuracy"], ddof=1))
    assert found["parameters"] == singles[0]["parameters"]
    again = programs.evaluate(together, NO_BIAS, "--config.num_seeds=2")
    assert again["test_accuracy"] == found["test_accuracy"]
