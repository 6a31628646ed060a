"""Which accelerated iterations may stand in for a trained network's plain ones? Found on its own images, block by
block."""

import logging
import time
from typing import Any

import jax
import numpy as np

from deepnmf_jax.core.checks import check_number
from deepnmf_jax.core.iteration import Settings
from deepnmf_jax.data.datasets import split_train_validation
from deepnmf_jax.models.fields import hashable
from deepnmf_jax.training.devices import place, replicated
from deepnmf_jax.training.evaluation import Evaluation, Evaluator
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
        "accuracy": float(search.evaluation(search.chosen).accuracy),
        "accuracy_before": float(search.evaluation(plain).accuracy),
        "images": len(search.subset),
        "speed": speed,
    }


def _plain_blocks(run: Run) -> BlockSettings:
    """The iterations of each block as they are."""
    blocks = []
    all_fields = run.model.block_fields(run.image_shape[-1])
    for fields, own in zip(all_fields, run.model.block_settings or ({},) * len(all_fields), strict=True):
        settings = Settings(**{name: fields["inference"][name] for name in Settings._fields})
        if run.model.layer != "nmf" or run.model.needs_spikes:
            raise ValueError("there is nothing to tune: the network has no NMF layers that iterate")
        if settings.acceleration != "none" or settings.epsilon != 1 or settings.tolerance:
            raise ValueError(
                f"a block has acceleration = {settings.acceleration!r}, epsilon = {settings.epsilon} and tolerance = "
                f"{settings.tolerance}; only plain iterations ('none', 1 and 0) are tuned"
            )
        blocks.append({**own, "num_iters": settings.num_iters, "acceleration": "none"})
    return tuple(blocks)


class _Search:
    """The settings chosen so far, and what the network answers with any."""

    def __init__(self, run: Run, variables: tuple[Any, Any], plain: BlockSettings):
        self.run, self.variables, self.plain, self.chosen = run, variables, plain, plain
        subset = run.split.validation if len(run.split.validation) else run.split.train
        if len(subset) > MOST_IMAGES:
            # Of every class its share: data may be sorted by class.
            labels = run.dataset.train_labels[subset]
            subset = subset[split_train_validation(labels, MOST_IMAGES, run.config.split_seed).validation]
        self.subset, self.batch = subset, min(run.config.eval_batch_size, len(subset))
        self.images = place((run.dataset.train_images, run.dataset.train_labels), replicated(run.mesh))
        self._evaluators: dict[Any, Evaluator] = {}
        self._evaluations: dict[Any, Evaluation] = {}

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
        found = {"num_iters": pairs, "acceleration": "multistep", "exponent": round(reach, 2)}
        return (*self.chosen[:block], {**self.plain[block], **found}, *self.chosen[block + 1 :])

    def changed(self, settings: BlockSettings) -> float:
        """The share of images that get another answer than by the plain iterations."""
        return float((self.evaluation(settings).predictions != self.evaluation(self.plain).predictions).mean())

    def time_over(self, settings: BlockSettings, others: BlockSettings) -> float:
        """Seconds of a batch over those with other settings: the least of several, in turns."""
        seconds: tuple[list[float], list[float]] = ([], [])
        for _ in range(TURNS):
            for of_one, kept in zip((settings, others), seconds, strict=True):
                start = time.perf_counter()
                self._evaluate(of_one, self.subset[: self.batch])
                kept.append(time.perf_counter() - start)
        return min(seconds[0]) / min(seconds[1])

    def evaluation(self, settings: BlockSettings) -> Evaluation:
        """Of all the images, computed once."""
        if (key := hashable(settings)) not in self._evaluations:
            self._evaluations[key] = self._evaluate(settings, self.subset)
        return self._evaluations[key]

    def _evaluate(self, settings: BlockSettings, subset: np.ndarray) -> Evaluation:
        if (key := hashable(settings)) not in self._evaluators:
            model = self.run.model.clone(block_settings=settings)
            crop, mesh = self.run.augmentation.crop, self.run.mesh
            self._evaluators[key] = Evaluator(model, crop=crop, batch_size=self.batch, mesh=mesh)
        (params, batch_stats), (images, labels) = self.variables, self.images
        return self._evaluators[key](params, batch_stats, images, labels, subset)
