"""Which accelerated iterations may stand in for a trained network's plain ones? Found on its own images, block by
block."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deepnmf_jax.core.checks import check_number
from deepnmf_jax.core.iteration import Settings
from deepnmf_jax.data.augmentation import center_crop
from deepnmf_jax.training.reports import check_name, variables_of
from deepnmf_jax.training.setup import Run, prepare

_log = logging.getLogger(__name__)
# Images that the answers are compared on: of validation, where the run has some.
MOST_IMAGES = 5000
# A block is accelerated if that takes so much off an inference of the whole network, in the least of so many turns.
WORTH, TURNS = 0.02, 7

BlockSettings = tuple[dict[str, Any], ...]
"""One mapping a block, as in `Network.block_settings`."""


def tune(config: Any, checkpoint: str, tolerance: float = 0.01) -> dict[str, Any]:
    """Settings by block with which a trained network gives nearly the same answers, sooner on this machine.

    A block of N plain iterations may be replaced by p pairs of products of "multistep" iterations that go as far, those
    of the exponent (N - 1) / (p - 1). From the first block to the last, p is the smallest that changes few enough
    answers; a block that does not become faster stays plain.

    Args:
        config: see configs/base.py; the validation images, or the training images where there are none, are looked
            at, at most 5,000.
        checkpoint: as for `deepnmf_jax.training.reports.evaluate`; of several seeds, the first.
        tolerance: the share of answers that may change, in all blocks together.

    Returns:
        `block_settings` and `flag`, which gives them to `main.py`; `changed`, the share of other answers; `accuracy`
        with them and `accuracy_before`; `images`; `speed`, images a second over those before.

    Raises:
        ValueError: a network without NMF layers or with others than plain iterations, a tolerance outside [0, 1], or
            what `evaluate` refuses.
        FileNotFoundError, OSError: as `evaluate`.
    """
    check_number("tolerance", tolerance, 0, 1)
    check_name(checkpoint)
    run = prepare(config)
    plain = _plain_blocks(run)
    with jax.default_matmul_precision(run.config.matmul_precision):
        variables, _ = variables_of(run, checkpoint)
        if len(run.seeds) > 1:
            variables = jax.tree.map(lambda leaf: leaf[0], variables)
        search = _Search(run, variables, plain)
        for block in range(len(plain)):
            search.accelerate(block, tolerance * (block + 1) / len(plain))
        speed = 1 / search.time_over(search.chosen, plain)
    return {
        "checkpoint": str(checkpoint),
        "block_settings": list(search.chosen),
        "flag": f"--config.model.block_settings={search.chosen}".replace(" ", ""),
        "changed": search.changed(search.chosen),
        "accuracy": search.accuracy(search.chosen),
        "accuracy_before": search.accuracy(plain),
        "images": len(search.labels),
        "speed": speed,
    }


def _plain_blocks(run: Run) -> BlockSettings:
    """The iterations of each block as they are."""
    blocks = []
    for fields in run.model.block_fields(run.image_shape[-1]):
        settings = Settings(**{name: fields["inference"][name] for name in Settings._fields})
        if run.model.layer != "nmf" or run.model.needs_spikes:
            raise ValueError("there is nothing to tune: the network has no NMF layers that iterate")
        if settings.acceleration != "none" or settings.epsilon != 1 or settings.tolerance:
            raise ValueError(
                f"a block has acceleration = {settings.acceleration!r}, epsilon = {settings.epsilon} and tolerance = "
                f"{settings.tolerance}; only plain iterations ('none', 1 and 0) are tuned"
            )
        blocks.append({"num_iters": settings.num_iters, "acceleration": "none"})
    return tuple(blocks)


class _Search:
    """The settings chosen so far, and what the network answers with any."""

    def __init__(self, run: Run, variables: tuple[Any, Any], plain: BlockSettings):
        self.run, self.plain, self.chosen = run, plain, plain
        params, batch_stats = jax.device_get(variables)
        self.variables = {"params": params, "batch_stats": batch_stats}
        subset = run.split.validation if len(run.split.validation) else run.split.train
        batch = min(run.config.eval_batch_size, len(subset), MOST_IMAGES)
        subset = subset[: min(len(subset), MOST_IMAGES) // batch * batch]
        images = run.dataset.train_images[subset]
        self.batches = [jnp.asarray(images[i : i + batch]) for i in range(0, len(images), batch)]
        self.labels = run.dataset.train_labels[subset]
        self._programs: dict[Any, Callable[[Any], jax.Array]] = {}
        self._answers: dict[Any, np.ndarray] = {}

    def accelerate(self, block: int, allowed: float) -> None:
        """Chooses the settings of a block, those before it being chosen, with at most this share of other answers."""
        iterations = self.plain[block]["num_iters"]
        # From `most` pairs on there is nothing to gain; the fewest that change little enough are between the two.
        least, most = 2, iterations
        while least < most:
            pairs = (least + most) // 2
            if self.changed(self._with(block, pairs)) <= allowed:
                most = pairs
            else:
                least = pairs + 1
        candidate = self._with(block, most)
        gain = 1 - self.time_over(candidate, self.chosen) if most < iterations else 0.0
        if gain > WORTH:
            self.chosen = candidate
        _log.info(
            "block %d: %s",
            block + 1,
            f"{most} pairs for {iterations}, {100 * gain:.0f} % off an inference" if gain > WORTH else "stays plain",
        )

    def _with(self, block: int, pairs: int) -> BlockSettings:
        reach = (self.plain[block]["num_iters"] - 1) / max(pairs - 1, 1)
        own = {"num_iters": pairs, "acceleration": "multistep", "exponent": round(reach, 2)}
        return (*self.chosen[:block], own, *self.chosen[block + 1 :])

    def changed(self, settings: BlockSettings) -> float:
        """The share of images that get another answer than by the plain iterations."""
        return float((self._answers_of(settings) != self._answers_of(self.plain)).mean())

    def accuracy(self, settings: BlockSettings) -> float:
        """Of the answers, 0 to 1."""
        return float((self._answers_of(settings) == self.labels).mean())

    def time_over(self, settings: BlockSettings, others: BlockSettings) -> float:
        """Seconds of an inference over those with other settings: the least of several, in turns."""
        seconds: tuple[list[float], list[float]] = ([], [])
        for _ in range(TURNS):
            for program, kept in zip(map(self._program, (settings, others)), seconds, strict=True):
                start = time.perf_counter()
                jax.block_until_ready(program(self.batches[0]))
                kept.append(time.perf_counter() - start)
        return min(seconds[0]) / min(seconds[1])

    def _answers_of(self, settings: BlockSettings) -> np.ndarray:
        if (key := _key(settings)) not in self._answers:
            program = self._program(settings)
            self._answers[key] = np.concatenate([program(images) for images in self.batches])
        return self._answers[key]

    def _program(self, settings: BlockSettings) -> Callable[[Any], jax.Array]:
        if (key := _key(settings)) not in self._programs:
            model, crop = self.run.model.clone(block_settings=settings), self.run.augmentation.crop

            @jax.jit
            def classes(variables: Any, images: jax.Array) -> jax.Array:
                logits: Any = model.apply(variables, center_crop(images, crop), train=False)
                return jnp.argmax(logits, axis=-1)

            self._programs[key] = lambda images: classes(self.variables, images)
        return self._programs[key]


def _key(settings: Sequence[dict[str, Any]]) -> Any:
    return tuple(tuple(sorted(own.items())) for own in settings)
