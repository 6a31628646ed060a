"""Settings that are gone, or that earlier versions did not have, so that configs written by those still load."""

import copy
from collections.abc import Mapping
from typing import Any

# By its name in the config: the value at which the setting did nothing; ANY: it did nothing unless another one did.
ANY = object()
RETIRED: dict[str, Any] = {
    "early.share": 0.0,
    "early.num_iters": ANY,
    "optimizer.average": 0.0,
    "loss.label_smoothing": 0.0,
    "command_buffers": "default",
    "model.normalization": "maps",
}

# By its name in the config: what a run did before it had the setting; lists, as in the files of runs.
ADDED: dict[str, Any] = {
    "augmentation.pad": 0,
    "augmentation.cutout": 0,
    "model.block_settings": [],
    "model.mixing_groups": [1],
    "model.num_spikes": 0,
    "model.spike_epsilon": 1.0,
    "model.spike_decay": 0.5,
    "model.input_spikes": 0,
}


def drop_retired(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without the settings that are gone, nested dictionaries in and out; `config` stays as it is.

    Args:
        config: all of a config, or some of its parts, for example {"model": ...}.

    Raises:
        ValueError: one of these settings at a value that did something, or acceleration = "power".
    """
    kept = _copied(config, "")
    model = kept.get("model", {})
    for settings in (model, *(model.get("block_settings") or ())):
        if isinstance(settings, Mapping) and settings.get("acceleration") == "power":
            raise ValueError(
                "acceleration = 'power' is gone: use 'multistep', which ends about where plain iterations do, or "
                "'adaptive', which comes closest to the optimum"
            )
    return kept


def as_of_today(config: Mapping[str, Any]) -> dict[str, Any]:
    """The whole config of a network as a run of today has it: without what is gone, with what came later.

    Raises:
        ValueError: as `drop_retired`.
    """
    kept = drop_retired(config)
    for name, value in ADDED.items():
        part, setting = name.split(".")
        kept.get(part, {}).setdefault(setting, copy.copy(value))
    return kept


def _copied(part: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in part.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            inner = _copied(value, f"{name}.")
            if inner or not value:  # a part of which nothing is left goes as well
                kept[key] = inner
        elif name not in RETIRED:
            kept[key] = value
        elif RETIRED[name] is not ANY and value != RETIRED[name]:
            raise ValueError(
                f"{name} = {value!r}, a setting that is gone: without it means {RETIRED[name]!r}; leave it out, or "
                "take the version of deepnmf_jax that the config is from"
            )
    return kept
