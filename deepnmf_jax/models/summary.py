"""What a network consists of: shapes, parameters and operations, layer by layer."""

import functools
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from deepnmf_jax.layers import LocalMixing, NMFConv, NMFPool, NormalizedConv
from deepnmf_jax.models.blocks import BatchNorm


class Row(NamedTuple):
    """One layer: output shape for one image, and operations of its products, or spikes, in a forward pass."""

    path: str
    layer: str
    output: tuple[int, ...]
    groups: int
    parameters: int
    operations: int


def _operations(layer: nn.Module, kernel_entries: int, output: tuple[int, ...]) -> int:
    positions = math.prod(output[:-1])
    if isinstance(layer, NMFConv | NMFPool):
        if layer.num_spikes:  # a product and a sum a unit for R, as many for the new activity, which is scaled
            return 5 * positions * output[-1] * layer.num_spikes
        return 4 * positions * kernel_entries * layer.num_iters
    if isinstance(layer, NormalizedConv | LocalMixing):
        return 2 * positions * kernel_entries
    return 0


def _size(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def layer_rows(model: nn.Module, image_shape: tuple[int, int, int]) -> list[Row]:
    """The layers of a network for images (height, width, channels), in the order in which they are applied."""
    calls: list[tuple[nn.Module, tuple[int, ...]]] = []

    def record(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        result = call(*args, **kwargs)
        kinds = (NMFConv, NMFPool, NormalizedConv, LocalMixing, BatchNorm)
        if context.method_name == "__call__" and isinstance(context.module, kinds):
            calls.append((context.module, result.shape[1:]))
        return result

    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    with nn.intercept_methods(record):
        variables = jax.eval_shape(model.init, jax.random.key(0), images)
    rows = []
    for layer, output in calls:
        own = functools.reduce(lambda tree, name: tree.get(name, {}), layer.path, variables["params"])
        kernel = _size([own[name] for name in ("u", "kernel") if name in own])
        path, kind, groups = "/".join(layer.path), type(layer).__name__, getattr(layer, "feature_group_count", 1)
        rows.append(Row(path, kind, output, groups, _size(own), _operations(layer, kernel, output)))
    return _with_residuals(rows, variables["params"])


def _with_residuals(rows: list[Row], params: Any) -> list[Row]:
    """The rows, and behind the last row of each block that adds its input the numbers that it is multiplied by."""
    for block, own in params.items():
        if "skip" in own:
            last = max(i for i, row in enumerate(rows) if row.path.startswith(f"{block}/"))
            rows.insert(last + 1, Row(f"{block}/skip", "residual", rows[last].output, 1, _size(own["skip"]), 0))
    return rows


def summarize(model: nn.Module, image_shape: tuple[int, int, int]) -> str:
    """The layer table of a network for images (height, width, channels), with parameters and operations an image."""
    rows = layer_rows(model, image_shape)
    lines = [f"{'layer':<18}{'kind':<16}{'output':>16}{'groups':>8}{'parameters':>12}{'operations':>16}"]
    for r in rows:
        output = " x ".join(map(str, r.output))
        sizes = f"{r.groups:>8}{r.parameters:>12,}{r.operations:>16,}"
        lines.append(f"{r.path:<18}{r.layer:<16}{output:>16}{sizes}")
    total = f"{'total':<58}{sum(r.parameters for r in rows):>12,}{sum(r.operations for r in rows):>16,}"
    return "\n".join([*lines, total])
