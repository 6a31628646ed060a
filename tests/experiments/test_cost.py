"""What back-propagation costs: bytes that are kept, and what the record of the experiment becomes."""

import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from configs.experiments import cost as config_file
from deepnmf_jax.core.gradients import GRADIENTS
from deepnmf_jax.core.inference import infer
from deepnmf_jax.experiments import cost, cost_pages
from deepnmf_jax.experiments.cost import kept_bytes
from deepnmf_jax.experiments.cost_pages import Program


def kept(program, num_iters, config):
    loss, params = cost._problem(program, num_iters, config)
    return kept_bytes(loss, params, jax.ShapeDtypeStruct(cost._shape(config), jnp.float32))


@pytest.mark.slow
@pytest.mark.parametrize("mixing", ["", "+1x1"])
def test_one_step_keeps_what_a_convolution_keeps_and_autodiff_much_more(mixing):
    config = config_file.get_config()
    one, full, twin = (
        kept(Program(network + mixing, gradient), 20, config)
        for network, gradient in (("CNMF", "approximate"), ("CNMF", "unrolled"), ("CNN", ""))
    )
    assert full > 15 * one and one < 1.15 * twin


def test_bytes_kept_are_those_of_the_arrays():
    x = jnp.ones((3, 5), "float32")
    assert kept_bytes(lambda w, x: jnp.sin(x @ w).sum(), jnp.ones((5, 2), "float32"), x) == 4 * (3 * 5 + 3 * 2)
    assert kept_bytes(lambda w: w.sum(), x) == 0


@pytest.mark.parametrize("gradient", [name for name in GRADIENTS if name != "unrolled"])
def test_a_layer_keeps_x_w_and_h_and_nothing_for_an_input_without_gradient(gradient):
    x, w = jnp.full((7, 6), 1 / 6, "float32"), jnp.full((3, 6), 1 / 6, "float32")
    own = 4 * (x.size + w.size + 7 * 3)
    assert kept_bytes(lambda w, x: infer(x, w, gradient=gradient), w, x) == own
    assert kept_bytes(lambda xw: infer(*xw, gradient=gradient), (x, w)) == own


@pytest.fixture
def record():
    settings = ConfigDict(config_file.get_config().to_dict())
    settings.iterations = (5, 20)
    config = settings.to_dict()
    cells = {}
    for n in (5, 20):
        for program in cost_pages.programs(config):
            factor = n if program.gradient == "unrolled" else 1
            cells[f"memory/{program.label}/{n}"] = {"kept": 1_000_000 * factor, "temporary": 2_000_000}
            cells.setdefault(f"time/{n}", {})[program.label] = {
                part: [s * factor for s in (0.001, 0.002, 0.003, 0.004)] for part in ("forward", "backward")
            }
    cells |= {f"training/{p.label}/0": {"test_accuracy": 0.75} for p in cost_pages.programs(config)}
    return {"config": config, "cells": cells}


def test_the_table_and_the_factors_are_those_of_the_record(record):
    text = cost_pages.cost_table(record)
    assert "| CNMF, autodiff | 20.0 | 20.00 | 1.00 | 20.0 | 60 (40 to 80), 20 | 20.0 | 25.0 |" in text
    assert "| 5 | 5.00 | 1.00 | 1.00 | 5.0 | 1.0 | 1.0 |" in text
    assert cost_pages.one_step_against_autodiff(record) == {
        "kept": 20.0,
        "backward": 20.0,
        "least backward": 20.0,
        "over CNN": 1.0,
    }
    figure = cost_pages.draw_cost(record)
    assert len(figure.axes) == 5
    del record["cells"]["time/20"], record["cells"]["training/CNN/0"]
    assert "not run" in cost_pages.cost_table(record)
    assert cost_pages.one_step_against_autodiff(record)["backward"] is None
    cost_pages.draw_cost(record)
