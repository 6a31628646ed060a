"""What `Dn2MFGL` allows its arguments to be; `fit` checks them before it looks at the data."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from deepnmf_jax.core.checks import check_choice, check_flag, check_integer, check_number, check_seed
from deepnmf_jax.decomposition.dn2mfgl.fit import INITS
from deepnmf_jax.decomposition.dn2mfgl.objective import ROBUST
from deepnmf_jax.decomposition.io.arrays import DTYPES
from deepnmf_jax.decomposition.updates.graph import EDGE_WEIGHTS, JOINS

MODES = ("well_posed", "released")


def check_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor's arguments by name, as Python's numbers. ValueError for one outside what it allows."""
    given = dict(arguments)
    for name, allowed in (
        ("mode", MODES),
        ("robust", ROBUST),
        ("init", INITS),
        ("join", (None, *JOINS)),
        ("edge_weights", (None, *EDGE_WEIGHTS)),
        ("dtype", (None, *DTYPES)),
    ):
        given[name] = check_choice(name, given[name], allowed)
    for name in ("normalize", "normalize_graph", "verbose"):
        if name != "normalize_graph" or given[name] is not None:
            given[name] = check_flag(name, given[name])
    given["layer_sizes"] = sizes_of(given["layer_sizes"])
    for name in ("n_neighbors", "n_init"):
        given[name] = check_integer(name, given[name], 1)
    given["random_state"] = check_seed("random_state", given["random_state"])
    for name in ("n_clusters", "max_iter"):
        if given[name] is not None:
            given[name] = check_integer(name, given[name], 1)
    for name in ("alpha", "beta", "nu"):
        if given[name] is not None:
            given[name] = check_number(name, given[name], 0)
    given["tol"] = check_number("tol", given["tol"], 0)
    for name in ("lam", "delta"):
        given[name] = check_number(name, given[name], 0, above=True)
    given["layer_weights"] = _checked_weights(given["layer_weights"], len(given["layer_sizes"]))
    return given


def _checked_weights(layer_weights: Any, layers: int) -> tuple[float, ...]:
    weights = tuple(check_number("each of layer_weights", weight, 0) for weight in weights_of(layer_weights, layers))
    if len(weights) != layers or weights[-1] == 0:
        raise ValueError(
            f"layer_weights = {layer_weights!r}; give one number for each of the {layers} layers, the last one above 0"
        )
    return weights


def sizes_of(layer_sizes: Any) -> tuple[int, ...]:
    """The layer sizes as a tuple; one number is one layer. ValueError for anything but whole numbers from 1."""
    sizes = np.ravel(np.asarray(layer_sizes, object))
    if not len(sizes):
        raise ValueError("layer_sizes is empty; give at least one layer, such as (100, 10)")
    return tuple(check_integer("each of layer_sizes", size, 1) for size in sizes)


def weights_of(layer_weights: Any, layers: int) -> tuple[float, ...]:
    """The weights of the structure terms of the layers; None: 0, ..., 0, 1."""
    return (
        (0.0,) * (layers - 1) + (1.0,) if layer_weights is None else tuple(np.ravel(np.asarray(layer_weights, object)))
    )
