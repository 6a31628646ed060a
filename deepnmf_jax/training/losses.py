"""The paper's loss."""

import jax
import jax.numpy as jnp
from jax import Array

MSE_WEIGHT = 0.5


def cross_entropy_and_mse(logits: Array, labels: Array, *, mse_weight: float = MSE_WEIGHT) -> Array:
    """Eq. 21 for each image: -sum_c y_c log p_c + 0.5 sum_c (y_c - p_c)^2, with p = softmax(logits).

    logits (batch, classes), labels (batch,) whole numbers -> (batch,), in nats. `mse_weight` replaces the 0.5.
    """
    log_p = jax.nn.log_softmax(logits)
    y = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return -jnp.sum(y * log_p, axis=-1) + mse_weight * jnp.sum((y - jnp.exp(log_p)) ** 2, axis=-1)


def training_loss(logits: Array, labels: Array, *, mse_weight: float = MSE_WEIGHT) -> Array:
    """What the gradient is taken of: eq. 21 as the authors' code scales it, summed over the batch -> ().

    The mean over classes of both terms, divided by their weights' sum 1.5: for ten classes 1/15 of eq. 21. A sum,
    so that it depends neither on the number of devices nor on how a batch is split. The scale matters: gradients
    of the first layer are of the order of Adam's eps.
    """
    scale = 1.0 / ((1.0 + mse_weight) * logits.shape[-1])
    return scale * jnp.sum(cross_entropy_and_mse(logits, labels, mse_weight=mse_weight))
