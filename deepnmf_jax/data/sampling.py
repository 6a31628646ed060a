"""Which examples make batch (seed, epoch, step).

Everything is a pure function of integers, so that a run stopped at any step continues with the batches that
it would have had. numpy's Philox generator is keyed directly, and only its raw bits are used: that stream is
fixed across numpy versions and machines, where the methods of `numpy.random.Generator` may change.
"""

import numpy as np

from deepnmf_jax.core.checks import check_integer

# `random_order` is keyed by (seed, stream). Epochs are the streams from 0 up; a split takes the last one.
SPLIT_STREAM = 2**64 - 1


def random_order(seed: int, stream: int, num_examples: int) -> np.ndarray:
    """A permutation of 0 .. num_examples - 1 that depends on (seed, stream) alone; int32 (num_examples,).

    Raises:
      ValueError: `seed` or `stream` is outside 0 .. 2**64 - 1.
    """
    for name, value in (("seed", seed), ("epoch", stream)):
        if not 0 <= value < 2**64:
            raise ValueError(f"{name} must be 0 or more, and less than 2**64; got {value}")
    bits = np.random.Philox(key=np.asarray([seed, stream], np.uint64)).random_raw(num_examples)
    return np.argsort(bits, kind="stable").astype(np.int32)


def epoch_order(seed: int, epoch: int, num_examples: int, batch_size: int) -> np.ndarray:
    """The batches of one epoch.

    Args:
      seed: of the run, 0 or more.
      epoch: from 0.
      num_examples: size of the training set.
      batch_size: examples a step, over all devices and processes.

    Returns:
      int32 (steps_per_epoch, batch_size): positions in 0 .. num_examples - 1, none twice. What is left over
      for an incomplete batch is dropped; another epoch leaves out other examples.

    Raises:
      ValueError: `batch_size` is below 1 or above `num_examples`; `seed` or `epoch` is negative.
    """
    if not 1 <= batch_size <= num_examples:
        raise ValueError(
            f"batch_size must be 1 or more and at most {num_examples}, the number of training images; got {batch_size}"
        )
    steps = num_examples // batch_size
    return random_order(seed, epoch, num_examples)[: steps * batch_size].reshape(steps, batch_size)


def eval_batches(num_examples: int, batch_size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """All examples once, in order, in batches of one size.

    Returns:
      A list of (indices, mask): int32 (batch_size,) and bool (batch_size,). The last batch is filled up with
      index 0 under a False mask; no examples give an empty list.

    Raises:
      ValueError: `batch_size` is below 1 or `num_examples` below 0.
    """
    check_integer("batch_size", batch_size, 1)
    check_integer("num_examples", num_examples, 0)
    steps = -(-num_examples // batch_size)
    indices = np.arange(steps * batch_size, dtype=np.int32)
    mask = indices < num_examples
    indices[~mask] = 0
    return list(zip(indices.reshape(steps, batch_size), mask.reshape(steps, batch_size), strict=True))
