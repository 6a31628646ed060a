"""Accuracy of a network on a set of images."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from deepnmf_jax.data.sampling import eval_batches
from deepnmf_jax.models import Network
from deepnmf_jax.training.devices import place, replicated, split_last_axis
from deepnmf_jax.training.steps import make_eval_step


class Evaluation(NamedTuple):
    """Mean loss (eq. 21, nats an image) and accuracy (0 to 1), () or (seeds,), and predictions (images,) or
    (seeds, images)."""

    loss: Any
    accuracy: Any
    predictions: np.ndarray


class Evaluator:
    """Evaluates variables on the device, in batches of one size.

    With running statistics the last batch is padded and masked. With those of the batch at hand padding would
    change them: a smaller last batch is computed unpadded, not split over the devices.

    A network that spikes gives the same numbers for the same `spike_seed` and batch size.
    """

    def __init__(self, model: Network, *, crop: int, batch_size: int, mesh: Mesh, seeds: int = 1, spike_seed: int = 0):
        step = make_eval_step(model, crop, spike_seed)
        if seeds > 1:
            step = jax.vmap(step, in_axes=(0, 0, None, None, None, None))
        self._step = jax.jit(step, out_shardings=replicated(mesh))
        self._mesh = mesh
        # A program of its own: that of the network is then the same for all sets of images of one shape.
        everywhere = replicated(mesh)
        self._batch = {
            split: jax.jit(_batch, out_shardings=(split, split, everywhere))
            for split in (split_last_axis(mesh, 1), everywhere)
        }
        self._padded = model.batch_statistics == "running"
        # Padding makes any size fit the devices; without it the size is part of the result.
        self._batch_size = -(-batch_size // mesh.size) * mesh.size if self._padded else batch_size

    def __call__(self, params: Any, batch_stats: Any, images: Array, labels: Array, subset: np.ndarray) -> Evaluation:
        """Evaluates on images[subset], which must not be empty; images and labels are on the device."""
        totals, predictions = [], []
        for positions, mask in eval_batches(len(subset), self._batch_size):
            count = int(mask.sum())
            if not self._padded:
                positions, mask = positions[:count], mask[:count]
            whole = len(positions) % self._mesh.size == 0
            sharding = split_last_axis(self._mesh, 1) if whole else replicated(self._mesh)
            indices, mask = place((subset[positions], mask), sharding)
            batch = self._batch[sharding](images, labels, indices)
            sums, predicted = self._step(params, batch_stats, *batch, mask)
            totals.append(sums)
            predictions.append(np.asarray(predicted)[..., :count])
        loss = sum(np.asarray(t.loss, np.float64) for t in totals)
        correct = sum(np.asarray(t.correct, np.int64) for t in totals)
        count = len(subset)
        return Evaluation(loss / count, correct / count, np.concatenate(predictions, axis=-1))


def _batch(images: Array, labels: Array, indices: Array) -> tuple[Array, Array, Array]:
    return images[indices], labels[indices], indices[0]
