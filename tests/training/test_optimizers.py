"""Rates a group, the plateau rule as PyTorch counts it, the one-cycle schedule."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import base
from deepnmf_jax import models
from deepnmf_jax.training.optimizers import (
    create_optimizer,
    create_plateau,
    learning_rates,
    parameter_group,
    rates_exhausted,
    update_plateau,
)


def settings(**changes):
    config = base.get_config()
    config.optimizer.update(changes)
    return config.optimizer


def test_groups_of_all_parameters():
    shape = jax.ShapeDtypeStruct((1, 28, 28, 3), jnp.float32)
    for model, first in ((models.CNMF1x1(), "nmf"), (models.CNN1x1(pooling="conv"), "conv")):
        params = jax.eval_shape(model.init, jax.random.key(0), shape)["params"]
        groups = jax.tree_util.tree_map_with_path(lambda path, _: parameter_group(path), params)
        assert set(groups["block1"][first].values()) == {"nmf"}
        assert set(groups["block1"]["mix"].values()) == {"mixing"}
        assert set(groups["block2"]["bn_a"].values()) == set(groups["block2"]["bn_b"].values()) == {"batch_norm"}
    assert set(groups["block1"]["bn_pool"].values()) == {"batch_norm"} and set(groups["block1"]["pool"].values()) == {
        "nmf"
    }


def test_each_group_moves_at_its_own_rate():
    params = {"block1": {"nmf": {"u": jnp.ones(3)}, "mix": {"kernel": jnp.ones(3)}, "bn_a": {"scale": jnp.ones(3)}}}
    rates = {"nmf": 0.02, "mixing": 0.004, "batch_norm": 0.0005}
    optimizer = create_optimizer(settings(learning_rate=rates, schedule="constant"), 10)
    updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)
    # Adam's first step is its rate, whatever the size of the gradient.
    for part, rate in (("nmf", 0.02), ("mix", 0.004), ("bn_a", 0.0005)):
        np.testing.assert_allclose(jax.tree.leaves(updates["block1"][part])[0], -rate, rtol=1e-6)


def torch_rates(losses, rate, factor=0.1, patience=10, threshold=1e-4):
    """PyTorch's ReduceLROnPlateau, from its documentation: `patience` epochs without improvement are tolerated."""
    best, bad, rates = np.inf, 0, []
    for loss in losses:
        if loss < best * (1 - threshold):
            best, bad = loss, 0
        else:
            bad += 1
        if bad > patience:
            rate, bad = rate * factor, 0
        rates.append(rate)
    return rates


def test_plateau_counts_epochs_as_pytorch_does():
    rng = np.random.default_rng(0)
    losses = np.concatenate([np.linspace(2, 1, 15), 1 + 0.01 * rng.random(40), [0.5], 0.5 - 1e-5 * np.arange(30)])
    plateau = create_plateau(settings())
    state, rates = plateau.init({}), []
    update = jax.jit(lambda state, loss: update_plateau(plateau, state, loss))
    for loss in losses:
        state = update(state, jnp.float32(loss))
        rates.append(0.001 * float(state.scale))
    np.testing.assert_allclose(rates, torch_rates(losses, 0.001), rtol=1e-5)
    assert len(set(np.round(np.log10(rates), 3))) == 4


@pytest.mark.parametrize("rate, reductions", [(0.01, 7), (0.001, 6)])
def test_training_ends_when_the_largest_rate_reaches_its_limit(rate, reductions):
    rates = {"nmf": rate, "mixing": 0.001, "batch_norm": 0.001}
    scale = np.float32(1)
    for _ in range(reductions):
        assert not rates_exhausted(settings(learning_rate=rates), scale)
        scale = np.float32(scale * np.float32(0.1))
    assert rates_exhausted(settings(learning_rate=rates), scale)
    assert not rates_exhausted(settings(learning_rate=rates), np.asarray([scale, 1.0]))
    assert not rates_exhausted(settings(schedule="one_cycle"), scale)


def test_one_cycle_rises_and_falls():
    optimizer_settings = settings(
        schedule="one_cycle", learning_rate={"nmf": 0.02, "mixing": 0.004, "batch_norm": 1e-3}
    )
    curve = {
        step: float(learning_rates(optimizer_settings, 100, step, np.float32(1))["learning_rate_nmf"])
        for step in (0, 15, 29, 30, 31, 60, 99)
    }
    assert max(curve, key=curve.__getitem__) == 30 and np.isclose(curve[30], 0.02, rtol=1e-5)
    assert np.isclose(curve[0], 0.02 / 25, rtol=1e-4) and curve[99] < 1e-4
    params = {"nmf": {"u": jnp.ones(2)}}
    optimizer = create_optimizer(optimizer_settings, 100)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for step in range(40):
        updates, state = update({"nmf": {"u": jnp.ones(2)}}, state, params)
        if step in curve:
            np.testing.assert_allclose(-updates["nmf"]["u"], curve[step], rtol=1e-4)
        params = optax.apply_updates(params, updates)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"schedule": "cosine"}, "optimizer.schedule = 'cosine' is unknown"),
        ({"eps": 0.0}, "optimizer.eps = 0.0, .* above 0"),
        ({"b1": 1.0}, r"optimizer.b1 = 1.0, .* in \[0, 1\)"),
        ({"b2": -0.1}, r"optimizer.b2 = -0.1, .* in \[0, 1\)"),
        ({"learning_rate": {"nmf": -1.0, "mixing": 1.0, "batch_norm": 1.0}}, "learning_rate.nmf = -1.0, .* above 0"),
        ({"plateau": {"loss": "test"}}, "optimizer.plateau.loss = 'test' is unknown; use one of 'validation', 'train'"),
        ({"plateau": {"patience": -1}}, "optimizer.plateau.patience = -1, .* at least 0"),
        ({"plateau": {"factor": 1.0}}, r"optimizer.plateau.factor = 1.0, .* in \(0, 1\)"),
        ({"plateau": {"threshold": 0.0}}, r"optimizer.plateau.threshold = 0.0, .* in \(0, 1\)"),
        ({"plateau": {"smallest_rate": 0.0}}, "optimizer.plateau.smallest_rate = 0.0, .* above 0"),
        ({"one_cycle": {"warmup_share": 1.0}}, r"optimizer.one_cycle.warmup_share = 1.0, .* in \(0, 1\)"),
        ({"one_cycle": {"start_divisor": 0.0}}, "optimizer.one_cycle.start_divisor = 0.0, .* above 0"),
        ({"one_cycle": {"end_divisor": 0.0}}, "optimizer.one_cycle.end_divisor = 0.0, .* above 0"),
    ],
)
def test_wrong_settings(changes, message):
    wrong = settings(**{"schedule": "one_cycle", **changes})
    with pytest.raises(ValueError, match=message):
        create_plateau(wrong)
        create_optimizer(wrong, 10)


def test_rates_are_those_of_the_groups():
    with pytest.raises(ValueError, match="learning_rate has groups"):
        create_optimizer({**settings().to_dict(), "learning_rate": {"u": 1.0}}, 10)
