"""Trained networks whose layers count spikes in place of iterating: accuracy, divergence, noise and operations.

python main.py --config=configs/experiments/spikes.py --workdir=runs/spikes [--config.data_dir=...]

Every number is written as it comes, and not measured again by a later call with the same config.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from deepnmf_jax.core.checks import check_choice, check_integer, check_number
from deepnmf_jax.core.divergences import certificate, kl_divergence
from deepnmf_jax.core.inference import infer
from deepnmf_jax.core.normalization import normalize_patches, normalize_weights
from deepnmf_jax.core.spiking import draw_spikes, infer_spiking, spike_steps, spike_update
from deepnmf_jax.data.augmentation import center_crop
from deepnmf_jax.data.datasets import load_dataset
from deepnmf_jax.experiments import noise
from deepnmf_jax.experiments.acceleration import layer_inputs
from deepnmf_jax.experiments.tables import ROOT, as_json, table
from deepnmf_jax.files import write_atomically
from deepnmf_jax.models import Network, load_pretrained, pretrained_names
from deepnmf_jax.models.summary import layer_rows
from deepnmf_jax.plotting import BLACK, COLOURS, WIDTH, decades, save, styled
from deepnmf_jax.training.environment import environment

FOLDER = ROOT / "docs" / "results" / "spikes"
FILE = FOLDER / "results.json"
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
        for rule in _rules(config):
            for count in config.spikes:
                how = _settings(config, rule, count)
                place = f"{name}/{_key(rule)}/{count}"
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


# How the step of a spike is found: epsilon and decay, or None for constant steps of a given sum.
_Rule = Sequence[float] | None


def _rules(config: Any) -> list[_Rule]:
    return [*config["steps"], *([None] if config["total"] else [])]


def _key(rule: _Rule) -> str:
    return "spikes, constant sum" if rule is None else f"spikes {rule[0]:g} {rule[1]:g}"


def _label(rule: _Rule, total: float) -> str:
    if rule is None:
        return f"spikes, step {total:g} / spikes"
    return f"spikes, step {rule[0]:g} t^-{rule[1]:g}" if rule[1] else f"spikes, step {rule[0]:g}"


def _settings(config: Any, rule: _Rule, count: int) -> dict[str, Any]:
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
                images = noise.add_noise(noise_key, images, *with_noise, pictures)
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

    An iteration multiplies and adds each weight twice and divides once an input; a spike multiplies k weights with k
    activities, adds k of them for R, adds k to the activities scaled by a number each, and divides once. Scaling all
    activities by 1 / (1 + e) may be put off to the end, as one number. Drawing a spike is a search among n sums.
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
            "spike": (2 * units, 2 * units, 1, units, math.ceil(math.log2(inputs))),
        }
        for kind, counts in own.items():
            for quantity, count in zip(total[kind], counts, strict=True):
                total[kind][quantity] += positions * count
    return total


def _number(record: Mapping[str, Any], *place: Any) -> Any:
    return record["numbers"]["/".join(str(part) for part in place)]


def spikes_table(record: Mapping[str, Any]) -> str:
    """What the record holds, network by network."""
    config, parts = record["config"], []
    layered = ("kl", "certificate")
    for name in config["networks"]:
        rows = []
        curves = [("iterations", "iterations", config["iterations"])]
        curves += [(_key(rule), _label(rule, config["total"]), config["spikes"]) for rule in _rules(config)]
        for key, label, counts in curves:
            for count in counts:
                layers = _number(record, name, key, count, "layers")
                means = [", ".join(f"{value:.3f}" for value in layers[quantity]) for quantity in layered]
                rows.append((label, count, f"{100 * _number(record, name, key, count, 'accuracy'):.1f}", *means))
        head = ("code", "number", "accuracy, %", "KL of the layers, nats", "certificate, nats")
        parts.append(f"{name}:\n\n{table(rows, head)}")
        rows = [
            (c, f"{100 * _number(record, name, 'input spikes', c, 'accuracy'):.1f}") for c in config["input_spikes"]
        ]
        parts.append(f"{name}, the image replaced by spikes:\n\n{table(rows, ('spikes', 'accuracy, %'))}")
        rows = [
            (
                kind,
                code,
                *(
                    f"{100 * _number(record, name, f'{kind} {level:g}', code, 'accuracy'):.1f}"
                    for level in config["levels"]
                ),
            )
            for kind in config["noise"]
            for code in ("iterations", "spikes")
        ]
        if rows:
            label = f"{name} in noise, {config['noise_spikes']} spikes a layer, accuracy in %"
            parts.append(f"{label}:\n\n{table(rows, ('noise', 'code', *(f'level {v:g}' for v in config['levels'])))}")
        counts = _number(record, name, "operations")
        rows = [(kind, *(f"{value:,.0f}" for value in own.values())) for kind, own in counts.items()]
        parts.append(f"{name}, operations an image:\n\n{table(rows, ('one', *counts['spike']))}")
    return "\n\n".join(parts)


def digits_table() -> str:
    """Digits: the quick start asked with iterations and with spikes, and one that was trained with spikes."""
    asked = json.loads((FOLDER / "digits.json").read_text())
    trained = json.loads((FOLDER / "trained" / "results.json").read_text())
    iterations = f"{asked['iterations']} iterations"
    rows = [(iterations, iterations, f"{100 * asked['test_accuracy_iterations']:.1f}")]
    for count, accuracy in zip(asked["spikes"], asked["test_accuracy"], strict=True):
        rows.append((iterations, f"{count:,} spikes, step t^-0.75", f"{100 * accuracy:.1f}"))
    own = f"{trained['config']['model']['num_spikes']} spikes, step t^-0.5"
    rows.append((own, own, f"{100 * trained['test_accuracy']:.1f}"))
    return table(rows, ("trained with", "asked with", "test accuracy, %"))


@styled
def draw_spikes_accuracy(record: Mapping[str, Any]) -> Figure:
    """Accuracy against spikes and against iterations, one panel a network."""
    config = record["config"]
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    panels = np.ravel(figure.subplots(1, len(config["networks"]), sharey=True))
    for axes, name in zip(panels, config["networks"], strict=True):
        for rule in _rules(config):
            values = [100 * _number(record, name, _key(rule), count, "accuracy") for count in config["spikes"]]
            axes.plot(config["spikes"], values, marker="o", ms=4, label=_label(rule, config["total"]))
        values = [100 * _number(record, name, "iterations", count, "accuracy") for count in config["iterations"]]
        axes.plot(config["iterations"], values, color=BLACK, marker="s", ms=4, label="iterations")
        axes.set(title=name, xscale="log", xlabel="spikes, or iterations, of each layer", ylim=(0, 90))
        decades(axes.xaxis)
    panels[0].set_ylabel("test accuracy, %")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


@styled
def draw_settling() -> Figure:
    """The activities of six units over 3,000 spikes, for three rules of the step, and where `infer` ends."""
    keys = jax.random.split(jax.random.key(1), 3)
    x = normalize_patches(jax.random.uniform(keys[0], (30,)) ** 3)
    w = normalize_weights(jax.random.uniform(keys[1], (6, 30)) ** 3)
    spikes = draw_spikes(keys[2], x, 3000)
    optimum = np.asarray(infer(x, w, num_iters=2000))

    def step(h: jax.Array, at: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        h = spike_update(h, w, *at)
        return h, h

    figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
    rules = ((0.1, 0.0, "constant step 0.1"), (1.0, 0.5, "step 1 / √t"), (1.0, 0.75, "step 1 / t^0.75"))
    panels = figure.subplots(1, 3, sharey=True)
    for axes, (epsilon, decay, title) in zip(panels, rules, strict=True):
        steps = spike_steps(len(spikes), epsilon, decay)
        path = np.asarray(jax.lax.scan(step, jnp.full((6,), 1 / 6), (spikes, steps))[1])
        times = np.unique(np.geomspace(1, len(spikes), 90).astype(int))
        for unit, colour in enumerate(COLOURS):
            axes.plot(times, path[times - 1, unit], color=colour, lw=1)
            axes.axhline(optimum[unit], color=colour, lw=0.8, ls=":")
        axes.set(title=title, xscale="log", xlabel="spikes", xlim=(1, len(spikes)), ylim=(0, None))
        decades(axes.xaxis)
    panels[0].set_ylabel("activities h of six units; dotted: infer")
    return figure
