"""The settings that matter on a GPU, as far as they show without one: what a program asks for, and what is refused."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from configs import base, quickstart
from deepnmf_jax.data.augmentation import Augmentation
from deepnmf_jax.models import Network
from deepnmf_jax.training import devices, loop, reports
from deepnmf_jax.training.optimizers import create_optimizer, create_plateau
from deepnmf_jax.training.setup import prepare
from deepnmf_jax.training.state import create_state
from deepnmf_jax.training.steps import make_train_step, several_steps
from tests.programs import TWO_BLOCKS, write_images


def tiny_run(folder: Path, **changes: Any) -> Any:
    config = quickstart.get_config()
    config.update_from_flattened_dict({"dataset": str(write_images(folder / "images.npz")), **TWO_BLOCKS, **changes})
    return config


@pytest.mark.parametrize(("precision", "asked"), [("float32", {"HIGHEST"}), ("tensorfloat32", {"HIGH", "HIGHEST"})])
def test_products_ask_a_gpu_for_the_precision_of_the_config(precision, asked):
    model, settings = Network(layer="conv", features=(8,), kernels=(5, 0)), base.get_config().optimizer
    optimizer, plateau = create_optimizer(settings, 10), create_plateau(settings)
    step = several_steps(make_train_step(model, optimizer, Augmentation(crop=28)))
    state = jax.eval_shape(lambda seed: create_state(seed, model, (28, 28, 3), optimizer, plateau), jnp.uint32(0))
    shapes = [((9, 32, 32, 3), jnp.uint8), ((9,), jnp.int32), ((4, 5), jnp.int32)]
    with jax.default_matmul_precision(precision):
        traced = jax.jit(step).trace(state, *(jax.ShapeDtypeStruct(*shape) for shape in shapes))
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    products = re.findall(r"stablehlo\.(?:dot_general|convolution).*", text)
    found = [set(re.findall(r"\b(DEFAULT|HIGH|HIGHEST)\b", product)) or {"DEFAULT"} for product in products]
    assert len(products) > 10 and set().union(*found) <= asked and asked - {"HIGHEST"} <= set().union(*found)
    # Four steps, one loop: the host has nothing to say between them.
    assert text.count("stablehlo.while") == 1


@pytest.mark.parametrize("precision", devices.MATMUL_PRECISIONS)
def test_a_run_and_an_evaluation_compute_in_that_precision(precision, tmp_path, monkeypatch):
    seen = []

    def look(*_: Any) -> None:
        seen.append(jax.config.jax_default_matmul_precision)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "Training", look)
    monkeypatch.setattr(reports, "_of_a_run", look)
    config = tiny_run(tmp_path, matmul_precision=precision)
    for call in (lambda: loop.train_and_evaluate(config, tmp_path), lambda: reports.evaluate(config, str(tmp_path))):
        with pytest.raises(KeyboardInterrupt):
            call()
    assert seen == [precision, precision]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("matmul_precision", "tf32", "matmul_precision = 'tf32' is unknown; use one of 'float32', 'tensorfloat32'"),
        ("steps_per_call", 0, "steps_per_call = 0, but it must be a whole number of at least 1"),
        ("loss.mse_weight", -0.1, "loss.mse_weight = -0.1, but it must be a number of at least 0"),
        ("save_every_epochs", 0, "save_every_epochs = 0, but it must be a whole number of at least 1"),
    ],
)
def test_what_is_unknown_is_refused(name, value, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        prepare(tiny_run(tmp_path, **{name: value}))
