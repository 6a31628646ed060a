"""alpha, beta, nu and the graph without labels: one rule for all data. docs/dn2mfgl.md has the measurements."""

from typing import NamedTuple

from deepnmf_jax.decomposition.graphs import Neighbors, mutual_share

# alpha for n samples, divided by n: beyond the product lam alpha, only this quotient weighs structure against data,
# since at the best scale the structure terms grow like sqrt(lam alpha n) and the data term like n.
WEAK, STRONG = 0.1, 200.0
# With fewer samples per component than this many times K, much of a sample's neighbourhood lies in other groups.
CROWDED = 3.0


class Choice(NamedTuple):
    """The structure terms of a fit: strengths, graph (`knn_graph`), and why."""

    alpha: float
    beta: float
    nu: float
    join: str
    edge_weights: str
    normalize: bool
    reason: str


def choose_structure(neighbors: Neighbors, components: int) -> Choice:
    """The rule of alpha = beta = nu = None, from sizes alone.

    A group of s samples can fill a neighbourhood of K only if s is well above K. So alpha is strong where there are at
    least 3 K samples per component of the last layer, and weak below. beta = nu = 0, which is always bounded; the
    graph has union edges with local scaling, normalised by degrees.

    Args:
        neighbors: of all n samples, K each.
        components: r_l, the width of the codes.
    """
    n, k = neighbors.indices.shape
    room = n / components / k
    strong = room >= CROWDED
    reason = (
        f"{room:.1f} K samples per component, {'at least' if strong else 'fewer than'} {CROWDED:g} K: "
        f"{'strong' if strong else 'weak'} structure; {mutual_share(neighbors):.2f} of the neighbours are mutual"
    )
    return Choice((STRONG if strong else WEAK) * n, 0.0, 0.0, "union", "local_scaling", True, reason)
