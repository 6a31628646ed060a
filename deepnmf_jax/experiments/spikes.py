"""Trained networks whose layers count spikes in place of iterating: accuracy, divergence, noise and operations.

python main.py --config=configs/experiments/spikes.py --workdir=runs/spikes [--config.data_dir=...]

Every number is written as it comes, and not measured again by a later call.
"""

import math
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deepnmf_jax.core.checks import check_choice, check_integer, check_number, check_seed
from deepnmf_jax.core.divergences import certificate, kl_divergence
from deepnmf_jax.core.inference import infer
from deepnmf_jax.core.spiking import infer_spiking
from deepnmf_jax.data.augmentation import center_crop
from deepnmf_jax.data.datasets import image_shape_and_classes, load_dataset
from deepnmf_jax.experiments import noise
from deepnmf_jax.experiments.acceleration import layer_inputs
from deepnmf_jax.experiments.budgets import check_listed
from deepnmf_jax.experiments.cells import Cell, run_cells
from deepnmf_jax.experiments.spikes_tables import (
    StepRule,
    draw_spikes_accuracy,
    noise_key,
    noises,
    rule_key,
    spikes_table,
    step_rules,
)
from deepnmf_jax.models import Network, load_pretrained, pretrained_names
from deepnmf_jax.models.summary import layer_rows

# Settings that only say which numbers there are.
_SELECTING = ("networks", "spikes", "steps", "iterations", "noise", "input_spikes")


def run(config: Any, workdir: str) -> None:
    """Measures what the config asks for, writes results.json, spikes.md and pictures.

    Raises:
        ValueError: settings outside what they allow, or a workdir of another config.
        FileNotFoundError: the images are not there.
    """
    _check(config)
    run_cells(config, workdir, _cells(config), spikes_table, draw_spikes_accuracy, _SELECTING)


def _check(config: Any) -> None:
    check_listed(config, "networks")
    check_seed("seed", config.seed)
    if config.dataset:
        image_shape_and_classes(config.dataset)
    for name in config.networks:
        check_choice("networks", name, pretrained_names())
        if load_pretrained(name).model.layer != "nmf":
            raise ValueError(f"networks = {config.networks!r}: {name} has no NMF layers")
    for name in ("images", "batch_size", "rows", "noise_spikes"):
        check_integer(name, config[name], 1)
    for name in ("spikes", "iterations", "input_spikes"):
        for value in config[name]:
            check_integer(name, value, 1)
    for rule in config.steps:
        if not isinstance(rule, (tuple, list)) or len(rule) != 2:
            raise ValueError(f"steps: {rule!r} is no pair (epsilon, decay)")
        epsilon, decay = rule
        check_number("steps: epsilon", epsilon, 0, above=True)
        check_number("steps: decay", decay, 0)
    noise.check_levels(config.noise)
    check_number("total", config.total, 0)


def _cells(config: Any) -> list[Cell]:
    """What is measured, network by network, the quick cells first."""
    cells: list[Cell] = []
    for name in config.networks:
        subject = _Subject(name, config)
        for count in config.iterations:
            place = f"{name}/iterations/{count}"
            cells.append(Cell(f"{place}/accuracy", partial(subject.accuracy, {"num_iters": count}), count))
            cells.append(Cell(f"{place}/layers", partial(subject.layers_of_iterations, count), count))
        for rule in step_rules(config):
            for count in config.spikes:
                how = _settings(config, rule, count)
                place = f"{name}/{rule_key(rule)}/{count}"
                cells.append(Cell(f"{place}/accuracy", partial(subject.accuracy, how), count))
                cells.append(Cell(f"{place}/layers", partial(subject.layers_of_spikes, how), count / 10))
        for count in config.input_spikes:
            cells.append(
                Cell(f"{name}/input spikes/{count}/accuracy", partial(subject.accuracy, {"input_spikes": count}))
            )
        spiking = _settings(config, None if config.total else config.steps[0], config.noise_spikes)
        for kind, level in noises(config):
            for label, how in (("iterations", {}), ("spikes", spiking)):
                measure = partial(subject.accuracy, how, (kind, level) if kind else None)
                cost = config.noise_spikes if how else 1
                cells.append(Cell(f"{name}/{noise_key(kind, level)}/{label}/accuracy", measure, cost))
        cells.append(Cell(f"{name}/operations", subject.operations))
    return cells


def _settings(config: Any, rule: StepRule, count: int) -> dict[str, Any]:
    """The fields of a network that counts so many spikes."""
    epsilon, decay = (config.total / count, 0.0) if rule is None else rule
    return {"num_spikes": count, "spike_epsilon": epsilon, "spike_decay": decay}


class _Subject:
    """A network of the package, and the test images that it is asked about, read when first needed."""

    def __init__(self, name: str, config: Any):
        self.config, self.found = config, load_pretrained(name)
        self._images: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        self._inputs: list[tuple[Any, Any]] | None = None

    @property
    def images(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Test images, their labels, and training images that noise may mix in."""
        if self._images is None:
            name = self.config.dataset or self.found.results["dataset"]["name"]
            dataset = load_dataset(name, self.config.data_dir or None)
            count, side = self.config.images, self.found.image_shape[0]
            cut, pictures = (
                np.asarray(center_crop(jnp.asarray(images[:count]), side))
                for images in (dataset.test_images, dataset.train_images)
            )
            self._images = cut, dataset.test_labels[:count], pictures
        return self._images

    @cached_property
    def attack(self) -> Any:
        """Of the iterating network: spikes have no gradient at the pixels, and each code then sees the same images."""
        return noise.attack_of(self.found.model)

    def accuracy(self, how: Mapping[str, Any], with_noise: tuple[str, float] | None = None) -> float:
        """Share of right answers with these settings of the network, on images with noise of a kind and level."""
        model = self.found.model.clone(**how)
        images, labels, pictures = self.images
        key = jax.random.key(self.config.seed)

        @jax.jit
        def classes(variables: Any, images: jax.Array, number: jax.Array) -> jax.Array:
            noise_key, spike_key = jax.random.split(jax.random.fold_in(key, number))
            if with_noise and with_noise[0] in noise.KINDS:
                images = noise.add_noise(noise_key, images, *with_noise, jnp.asarray(pictures))
            logits: Any = model.apply(variables, images, train=False, rngs={"spikes": spike_key})
            return logits.argmax(-1)

        size = self.config.batch_size
        batches = [(images[i : i + size], labels[i : i + size]) for i in range(0, len(images), size)]
        right = 0
        for number, (batch, wanted) in enumerate(batches):
            if with_noise and with_noise[0] == noise.ATTACK:
                batch = self.attack(self.found.variables, batch, wanted, with_noise[1])
            right += int((np.asarray(classes(self.found.variables, batch, number)) == wanted).sum())
        return right / len(labels)

    def layers_of_iterations(self, count: int) -> dict[str, list[float]]:
        """Of each layer, the mean KL and certificate after so many iterations, in nats."""
        return self._layers(lambda x, w: infer(x, w, num_iters=count))

    def layers_of_spikes(self, how: Mapping[str, Any]) -> dict[str, list[float]]:
        """Of each layer, the mean KL and certificate after spikes, on the inputs that iterations give it, in nats."""
        settings = {"num_spikes": how["num_spikes"], "epsilon": how["spike_epsilon"], "decay": how["spike_decay"]}
        return self._layers(lambda x, w: infer_spiking(jax.random.key(self.config.seed), x, w, **settings))

    def _layers(self, code: Callable[[Any, Any], jax.Array]) -> dict[str, list[float]]:
        if self._inputs is None:
            few = jnp.asarray(self.images[0][:50])
            self._inputs = layer_inputs(self.found.model, self.found.variables, few, self.config.rows)
        codes = [(x, w, code(x, w)) for x, w in self._inputs]
        return {
            "kl": [float(kl_divergence(*parts).mean()) for parts in codes],
            "certificate": [float(certificate(*parts).mean()) for parts in codes],
        }

    def operations(self) -> dict[str, dict[str, float]]:
        """An image's operations in the NMF layers: for one iteration, and for one spike of each input."""
        return count_operations(self.found.model, self.found.image_shape)


def count_operations(model: Network, image_shape: tuple[int, int, int]) -> dict[str, dict[str, float]]:
    """Operations of the NMF layers for one image: of one iteration of each, and of one spike of each of their inputs.

    An iteration multiplies and adds each weight twice and divides once an input. A spike multiplies k weights with k
    activities and adds these products for R, scales them and the activities by a number each, adds both, and divides
    once: 5 k, as the summary of a network counts. Drawing a spike is a search among n sums.
    """
    total: dict[str, dict[str, float]] = {
        kind: dict.fromkeys(("multiplications", "additions", "divisions", "weight reads", "comparisons"), 0.0)
        for kind in ("iteration", "spike")
    }
    for row in layer_rows(model.clone(num_iters=1, num_spikes=0), image_shape):
        if row.layer not in ("NMFConv", "NMFPool"):
            continue
        positions, units = math.prod(row.output[:-1]), row.output[-1]
        inputs = row.parameters // units
        own = {
            "iteration": (2 * inputs * units + units, 2 * inputs * units, inputs, 2 * inputs * units, 0),
            "spike": (3 * units, 2 * units, 1, units, math.ceil(math.log2(inputs))),
        }
        for kind, counts in own.items():
            for quantity, count in zip(total[kind], counts, strict=True):
                total[kind][quantity] += positions * count
    return total
