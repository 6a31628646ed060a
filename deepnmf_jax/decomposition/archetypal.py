"""Archetypal analysis: A ~ Z W A, rows of Z and of W on the simplex (Cutler and Breiman 1994)."""

from typing import Any

from deepnmf_jax.decomposition.convex_nmf import Constraints, ConvexNMF


class ArchetypalAnalysis(ConvexNMF):
    """Samples as mixtures of archetypes D = W A, which are mixtures of samples: rows of Z (n, k) and W (k, n) sum to 1.

    Accelerated projected gradient with the exact projection on the simplex, from samples far apart (furthest sum).

    Args:
        nb_concepts: k; `n_components` is another name for it.
        device: as in `NMF`.
        tol: a fit ends when the objective falls by less than 0.01 tol ||A||^2 / 2 over ten sweeps.
        solver: "pgd", the only one.
        verbose: a progress bar in `fit`.
        n_components: k.
        max_iter: sweeps of `fit` and `encode`; None: 500 and 300.
        random_state: seed of the start.
        dtype: as in `NMF`.

    Raises:
        ValueError: an argument outside what it allows.
    """

    solvers: tuple[str, ...] = ("pgd",)

    def __init__(
        self,
        nb_concepts: int | None = None,
        device: Any = None,
        tol: float = 1e-4,
        solver: str = "pgd",
        verbose: bool = False,
        *,
        n_components: int | None = None,
        max_iter: int | None = None,
        random_state: int = 0,
        dtype: str | None = None,
    ) -> None:
        super().__init__(
            nb_concepts,
            device,
            tol,
            strict_convex=True,
            solver=solver,
            verbose=verbose,
            n_components=n_components,
            max_iter=max_iter,
            random_state=random_state,
            dtype=dtype,
        )

    @property
    def _constraints(self) -> Constraints:
        return super()._constraints._replace(simplex_z=True, simplex_w=True)

    def init_random_z(self, A: Any, key: Any = None) -> Any:
        """Random codes (n, k) on the simplex, of the kind of A."""
        z = super().init_random_z(A, key)
        return z / z.sum(1)[:, None]
