"""One training step and one evaluation step: pure functions, to be jitted, sharded over a mesh and mapped over
seeds."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array

from deepnmf_jax.data.augmentation import Augmentation, alternating_flips, augment, center_crop
from deepnmf_jax.training.losses import MSE_WEIGHT, cross_entropy_and_mse, training_loss
from deepnmf_jax.training.state import Sums, TrainState

# What the key of a batch is folded with for its spikes.
SPIKES = 0x5B5
TrainStep = Callable[[TrainState, Array, Array, Array], TrainState]
"""(state, images, labels, indices) -> state, for one batch, or for several along the first axis of indices."""
EvalStep = Callable[[Any, Any, Array, Array, Array, Array], tuple[Sums, Array]]


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    augmentation: Augmentation,
    *,
    mse_weight: float = MSE_WEIGHT,
    steps_per_epoch: int = 1,
) -> TrainStep:
    """A function (state, images, labels, indices) -> state.

    images (N, H, W, C) uint8 and labels (N,) are the whole training set; indices (batch,) say which of them make
    this batch. `mse_weight` is that of `training_loss`, `steps_per_epoch` tells the epochs of alternating flips.
    """

    def train_step(state: TrainState, images: Array, labels: Array, indices: Array) -> TrainState:
        key = jax.random.fold_in(jax.random.key(state.seed), state.step)
        mirrored = None
        if augmentation.flip and augmentation.alternate:
            mirrored = alternating_flips(jax.random.key(state.seed), indices, state.step // steps_per_epoch)
        x, y = augment(key, images[indices], augmentation, mirrored), labels[indices]

        def loss_of(params: Any) -> tuple[Array, tuple[Array, Any]]:
            logits, updates = model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                x,
                train=True,
                mutable=["batch_stats"],
                rngs=spikes_of(model, key),
            )
            loss = training_loss(logits, y, mse_weight=mse_weight)
            return loss, (logits, updates.get("batch_stats", state.batch_stats))

        (_, (logits, batch_stats)), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        updates = jax.tree.map(lambda u: (u * state.plateau.scale).astype(u.dtype), updates)
        params: Any = optax.apply_updates(state.params, updates)
        return state._replace(
            step=state.step + 1,
            params=params,
            batch_stats=batch_stats,
            opt_state=opt_state,
            sums=jax.tree.map(jnp.add, state.sums, _totals(logits, y, jnp.ones(y.shape, bool))),
        )

    return train_step


def several_steps(train_step: TrainStep) -> TrainStep:
    """The steps of several batches as one function: indices (steps, ...) in place of those of one batch.

    A scan has a known length: on a GPU, nothing is asked of the device between two steps.
    """

    def train_steps(state: TrainState, images: Array, labels: Array, indices: Array) -> TrainState:
        def step(state: TrainState, batch: Array) -> tuple[TrainState, None]:
            return train_step(state, images, labels, batch), None

        return jax.lax.scan(step, state, indices)[0]

    return train_steps


def spikes_of(model: nn.Module, key: Array) -> dict[str, Array]:
    """What a network whose layers spike needs beside its variables: a key made from `key`, which others draw from."""
    return {"spikes": jax.random.fold_in(key, SPIKES)} if model.needs_spikes else {}


def make_eval_step(model: nn.Module, crop: int, seed: int = 0) -> EvalStep:
    """A function (params, batch_stats, images, labels, first, mask) -> (sums, predictions (batch,)).

    images (batch, H, W, C) are centre-cropped to `crop` (0: as they are); mask (batch,) is false for padding. A network
    that spikes draws the same spikes for the same `first`, the index of the batch's first image, and seed.
    """

    def eval_step(
        params: Any, batch_stats: Any, images: Array, labels: Array, first: Array, mask: Array
    ) -> tuple[Sums, Array]:
        key = jax.random.fold_in(jax.random.key(seed), first)
        variables = {"params": params, "batch_stats": batch_stats}
        logits: Any = model.apply(variables, center_crop(images, crop), train=False, rngs=spikes_of(model, key))
        return _totals(logits, labels, mask), jnp.argmax(logits, axis=-1)

    return eval_step


def _totals(logits: Array, labels: Array, mask: Array) -> Sums:
    loss = jnp.where(mask, cross_entropy_and_mse(logits, labels), 0)
    correct = mask & (jnp.argmax(logits, axis=-1) == labels)
    return Sums(jnp.sum(loss).astype(jnp.float32), jnp.sum(correct, dtype=jnp.int32), jnp.sum(mask, dtype=jnp.int32))
