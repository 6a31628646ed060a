"""The training step carries every setting of the network, and the evaluation counts what it should."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from deepnmf_jax import models
from deepnmf_jax.data.augmentation import Augmentation
from deepnmf_jax.training.devices import data_mesh
from deepnmf_jax.training.evaluation import Evaluator
from deepnmf_jax.training.losses import cross_entropy_and_mse
from deepnmf_jax.training.optimizers import create_optimizer, create_plateau
from deepnmf_jax.training.state import create_state
from deepnmf_jax.training.steps import make_train_step, several_steps

rng = np.random.default_rng(0)
IMAGES = jnp.asarray(rng.integers(0, 256, (12, 12, 12, 2)), jnp.uint8)
LABELS = jnp.asarray(rng.integers(0, 4, 12), jnp.int32)
SETTINGS_OF_ADAM = base.get_config().optimizer
OPTIMIZER, PLATEAU = create_optimizer(SETTINGS_OF_ADAM, 10), create_plateau(SETTINGS_OF_ADAM)
# A pooled block, one of the whole map, and one that has a single place.
SMALL = {"num_classes": 4, "num_iters": 4, "features": (8, 8), "kernels": (5, 0, 1)}
CNN = models.Network(**{**SMALL, "layer": "conv", "batch_statistics": "batch"})


def create(seed, model=CNN, side=12):
    return create_state(seed, model, (side, side, 2), OPTIMIZER, PLATEAU)


def start(model, recipe=None, **augmentation):
    side = augmentation.get("crop", 0) or 12
    state = jax.jit(lambda seed: create(seed, model, side))(jnp.uint32(3))
    return state, jax.jit(make_train_step(model, OPTIMIZER, Augmentation(**augmentation), **(recipe or {})))


SETTINGS = {
    "NMF pooling": {"pooling": "nmf", "groups": 2, "width": 0.5, "local_learning": ("kl", "mse", "none")},
    "max pooling": {"pooling": "max", "gradient": "unrolled", "epsilon": 0.5},
    "conv pooling": {"pooling": "conv", "gradient": "implicit", "cg_steps": 2, "batch_statistics": "batch"},
    "CNN": {"layer": "conv", "mixing": False},
    "spikes": {"num_spikes": 8, "input_spikes": 50},
}


@pytest.mark.slow
@pytest.mark.parametrize("case", SETTINGS)
def test_a_step_moves_every_parameter_under_every_setting(case):
    model = models.Network(**{**SMALL, **SETTINGS[case]})
    state, step = start(model)
    after = step(step(state, IMAGES, LABELS, jnp.arange(12)), IMAGES, LABELS, jnp.arange(12))
    assert int(after.step) == 2
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), state.params, after.params)
    for path, distance in jax.tree_util.tree_leaves_with_path(moved):
        assert 0 < distance < 0.01, jax.tree_util.keystr(path)
    if model.batch_statistics == "running":
        changed = jax.tree.map(lambda a, b: bool((a != b).any()), state.batch_stats, after.batch_stats)
        assert all(jax.tree.leaves(changed))


AUGMENTED = {"crop": 10, "flip": True, "brightness": 0.5}


@pytest.fixture(scope="module")
def augmented():
    """A state and the step that follows, with all draws of the augmentation."""
    return start(CNN, **AUGMENTED)


def kernel(state):
    return np.asarray(state.params["block3"]["conv"]["kernel"])


def test_plateau_scale_multiplies_the_updates(augmented):
    state, step = augmented
    scaled = state._replace(plateau=state.plateau._replace(scale=jnp.asarray(0.25, state.plateau.scale.dtype)))
    whole, quarter = (step(s, IMAGES, LABELS, jnp.arange(6)).params for s in (state, scaled))
    for before, a, b in zip(*map(jax.tree.leaves, (state.params, whole, quarter)), strict=True):
        np.testing.assert_allclose(np.asarray(b - before), 0.25 * np.asarray(a - before), atol=3e-7)


def test_the_step_depends_on_seed_step_and_indices_alone(augmented):
    state, step = augmented
    same = [step(state, IMAGES, LABELS, jnp.arange(6)) for _ in range(2)]
    others = [
        step(state._replace(seed=jnp.uint32(4)), IMAGES, LABELS, jnp.arange(6)),
        step(state._replace(step=jnp.int32(7)), IMAGES, LABELS, jnp.arange(6)),
        step(state, IMAGES, LABELS, jnp.arange(6) + 1),
    ]
    assert (kernel(same[0]) == kernel(same[1])).all() and float(same[0].sums.loss) == float(same[1].sums.loss)
    assert all(float(other.sums.loss) != float(same[0].sums.loss) for other in others)


@pytest.mark.slow
def test_the_weight_of_the_squared_error_changes_the_gradient_and_not_the_record(augmented):
    state, step = augmented
    _, weighted = start(CNN, {"mse_weight": 0.1}, **AUGMENTED)
    a, b = (one(state, IMAGES, LABELS, jnp.arange(6)) for one in (step, weighted))
    np.testing.assert_allclose(a.sums.loss, b.sums.loss, rtol=1e-6)
    assert (kernel(a) != kernel(b)).any()


def test_alternating_flips_change_with_the_epoch_and_not_within_it():
    state, step = start(CNN, {"steps_per_epoch": 3}, flip=True, alternate=True)

    def loss(number):
        return float(step(state._replace(step=jnp.int32(number)), IMAGES, LABELS, jnp.arange(6)).sums.loss)

    assert loss(0) == loss(2) == loss(7) != loss(3)


@pytest.mark.slow
@pytest.mark.parametrize(("statistics", "sizes"), [("running", (3, 16)), ("batch", (3,))])
def test_evaluation_counts_each_image_once(statistics, sizes):
    """In batches that leave images over, or are larger than all of them."""
    model = CNN.clone(batch_statistics=statistics)
    state, _ = start(model, crop=10)
    subset = np.array([7, 1, 4, 9, 0, 2, 11], np.int32)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    parts = [subset[:3], subset[3:6], subset[6:]] if statistics == "batch" else [subset]
    images = [IMAGES[p, 1:11, 1:11].astype("float32") / 255 for p in parts]
    logits = jnp.concatenate([jax.jit(model.apply)(variables, x) for x in images])
    for batch_size in sizes:
        evaluator = Evaluator(model, crop=10, batch_size=batch_size, mesh=data_mesh(4))
        result = evaluator(state.params, state.batch_stats, IMAGES, LABELS, subset)
        np.testing.assert_array_equal(result.predictions, logits.argmax(-1))
        np.testing.assert_allclose(result.accuracy, np.mean(np.asarray(logits.argmax(-1) == LABELS[subset])))
        np.testing.assert_allclose(result.loss, cross_entropy_and_mse(logits, LABELS[subset]).mean(), rtol=1e-5)
        # All right answers, so that one too many would show.
        right = LABELS.at[subset].set(result.predictions.astype(np.int32))
        assert evaluator(state.params, state.batch_stats, IMAGES, right, subset).accuracy == 1


@pytest.mark.slow
def test_several_steps_at_once_are_those_steps_for_each_seed():
    step = jax.vmap(make_train_step(CNN, OPTIMIZER, Augmentation(flip=True, brightness=0.2)), (0, None, None, 0))
    order = np.stack([rng.permutation(12)[:6] for _ in range(6)]).reshape(3, 2, 6)
    start = jax.jit(jax.vmap(create))(jnp.arange(2, dtype=jnp.uint32))
    together, single, state = jax.jit(several_steps(step))(start, IMAGES, LABELS, order), jax.jit(step), start
    for batch in order:
        state = single(state, IMAGES, LABELS, batch)
    assert together.step.tolist() == [3, 3] and together.sums.images.tolist() == [18, 18]
    np.testing.assert_allclose(together.sums.loss, state.sums.loss, rtol=1e-5)
    for before, a, b in zip(*map(jax.tree.leaves, (start.params, state.params, together.params)), strict=True):
        # Adam's steps are of the size of the rate, 0.001, wherever the gradient is not 0.
        assert jnp.abs(a - b).max() < 0.02 * max(jnp.abs(a - before).max(), 1e-3)


@pytest.mark.slow
def test_an_evaluation_with_spikes_can_be_repeated_and_has_spikes_of_its_seed():
    model = models.Network(**{**SMALL, "num_spikes": 2, "input_spikes": 30})
    state, step = start(model)
    assert kernel_of_nmf(step(state, IMAGES, LABELS, jnp.arange(12))) == kernel_of_nmf(
        step(state, IMAGES, LABELS, jnp.arange(12))
    )

    def loss(spike_seed):
        evaluate = Evaluator(model, crop=0, batch_size=5, mesh=data_mesh(1), spike_seed=spike_seed)
        return evaluate(state.params, state.batch_stats, IMAGES, LABELS, np.arange(12)).loss

    assert loss(0) == loss(0) != loss(1)


def kernel_of_nmf(state):
    return np.asarray(state.params["block1"]["nmf"]["u"]).tobytes()
