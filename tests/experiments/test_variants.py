"""Figure 6 as an experiment: the front, the correlation at equal parameters, and going on after a stop."""

import json
import zlib

import numpy as np
import pytest

from configs.experiments import variants as config_file
from deepnmf_jax.experiments import claims, variants
from deepnmf_jax.experiments import run as run_experiment
from deepnmf_jax.experiments.variants import Variant, correlation, front
from tests.experiments.small import DIGITS


@pytest.fixture
def config():
    config = config_file.get_config()
    config.update(
        {
            **DIGITS,
            "widths": (0.25,),
            "groups": (1, 2),
            "mixing_groups": (1, 2),
            "front_seeds": (1,),
        }
    )
    return config


def made_up(number=60, slope=0.0, noise=0.0):
    """Variants whose accuracy is a parabola in log parameters, and `slope` more a doubling of the ratio."""
    rng = np.random.default_rng(0)
    parameters, ratio = (2.0 ** rng.uniform(10, 18, number)).astype(int), 2.0 ** rng.uniform(-4, 2, number)
    test = 0.3 + 0.02 * np.log2(parameters) - 0.001 * np.log2(parameters) ** 2 + slope / 100 * np.log2(ratio)
    test += noise * rng.normal(size=number)
    return [Variant(1.0, 1, 1, int(p), r, t, t) for p, r, t in zip(parameters, ratio, test, strict=True)]


def test_correlation_is_that_at_equal_parameters():
    exact = correlation(made_up(slope=0.7))
    assert exact.partial == pytest.approx(1) and exact.points == pytest.approx(0.7)
    assert correlation(made_up(slope=-0.7)).partial == pytest.approx(-1)
    found = correlation(made_up(slope=0.7, noise=0.02))
    assert abs(found.points - 0.7) < 3 * found.points_error and 0.05 < found.points_error < 0.5
    # Of accuracies that the ratio says nothing of, about as far from 0 as its error tells.
    assert abs(correlation(made_up(noise=0.02)).partial) < 3 / np.sqrt(60)
    assert correlation(made_up(number=7)) is None


def test_no_variant_on_the_front_is_beaten_and_every_other_is():
    rng = np.random.default_rng(1)
    some = [Variant(1.0, 1, i, int(p), 1.0, v, 0.0) for i, (p, v) in enumerate(rng.integers(1, 30, (200, 2)))]
    best = front(some)
    for variant in some:
        beaten = any(
            other.parameters <= variant.parameters and other.validation >= variant.validation and other != variant
            for other in best
        )
        assert beaten != (variant in best)


def test_the_claim_is_not_run_before_half_of_the_100_are_there():
    def record(number):
        cells = {
            f"width 1/groups {i}/mixing groups 1/seed 0": {
                "test_accuracy": 0.5,
                "validation_accuracy": 0.5 + 0.001 * i,
                "parameters": 100 + i,
                "nmf_parameters": 90,
                "mixing_parameters": 10 + i,
            }
            for i in range(number)
        }
        return {"config": {"train_images": 7000, "epochs": 3}, "cells": cells}

    verdicts = {number: variants.claim(record(number))[1] for number in (0, 2, 50, 100)}
    assert verdicts == {0: claims.NOT_RUN, 2: claims.NOT_RUN, 50: claims.IN_PART, 100: claims.HOLDS}
    assert "from 50.0 % with 100 parameters to 50.0 % with 101" in variants.claim(record(2))[0]


@pytest.mark.slow
def test_goes_on_after_a_stop_to_the_same_results(config, tmp_path, monkeypatch):
    trained = []

    def train(settings, folder):
        trained.append(folder.name)
        if len(trained) == 3:
            raise KeyboardInterrupt
        share = zlib.crc32(settings.model.to_json().encode()) / 2**32
        return {"test_accuracy": share, "validation_accuracy": share, "parameters": int(1e4 * (1 + share))}

    monkeypatch.setattr(variants, "train", train)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(config, "train", str(tmp_path / "stopped"))
    run_experiment(config, "train", str(tmp_path / "stopped"))
    assert len(trained) == len(set(trained)) + 1  # the one that was stopped is trained again
    run_experiment(config, "train", str(tmp_path / "whole"))
    stopped, whole = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("stopped", "whole"))
    assert stopped["cells"] == whole["cells"]
    assert (tmp_path / "stopped" / "variants.md").read_text() == (tmp_path / "whole" / "variants.md").read_text()
    # Beside the grid of four, a second seed of each variant on the front.
    on_front = {variant.name for variant in front(variants.variants_of(whole))}
    seconds = {name.removesuffix("/seed 1") for name in whole["cells"] if name.endswith("/seed 1")}
    assert len(whole["cells"]) == 4 + len(on_front) and seconds == on_front


@pytest.mark.slow
def test_its_smallest_budget_trains_real_networks(config, tmp_path):
    config.widths, config.groups, config.front_seeds = (0.25,), (1,), ()
    config.mixing_groups = (2,)
    run_experiment(config, "train", str(tmp_path))
    (cell,) = json.loads((tmp_path / "results.json").read_text())["cells"].values()
    # 8, 16 and 24 units in two groups, and the ten of the last block in two as well.
    assert cell["mixing_parameters"] == sum(c * c // 2 + c for c in (8, 16, 24, 10))
    assert 0 <= cell["test_accuracy"] <= 1
    assert "| 0.25 | 1 |" in (tmp_path / "variants.md").read_text()
