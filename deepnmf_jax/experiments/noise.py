"""Noise on images, as the scripts released with the paper define it, and Gaussian noise.

The images that come out have the sums of those that went in, because networks of this family do not see brightness.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from deepnmf_jax.core.checks import check_choice, check_number
from deepnmf_jax.models import Network
from deepnmf_jax.training.losses import training_loss


def _total(images: Array) -> Array:
    return jnp.sum(images, axis=(1, 2, 3), keepdims=True)


def _shares(images: Array) -> Array:
    """Each image divided by its sum; a black one stays black."""
    total = _total(images)
    return images / jnp.where(total > 0, total, 1)


def _mixed(images: Array, other: Array, level: float) -> Array:
    return (1 - level) * _shares(images) + level * _shares(other)


def _uniform(key: Array, images: Array, level: float, pictures: Array) -> Array:
    return _mixed(images, jax.random.uniform(key, images.shape), level)


def _picture(key: Array, images: Array, level: float, pictures: Array) -> Array:
    return _mixed(images, pictures[jax.random.randint(key, images.shape[:1], 0, len(pictures))], level)


def _holes(key: Array, images: Array, level: float, pictures: Array) -> Array:
    return _shares(jnp.where(jax.random.uniform(key, images.shape) > level, images, 0))


def _filled_holes(key: Array, images: Array, level: float, pictures: Array) -> Array:
    places, fill = jax.random.split(key)
    kept = jax.random.uniform(places, images.shape) > level
    # The released script leaves the image as it is here, so that its fill is nearly 0 beside it.
    return _shares(jnp.where(kept, _shares(images), _shares(jax.random.uniform(fill, images.shape))))


def _gaussian(key: Array, images: Array, level: float, pictures: Array) -> Array:
    # Activities need an input that is not negative.
    return _shares(jnp.maximum(images + level * jax.random.normal(key, images.shape), 0))


KINDS: dict[str, Callable[[Array, Array, float, Array], Array]] = {
    "uniform": _uniform,
    "picture": _picture,
    "holes": _holes,
    "filled_holes": _filled_holes,
    "gaussian": _gaussian,
}


# One step of FGSM on the images of a network, beside the kinds that know no network.
ATTACK = "fgsm"


def check_levels(levels: Mapping[str, Sequence[float]]) -> None:
    """Levels of each kind of noise, or of "fgsm", as configs give them: rising, above 0; none at all will do.

    Raises:
        ValueError: an unknown kind, or levels that do not rise or are outside what the kind allows.
    """
    for kind, own in levels.items():
        check_choice("noise", kind, (*KINDS, ATTACK))
        for level, below in zip(own, (0, *own), strict=False):
            check_number(f"levels of {kind}", level, below, math.inf if kind in ("gaussian", ATTACK) else 1, above=True)


def attack_of(model: Network) -> Callable[[Any, Array, Array, float], Array]:
    """One step of FGSM: (variables, images, labels, level) -> images + level sign(gradient of the loss), in [0, 1].

    Source: Goodfellow et al. 2015.
    """
    # The gradient of the one-step approximation is not that of the loss: an attack with it would be a weaker one.
    exact = model.clone(gradient="unrolled")

    def attack(variables: Any, images: Array, labels: Array, level: float) -> Array:
        def loss(images: Array) -> Array:
            logits: Any = exact.apply(variables, images, train=False)
            return training_loss(logits, labels)

        return jnp.clip(images + level * jnp.sign(jax.grad(loss)(images)), 0, 1)

    return jax.jit(attack)


def add_noise(key: Array, images: Array, kind: str, level: float, pictures: Array | None = None) -> Array:
    """Images (batch, height, width, channels), float in [0, 1], with noise; of the same sums, each at least 0.

    Args:
        key: of the noise.
        kind: one of `KINDS`. "uniform": (1 - level) image + level noise, both divided by their sums, the noise U(0, 1)
            a pixel and channel; "picture": the same with one of `pictures` in place of the noise, drawn for each image;
            "holes": each pixel and channel is 0 with the probability `level`; "filled_holes": such holes hold
            uniform noise; "gaussian": a deviation of `level` is added, what falls below 0 is cut.
        level: 0 or more; at most 1, but for "gaussian".
        pictures: (number, height, width, channels), float in [0, 1], for "picture" alone: training images, as in the
            paper's scripts.

    Raises:
        ValueError: another kind, a level outside what it allows, or no pictures of the images' shape for "picture".
    """
    check_choice("noise", kind, tuple(KINDS))
    check_number("level", level, 0, math.inf if kind == "gaussian" else 1)
    if kind == "picture" and (pictures is None or not len(pictures) or pictures.shape[1:] != images.shape[1:]):
        given = "none" if pictures is None else f"those of shape {pictures.shape}"
        raise ValueError(
            f"the noise 'picture' mixes images of shape {images.shape} with pictures, and {given} are given; give "
            f"training images (number, {', '.join(map(str, images.shape[1:]))})"
        )
    return KINDS[kind](key, images, level, jnp.asarray(0.0 if pictures is None else pictures)) * _total(images)
