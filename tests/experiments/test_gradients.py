"""Gradients against the exact one: those of the experiment are those of `infer`, and what the record becomes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.experiments import gradients as config_file
from deepnmf_jax.core.inference import infer
from deepnmf_jax.experiments import gradients
from deepnmf_jax.layers import NMFDense
from tests.core.test_inference import problem

X, W = problem(rows=3, n=7, k=4)
G = jnp.asarray(np.random.default_rng(5).normal(size=(3, 4)))


def pulled(code):
    h, pull = jax.vjp(code, X, W)
    return h, *pull(G)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("approximate", {"gradient": "approximate"}),
        ("scaled", {"gradient": "scaled"}),
        ("implicit 2", {"gradient": "implicit", "cg_steps": 2}),
        ("unrolled", {"gradient": "unrolled"}),
    ],
)
def test_activities_and_gradients_are_those_of_infer(name, settings):
    @jax.jit
    def ours(n):
        return pulled(lambda x, w: gradients.coded(x, w, name, n, longest=6))

    for n in (3, 5):
        theirs = jax.jit(lambda n=n: pulled(lambda x, w: infer(x, w, num_iters=n, **settings)))()
        for one, other in zip(ours(n), theirs, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_the_phantom_gradient_of_all_iterations_is_the_exact_one_and_of_few_is_not():
    exact = pulled(lambda x, w: gradients.coded(x, w, "unrolled", 4, longest=4))
    for steps, same in ((4, True), (2, False)):
        found = pulled(lambda x, w, steps=steps: gradients.coded(x, w, f"phantom {steps}", 4))
        np.testing.assert_allclose(found[0], exact[0], rtol=1e-12)
        assert np.allclose(found[2], exact[2], rtol=1e-9) == same


def test_a_layer_inside_takes_its_activities_from_the_function():
    layer = NMFDense(3)
    variables = jax.jit(layer.init)(jax.random.key(0), X)
    usual = layer.apply(variables, X)
    with gradients.coded_by(lambda x, w: 0 * x @ w.T):
        assert not layer.apply(variables, X).any()
    np.testing.assert_array_equal(layer.apply(variables, X), usual)
    assert usual.any()


def test_angle_and_length():
    angle, length = gradients.angle_and_length(jnp.array([[0.0, 2.0]]), jnp.array([[1.0, 1.0]]))
    assert angle == pytest.approx(45) and length == pytest.approx(2**0.5)
    assert np.isnan(gradients.angle_and_length(jnp.zeros(2), jnp.ones(2))).all()


def test_the_table_is_that_of_the_record():
    config = config_file.get_config().to_dict() | {"iterations": (5, 20), "trainings": ("approximate", "scaled")}
    own = {"angle": [10.0, 20.0, 30.0, 40.0], "angle_deviation": [1.0] * 4, "length": [0.5, 1.0, 2.0, 1e-5]}
    cells = {f"angles/trained/{n}": {name: own for name in gradients.names(config)} for n in (5, 20)}
    cells["training/approximate"] = {"test_accuracy": 0.9}
    text = gradients.gradients_table({"config": config, "cells": cells})
    assert "| approximate | 10 ± 1° (0.50) | 20 ± 1° (1.00) | 30 ± 1° (2.00) | 40 ± 1° (1e-05) |" in text
    assert "| phantom 5 | 25° | 25° |" in text
    assert "| approximate | 90.0 |\n| scaled | not run |" in text
    assert len(gradients.draw_gradients({"config": config, "cells": cells}).axes) == 8
