"""What `Dn2MFGL` allows its arguments to be; `fit` checks them before it looks at the data."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from deepnmf_jax.core.checks import check_choice, check_integer, check_number
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
            check_number(name, arguments[name], 0)
    check_number("tol", arguments["tol"], 0)
    for name in ("lam", "delta"):
        check_number(name, arguments[name], 0, above=True)
    weights = weights_of(arguments["layer_weights"], len(sizes))
    for weight in weights:
        check_number("each of layer_weights", weight, 0)
    if len(weights) != len(sizes) or weights[-1] == 0:
        raise ValueError(
            f"layer_weights = {arguments['layer_weights']!r}; give one number for each of the {len(sizes)} layers, the "
            "last one above 0"
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
    return (
        (0.0,) * (layers - 1) + (1.0,) if layer_weights is None else tuple(np.ravel(np.asarray(layer_weights, object)))
    )
