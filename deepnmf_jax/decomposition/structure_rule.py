"""alpha, beta, nu and the graph without labels: one rule for all data."""

from typing import NamedTuple

from deepnmf_jax.decomposition.graphs import Neighbors, mutual_share

ALPHA = 10.0


class Choice(NamedTuple):
    """The structure terms of a fit: strengths, graph (`knn_graph`), and why."""

    alpha: float
    beta: float
    nu: float
    join: str
    edge_weights: str
    normalize: bool
    reason: str


def choose_structure(neighbors: Neighbors) -> Choice:
    """The rule of alpha = beta = nu = None."""
    share = mutual_share(neighbors)
    return Choice(ALPHA, 0.0, 0.0, "union", "local_scaling", True, f"{share:.2f} of the neighbours are mutual")
