"""A network cut in two is the network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepnmf_jax.models import Network, cut_network

SHAPE = (14, 14, 2)


def made(**settings: object) -> tuple[Network, dict, np.ndarray]:
    fields = {"features": (5, 6, 7), "kernels": (3, 3, 0, 1), "num_classes": 3, "num_iters": 2} | settings
    model = Network(**fields)
    images = np.random.default_rng(0).random((4, *SHAPE)).astype(np.float32)
    return model, jax.jit(model.init)(jax.random.key(0), images), images


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"layer": "conv", "mixing": False}])
def test_the_parts_make_the_logits(settings: dict) -> None:
    model, variables, images = made(**settings)
    logits = jax.jit(model.apply)(variables, images)
    for after in (1, 2, 3):
        first, rest = cut_network(model, variables, after, SHAPE)
        activations = first(images)
        assert activations.ndim == 4 and activations.min() >= 0 and activations.max() > 0
        np.testing.assert_allclose(rest(activations), logits, rtol=1e-5)
        assert np.abs(rest(activations.at[..., 1:].set(0)) - logits).max() > 1e-3
    gradient = jax.grad(lambda a: rest(a)[:, 0].sum())(activations)
    assert gradient.shape == activations.shape and jnp.abs(gradient).max() > 0


@pytest.mark.parametrize(
    ("settings", "after", "said"),
    [
        ({}, 4, "after"),
        ({}, 0, "after"),
        ({"residual": True}, 1, "residual"),
        ({"rectification": "on_off"}, 1, "relu"),
        ({"num_spikes": 100}, 1, "spikes"),
        ({"block_settings": ({}, {"num_spikes": 100}, {}, {})}, 1, "spikes"),
        ({"tolerance": 1e-3}, 1, "tolerance"),
        ({"block_settings": ({}, {"tolerance": 1e-3}, {}, {})}, 1, "tolerance"),
    ],
)
def test_what_cannot_be_cut_is_refused(settings: dict, after: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        cut_network(Network(**settings), {}, after, SHAPE)


@pytest.mark.slow
def test_the_gradient_is_that_asked_for_in_blocks_of_their_own_too() -> None:
    model, variables, images = made()
    own = model.clone(block_settings=({}, {"gradient": "approximate"}, {}, {}))
    gradients = []
    for each in (model, own):
        first, rest = cut_network(each, variables, 1, SHAPE)
        gradients.append(jax.grad(lambda a, rest=rest: rest(a)[:, 0].sum())(first(images)))
    np.testing.assert_array_equal(*gradients)
