"""What `Dn2MFGL` allows its arguments to be."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from deepnmf_jax.core.checks import check_choice, check_integer
from deepnmf_jax.decomposition.dn2mfgl.fit import INITS
from deepnmf_jax.decomposition.dn2mfgl.graph import EDGE_WEIGHTS, JOINS
from deepnmf_jax.decomposition.dn2mfgl.objective import ROBUST
from deepnmf_jax.decomposition.io.arrays import DTYPES

MODES = ("well_posed", "released")


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """ValueError for an argument outside what it allows; `arguments` are those of the constructor, by name."""
    for name, allowed in (
        ("mode", MODES),
        ("robust", ROBUST),
        ("init", INITS),
        ("join", (None, *JOINS)),
        ("edge_weights", (None, *EDGE_WEIGHTS)),
        ("normalize_graph", (None, True, False)),
        ("dtype", (None, *DTYPES)),
    ):
        check_choice(name, arguments[name], allowed)
    sizes = sizes_of(arguments["layer_sizes"])
    for name, smallest in (("n_neighbors", 1), ("n_init", 1), ("random_state", 0)):
        check_integer(name, arguments[name], smallest)
    for name in ("n_clusters", "max_iter"):
        if arguments[name] is not None:
            check_integer(name, arguments[name], 1)
    for name in ("alpha", "beta", "nu"):
        if arguments[name] is not None:
            _check_number(name, arguments[name])
    _check_number("tol", arguments["tol"])
    for name in ("lam", "delta"):
        _check_number(name, arguments[name], positive=True)
    weights = weights_of(arguments["layer_weights"], len(sizes))
    if len(weights) != len(sizes) or not all(np.isfinite(w) and w >= 0 for w in weights) or weights[-1] <= 0:
        raise ValueError(
            f"layer_weights = {arguments['layer_weights']!r}; give one number of at least 0 for each of the "
            f"{len(sizes)} layers, the last one above 0"
        )


def sizes_of(layer_sizes: Any) -> tuple[int, ...]:
    """The layer sizes as a tuple; one number is one layer. ValueError for anything but whole numbers from 1."""
    sizes = np.ravel(np.asarray(layer_sizes, object))
    if not len(sizes):
        raise ValueError("layer_sizes is empty; give at least one layer, such as (100, 10)")
    for size in sizes:
        check_integer("each of layer_sizes", size, 1)
    return tuple(int(size) for size in sizes)


def weights_of(layer_weights: Any, layers: int) -> tuple[float, ...]:
    """The weights of the structure terms of the layers; None: 0, ..., 0, 1."""
    return (0.0,) * (layers - 1) + (1.0,) if layer_weights is None else tuple(float(w) for w in layer_weights)


def _check_number(name: str, value: Any, positive: bool = False) -> None:
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and np.isfinite(value)
    if not number or value < 0 or (positive and value == 0):
        raise ValueError(f"{name} = {value!r}, but it must be a number {'above' if positive else 'of at least'} 0")
