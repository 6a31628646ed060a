"""What a checkpoint holds: everything that the rest of a training run depends on."""

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array


class Sums(NamedTuple):
    """Totals over images: of the loss (eq. 21), of right answers, and their number."""

    loss: Array
    correct: Array
    images: Array

    @classmethod
    def zero(cls) -> "Sums":
        """No images yet."""
        return cls(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


class Best(NamedTuple):
    """The variables with the highest validation accuracy so far, that accuracy (-1 before the first), and their
    epoch."""

    params: Any
    batch_stats: Any
    accuracy: Array | np.ndarray
    epoch: Array | np.ndarray


class TrainState(NamedTuple):
    """A training run between two steps. With several seeds each leaf has a leading axis, one entry a seed.

    `sums` are those of the epoch so far; `seed` and `step` determine all randomness of the next step.
    """

    seed: Array
    step: Array
    params: Any
    batch_stats: Any
    opt_state: Any
    plateau: Any
    sums: Sums
    best: Best


def count_parameters(params: Any) -> int:
    """Number of trainable numbers in a tree."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def create_state(
    seed: Array,
    model: nn.Module,
    image_shape: tuple[int, ...],
    optimizer: optax.GradientTransformation,
    plateau: optax.GradientTransformationExtraArgs,
) -> TrainState:
    """The state before the first step. Pure: under `vmap` over seeds it makes the states of several runs."""
    images = jnp.zeros((1, *image_shape), jnp.float32)
    variables = model.init(jax.random.key(seed), images)
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    return TrainState(
        seed=jnp.asarray(seed, jnp.uint32),
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(params),
        plateau=plateau.init(params),
        sums=Sums.zero(),
        best=Best(params, batch_stats, jnp.full((), -1, jnp.float32), jnp.zeros((), jnp.int32)),
    )
