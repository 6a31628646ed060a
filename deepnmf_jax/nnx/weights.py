"""Weights from Linen to NNX and back: the modules have the same fields, and their variables the same names."""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx, traverse_util

import deepnmf_jax.layers as linen_layers
from deepnmf_jax import models
from deepnmf_jax.core.patches import has_axes
from deepnmf_jax.nnx import layers, networks

LAYERS = ("NMFDense", "NMFConv", "NMFPool", "LocalMixing", "NormalizedConv", "PatchWhitening")
NETWORKS = ("CNN", "CNMF", "CNN1x1", "CNMF1x1", "Network")
# From the class of one interface to that of the other; a class of a user's own counts as the first that it inherits.
TO_NNX: dict[type, type] = {
    **{getattr(linen_layers, name): getattr(layers, name) for name in LAYERS},
    **{getattr(models, name): getattr(networks, name) for name in NETWORKS},
}
TO_LINEN = {nnx_class: linen_class for linen_class, nnx_class in TO_NNX.items()}


def from_linen(
    module: nn.Module,
    variables: Mapping[str, Any],
    *,
    image_shape: tuple[int, int, int] | None = None,
    rngs: nnx.Rngs | None = None,
) -> Any:
    """The NNX module with the fields of a Linen one of this package, and with its weights.

    Args:
        module: a layer or a network.
        variables: of the module, "params" and, where it has any, "batch_stats", as `init` gives them.
        image_shape: of a network, (height, width, channels) of the images that its variables are for.
        rngs: gives the keys of spikes (stream "spikes"), if the module is to have a stream of its own.

    Returns:
        The module of `deepnmf_jax.nnx`; a network in training mode, as NNX's are: call `eval()` before predicting.

    Raises:
        ValueError: another module, a network without `image_shape`, variables that are not those of the module.
    """
    found = _other(module, TO_NNX, "a Linen module")
    settings = {each.name: getattr(module, each.name) for each in fields(found) if hasattr(module, each.name)}
    if issubclass(found, networks.Network):
        if image_shape is None:
            raise ValueError("image_shape = None; give (height, width, channels) of the network's images")
        settings["image_shape"] = image_shape
    elif found is not layers.PatchWhitening:
        settings["in_features"] = _in_features(module, variables)
        if issubclass(found, layers.InputsAndOutputs):
            settings["out_features"] = module.features
    if found is not layers.PatchWhitening:
        settings["rngs"] = nnx.Rngs(params=0) if rngs is None else nnx.Rngs(params=0, spikes=rngs.spikes())
    made = found(**settings)
    _set_variables(made, variables)
    return made


def to_linen(module: nnx.Module) -> tuple[nn.Module, dict[str, Any]]:
    """The Linen module with the fields of an NNX one of this package, and its variables.

    Returns:
        The module, and {"params": ..., "batch_stats": ...} as its `apply` takes them, "batch_stats" where it has any.

    Raises:
        ValueError: another module.
    """
    found = _other(module, TO_LINEN, "an NNX module")
    settings = {each.name: getattr(module, each.name) for each in fields(found) if hasattr(module, each.name)}
    if isinstance(module, layers.InputsAndOutputs):
        settings["features"] = module.out_features
    kinds = {"params": nnx.Param, "batch_stats": nnx.BatchStat}
    variables = {name: nnx.to_pure_dict(nnx.state(module, kind)) for name, kind in kinds.items()}
    return found(**settings), {name: values for name, values in variables.items() if values or name == "params"}


def load_pretrained(name: str) -> tuple[networks.Network, models.Pretrained]:
    """A trained network of the package as an NNX module, in evaluation mode.

    Args:
        name: one of `deepnmf_jax.pretrained_names()`, for example "cnmf_1x1".

    Returns:
        The network, and what `deepnmf_jax.load_pretrained` gives: `prepare` for images, `class_names`, `results`.

    Raises:
        ValueError: an unknown name; a file that is damaged, or not the one that was published (SHA-256).
    """
    trained = models.load_pretrained(name)
    network: networks.Network = from_linen(trained.model, trained.variables, image_shape=trained.image_shape)
    network.eval()
    return network, trained


def _other(module: object, classes: Mapping[type, type], what: str) -> Any:
    for kind in type(module).__mro__:
        if kind in classes:
            return classes[kind]
    raise ValueError(f"module is of type {type(module).__name__}; give {what} of deepnmf_jax: {', '.join(LAYERS)}, "
                     f"{', '.join(NETWORKS)}")  # fmt: skip


def _in_features(module: Any, variables: Mapping[str, Any]) -> int:
    """Channels of the input of a Linen layer, from the shapes of its parameters."""
    shapes = {name: jnp.shape(value) for name, value in variables.get("params", {}).items()}
    try:
        if isinstance(module, linen_layers.LocalMixing):
            return shapes["bias"][0]
        if isinstance(module, linen_layers.NMFPool):
            return shapes["u"][0]
        n = shapes["u"][1] if "u" in shapes else shapes["kernel"][1]
    except (KeyError, IndexError) as error:
        raise ValueError(f"variables have params of the shapes {shapes}, which are not those of {module!r}") from error
    if isinstance(module, linen_layers.NMFDense):
        return n
    kernel = module.kernel_size
    return n * module.feature_group_count // math.prod(kernel if has_axes(kernel) else (kernel,))


def _set_variables(module: nnx.Module, variables: Mapping[str, Any]) -> None:
    """ValueError where names or shapes are not those of the module."""
    given: dict[tuple[str, ...], Any] = {}
    for part in ("params", "batch_stats"):
        given |= traverse_util.flatten_dict(dict(variables.get(part, {})))
    state = nnx.state(module, (nnx.Param, nnx.BatchStat))
    own = traverse_util.flatten_dict(nnx.to_pure_dict(state))
    shapes = [{"/".join(path): jnp.shape(value) for path, value in flat.items()} for flat in (given, own)]
    if shapes[0] != shapes[1]:
        differing = sorted(name for name in {*shapes[0], *shapes[1]} if shapes[0].get(name) != shapes[1].get(name))
        names = ", ".join(f"{name}: {shapes[0].get(name)} for {shapes[1].get(name)}" for name in differing[:4])
        raise ValueError(f"variables are not those of the module: {names}")
    nnx.replace_by_pure_dict(state, traverse_util.unflatten_dict(jax.tree.map(jnp.asarray, given)))
    nnx.update(module, state)
