"""Trained networks whose layers count spikes in place of iterating: accuracy, divergence, noise and operations.

python main.py --config=configs/experiments/spikes.py --workdir=runs/spikes [--config.data_dir=...]

Every number is written as it comes, and not measured again by a later call with the same config.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deepnmf_jax.core.checks import check_choice, check_integer, check_number
from deepnmf_jax.core.divergences import certificate, kl_divergence
from deepnmf_jax.core.inference import infer
from deepnmf_jax.core.spiking import infer_spiking
from deepnmf_jax.data.augmentation import center_crop
from deepnmf_jax.data.datasets import load_dataset
from deepnmf_jax.experiments import noise
from deepnmf_jax.experiments.acceleration import layer_inputs
from deepnmf_jax.experiments.spikes_tables import StepRule, draw_spikes_accuracy, rule_key, spikes_table, step_rules
from deepnmf_jax.experiments.tables import as_json
from deepnmf_jax.files import write_atomically
from deepnmf_jax.models import Network, load_pretrained, pretrained_names
from deepnmf_jax.models.summary import layer_rows
from deepnmf_jax.plotting import save
from deepnmf_jax.training.environment import environment

_log = logging.getLogger(__name__)


class _Records:
    """results.json of a workdir: a number is measured once."""

    def __init__(self, workdir: Path, config: dict[str, Any]):
        self.path = workdir / "results.json"
        workdir.mkdir(parents=True, exist_ok=True)
        self.content: dict[str, Any] = {"config": config, "machine": environment(), "seconds": 0.0, "numbers": {}}
        if self.path.exists():
            found = json.loads(self.path.read_text())
            if found["config"] != json.loads(json.dumps(config)):
                raise ValueError(f"{self.path} is of another config; choose another --workdir, or delete this one")
            self.content = found

    def measure(self, name: str, function: Callable[[], Any]) -> None:
        """Calls the function unless the number with this name is known, and writes what it returns."""
        if name in self.content["numbers"]:
            return
        start = time.monotonic()
        self.content["numbers"][name] = function()
        self.content["seconds"] += time.monotonic() - start
        write_atomically(self.path, as_json(self.content))
        _log.info("%s: %s", name, self.content["numbers"][name])


def run(config: Any, workdir: str) -> None:
    """Measures what the config asks for, writes results.json, spikes.md and pictures.

    Raises:
        ValueError: settings outside what they allow, or a workdir of another config.
        FileNotFoundError: the images are not there.
    """
    _check(config)
    records = _Records(Path(workdir), config.to_dict())
    tasks = _tasks(config)
    for number, (name, measure) in enumerate(tasks, start=1):
        if name not in records.content["numbers"]:
            _log.info("%d of %d: %s", number, len(tasks), name)
        records.measure(name, measure)
    write_atomically(Path(workdir) / "spikes.md", spikes_table(records.content) + "\n")
    for suffix in ("png", "pdf"):
        save(draw_spikes_accuracy(records.content), Path(workdir) / f"spikes.{suffix}")


def _check(config: Any) -> None:
    for name in config.networks:
        check_choice("networks", name, pretrained_names())
        if load_pretrained(name).model.layer != "nmf":
            raise ValueError(f"networks = {config.networks!r}: {name} has no NMF layers")
    for name in ("images", "batch_size", "rows", "noise_spikes"):
        check_integer(name, config[name], 1)
    for name in ("spikes", "iterations", "input_spikes"):
        for value in config[name]:
            check_integer(name, value, 1)
    for epsilon, decay in config.steps:
        check_number("steps: epsilon", epsilon, 0, above=True)
        check_number("steps: decay", decay, 0)
    for kind in config.noise:
        check_choice("noise", kind, tuple(noise.KINDS))
    for level in config.levels:
        check_number("levels", level, 0, 1)
    check_number("total", config.total, 0)


def _tasks(config: Any) -> list[tuple[str, Callable[[], Any]]]:
    """What is measured, by its name in the record, the quick ones first."""
    tasks: list[tuple[str, Callable[[], Any]]] = []
    for name in config.networks:
        subject = _Subject(name, config)
        for count in config.iterations:
            place = f"{name}/iterations/{count}"
            tasks.append((f"{place}/accuracy", partial(subject.accuracy, {"num_iters": count})))
            tasks.append((f"{place}/layers", partial(subject.layers_of_iterations, count)))
        for rule in step_rules(config):
            for count in config.spikes:
                how = _settings(config, rule, count)
                place = f"{name}/{rule_key(rule)}/{count}"
                tasks.append((f"{place}/accuracy", partial(subject.accuracy, how)))
                tasks.append((f"{place}/layers", partial(subject.layers_of_spikes, how)))
        for count in config.input_spikes:
            place = f"{name}/input spikes/{count}/accuracy"
            tasks.append((place, partial(subject.accuracy, {"input_spikes": count})))
        for kind in config.noise:
            for level in config.levels:
                spiking = _settings(config, None if config.total else config.steps[0], config.noise_spikes)
                for label, how in (("iterations", {}), ("spikes", spiking)):
                    place = f"{name}/{kind} {level:g}/{label}/accuracy"
                    tasks.append((place, partial(subject.accuracy, how, (kind, level))))
        tasks.append((f"{name}/operations", subject.operations))
    return tasks


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

    def accuracy(self, how: Mapping[str, Any], with_noise: tuple[str, float] | None = None) -> float:
        """Share of right answers with these settings of the network, on images with noise of a kind and level."""
        model = self.found.model.clone(**how)
        images, labels, pictures = self.images
        key = jax.random.key(self.config.seed)

        @jax.jit
        def classes(variables: Any, images: jax.Array, number: jax.Array) -> jax.Array:
            noise_key, spike_key = jax.random.split(jax.random.fold_in(key, number))
            if with_noise:
                images = noise.add_noise(noise_key, images, *with_noise, jnp.asarray(pictures))
            logits: Any = model.apply(variables, images, train=False, rngs={"spikes": spike_key})
            return logits.argmax(-1)

        size = self.config.batch_size
        batches = [images[i : i + size] for i in range(0, len(images), size)]
        answers = [np.asarray(classes(self.found.variables, batch, i)) for i, batch in enumerate(batches)]
        return float((np.concatenate(answers) == labels).mean())

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
