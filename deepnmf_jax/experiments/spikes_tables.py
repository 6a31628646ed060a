"""Tables and pictures of the experiment on spikes, from its record."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from deepnmf_jax.core.inference import infer
from deepnmf_jax.core.normalization import normalize_patches, normalize_weights
from deepnmf_jax.core.spiking import draw_spikes, spike_steps, spike_update
from deepnmf_jax.experiments.tables import ROOT, table
from deepnmf_jax.plotting import BLACK, COLOURS, WIDTH, decades, styled

FOLDER = ROOT / "docs" / "results" / "spikes"
FILE = FOLDER / "results.json"

# How the step of a spike is found: epsilon and decay, or None for constant steps of a given sum.
StepRule = Sequence[float] | None


def step_rules(config: Any) -> list[StepRule]:
    """The rules that a config of the experiment asks for."""
    return [*config["steps"], *([None] if config["total"] else [])]


def rule_key(rule: StepRule) -> str:
    """Its name in the record."""
    return "spikes, constant sum" if rule is None else f"spikes {rule[0]:g} {rule[1]:g}"


def noises(config: Any) -> list[tuple[str, float]]:
    """Kinds and levels of noise that a config asks for, after ("", 0.0), none; empty if it asks for none."""
    levels = [(kind, level) for kind, own in config["noise"].items() for level in own]
    return [("", 0.0), *levels] if levels else []


def noise_key(kind: str, level: float) -> str:
    """Its name in the record."""
    return f"{kind} {level:g}" if kind else "clean"


def rule_label(rule: StepRule, total: float) -> str:
    """Its name in tables and pictures."""
    if rule is None:
        return f"spikes, step {total:g} / spikes"
    return f"spikes, step {rule[0]:g} t^-{rule[1]:g}" if rule[1] else f"spikes, step {rule[0]:g}"


def _number(record: Mapping[str, Any], *place: Any) -> Any:
    return record["cells"]["/".join(str(part) for part in place)]


def _accuracy(record: Mapping[str, Any], *place: Any) -> str:
    """In %, with the deviation that so many images leave."""
    share, images = _number(record, *place, "accuracy"), record["config"]["images"]
    return f"{100 * share:.1f} ± {100 * math.sqrt(share * (1 - share) / images):.1f}"


def spikes_table(record: Mapping[str, Any]) -> str:
    """What the record holds, network by network."""
    config, parts = record["config"], []
    layered, codes = ("kl", "certificate"), ("iterations", "spikes")
    for name in config["networks"]:
        rows = []
        curves = [("iterations", "iterations", config["iterations"])]
        curves += [(rule_key(rule), rule_label(rule, config["total"]), config["spikes"]) for rule in step_rules(config)]
        for key, label, counts in curves:
            for count in counts:
                layers = _number(record, name, key, count, "layers")
                means = [", ".join(f"{value:.3f}" for value in layers[quantity]) for quantity in layered]
                rows.append((label, count, _accuracy(record, name, key, count), *means))
        head = ("code", "number", "accuracy, %", "KL of the layers, nats", "certificate, nats")
        parts.append(f"{name}:\n\n{table(rows, head)}")
        rows = [(count, _accuracy(record, name, "input spikes", count)) for count in config["input_spikes"]]
        parts.append(f"{name}, the image replaced by spikes:\n\n{table(rows, ('spikes', 'accuracy, %'))}")
        if noises(config):
            rows = [
                (
                    kind or "none",
                    f"{level:g}",
                    *(_accuracy(record, name, noise_key(kind, level), code) for code in codes),
                )
                for kind, level in noises(config)
            ]
            label = f"{name} in noise, {config['noise_spikes']} spikes a layer"
            parts.append(f"{label}:\n\n{table(rows, ('noise', 'level', *(f'{code}, %' for code in codes)))}")
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
        for rule in step_rules(config):
            values = [100 * _number(record, name, rule_key(rule), count, "accuracy") for count in config["spikes"]]
            axes.plot(config["spikes"], values, marker="o", ms=4, label=rule_label(rule, config["total"]))
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
