"""What is minimised: divergence of Z D from A plus penalties, in scikit-learn's scaling. All functions are pure.

    divergence(A, Z D) + l1_z sum Z + 0.5 l2_z sum Z^2 + l1_d sum D + 0.5 l2_d sum D^2
    + 0.5 ortho_z sum_{i!=j} z_i z_j + 0.5 ortho_d sum_{i!=j} d_i d_j + 0.5 strength sum_j ||d_j||^2 z_j^T L z_j

z_j the columns of Z and d_j the rows of D, L the Laplacian of a graph over the samples. A (n, p) is dense, or sparse as
`Nonzeros` (`BCOO` too for the squared error), Z^T (k, n), D (k, p), weights (n, p) or None. The products with A keep Z
transposed, because all updates run along its rows.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from deepnmf_jax.decomposition.io.host import namespace
from deepnmf_jax.decomposition.io.nonzeros import Matrix, Nonzeros, Sparse
from deepnmf_jax.decomposition.io.units import power
from deepnmf_jax.decomposition.updates.beta_divergence import beta_divergence_of, beta_terms
from deepnmf_jax.decomposition.updates.graph import Graph, laplacian_energies, times_similarity
from deepnmf_jax.decomposition.updates.linear_algebra import product

# Where the squared error is below this share of ||A||^2, the Gram form has lost its digits in float32.
CANCELLATION = 1e-3
# The largest penalty of data that has been brought to a unit near 1: what is beyond has no square in float32.
LARGEST_PENALTY = 2.0**50


class Penalties(NamedTuple):
    """Weights of the penalties, scalars: L1 and L2 of the codes, L1 and L2 of the dictionary, overlap of the codes of
    different atoms and of different atoms (None: not there, and nothing is compiled for them)."""

    l1_z: Array | float = 0.0
    l2_z: Array | float = 0.0
    l1_d: Array | float = 0.0
    l2_d: Array | float = 0.0
    ortho_z: Array | float | None = None
    ortho_d: Array | float | None = None


class Smoothness(NamedTuple):
    """That neighbours have near codes: the graph over the samples, and one strength (), or one a row of X (k, 1)."""

    graph: Graph
    strength: Array | float

    def slope(self, x: Array) -> Array:
        """strength X L (k, n), the gradient of 0.5 strength tr(X L X^T) with respect to X (k, n)."""
        return self.strength * (x * self.graph.degrees - times_similarity(x, self.graph))

    def curvature(self) -> Array:
        """2 strength S 1, as row (1, n) or (k, n): a diagonal matrix that is never below strength L."""
        return 2 * self.strength * self.graph.degrees


class Half(NamedTuple):
    """One half of a factorization, the other factor being fixed: X (k, m) is sought, with X^T F near A.

    f (k, q), a (m, q) dense or sparse, l1 and l2 the penalties of X (l2 also one a row, (k, 1)), weights (m, q) or
    None. For the codes X = Z^T and F = D; for the dictionary X = D, F = Z^T, and A is transposed.

    ortho: of the overlaps of different rows of X. free (k, m): whether each entry of X may change; None: all may.
    smooth: a graph over the columns of X. made: F A^T (k, m) and F F^T (k, k), where they stand for A and F, which are
    None then.
    """

    f: Array
    a: Matrix
    l1: Array | float
    l2: Array | float
    weights: Array | None = None
    ortho: Array | float | None = None
    free: Array | None = None
    smooth: Smoothness | None = None
    made: tuple[Array, Array] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(k, m) of X."""
        return self.made[0].shape if self.made is not None else (self.f.shape[0], self.a.shape[0])  # type: ignore[return-value]

    @property
    def dtype(self) -> Any:
        """That of X."""
        return self.f.dtype if self.made is None else self.made[0].dtype

    @property
    def plain(self) -> bool:
        """Whether there is nothing but data, weights and two scalar penalties."""
        return self.ortho is None and self.free is None and self.smooth is None and np.ndim(self.l2) == 0

    def products(self) -> tuple[Array, Array]:
        """F A^T (k, m) and F F^T (k, k)."""
        return self.made or (product(self.f, self.a.T), product(self.f, self.f.T))

    def with_products(self) -> "Half":
        """The half of the squared error without weights whose products with A are made: nothing sparse is left."""
        c, b = self.products()
        return self._replace(f=None, a=None, made=(jnp.asarray(c), jnp.asarray(b)))  # type: ignore[arg-type]

    def gram(self) -> tuple[Array, Array]:
        """C = F A^T - l1 (k, m) and B = F F^T + l2 (k, k): minimised is 0.5 <X, B X> - <C, X> where no weights are.

        `ortho` is off the diagonal of B; `smooth` is in neither.
        """
        c, b = self.products()
        one = namespace(b).eye(len(b), dtype=b.dtype)
        b = b + self.l2 * one
        return c - self.l1, b if self.ortho is None else b + self.ortho * (1 - one)

    def pull(self, x: Array) -> Array:
        """What the quadratic penalties pull down with: the positive part of their gradient at X (k, m)."""
        pull = self.l2 * x
        if self.ortho is not None:
            pull = pull + self.ortho * (namespace(x).sum(x, axis=0, keepdims=True) - x)
        return pull if self.smooth is None else pull + self.smooth.strength * self.smooth.graph.degrees * x

    def push(self, x: Array) -> Array | None:
        """The negative part of that gradient, of the neighbours; None without a graph."""
        return None if self.smooth is None else self.smooth.strength * times_similarity(x, self.smooth.graph)

    def slope(self, x: Array) -> Array:
        """Gradient of the quadratic penalties at X (k, m)."""
        push = self.push(x)
        return self.pull(x) if push is None else self.pull(x) - push

    def moved(self, x: Array, new: Array) -> Array:
        """`new` where X (k, m) may change, else X."""
        return new if self.free is None else namespace(x).where(self.free, new, x)

    def has_gram(self, beta: float) -> bool:
        """Whether the divergence is a function of the Gram matrices, which are cheaper than A - X^T F."""
        return beta == 2 and self.weights is None and not self.prefers_residual()

    def prefers_residual(self) -> bool:
        """Whether A - X^T F costs less than Gram matrices: dense A, and more atoms than features."""
        if self.made is not None or not self.plain or isinstance(self.a, Sparse):
            return False
        return has_many_atoms(self.a.shape, self.f.shape[0])


class Target(NamedTuple):
    """What Z D shall be near: a (n, p) dense or sparse, the penalties, weights (n, p) or None.

    free (k, p): whether each entry of D may change; None: all may. smooth: a graph over the samples.
    """

    a: Matrix
    penalties: Penalties = Penalties()
    weights: Array | None = None
    free: Array | None = None
    smooth: Smoothness | None = None

    def for_codes(self, d: Array) -> Half:
        """The half in which Z^T is sought for the dictionary D (k, p)."""
        penalties, smooth = self.penalties, self.smooth
        if smooth is not None:
            smooth = smooth._replace(strength=smooth.strength * namespace(d).sum(d**2, axis=1)[:, None])
        return Half(d, self.a, penalties.l1_z, penalties.l2_z, self.weights, ortho=penalties.ortho_z, smooth=smooth)

    def for_dictionary(self, zt: Array) -> Half:
        """The half in which D is sought for the codes Z^T (k, n)."""
        flipped = None if self.weights is None else self.weights.T
        penalties, smooth = self.penalties, self.smooth
        l2 = penalties.l2_d
        if smooth is not None:
            l2 = l2 + smooth.strength * laplacian_energies(zt, smooth.graph)[:, None]
        return Half(zt, self.a.T, penalties.l1_d, l2, flipped, ortho=penalties.ortho_d, free=self.free)


def scaled_penalties(alpha_w: float, alpha_h: float | str, l1_ratio: float, n: int, p: int) -> Penalties:
    """scikit-learn's alpha_W, alpha_H ("same": alpha_W) and l1_ratio for n samples and p features."""
    alpha_h = alpha_w if alpha_h == "same" else float(alpha_h)
    return Penalties(
        alpha_w * l1_ratio * p, alpha_w * (1 - l1_ratio) * p, alpha_h * l1_ratio * n, alpha_h * (1 - l1_ratio) * n
    )


def rescaled(penalties: Penalties, scale: float, beta: float = 2.0, of_dictionary: float | None = None) -> Penalties:
    """Penalties of the problem with A / scale, equal to the old one up to scale^beta.

    The dictionary is divided by the root of `of_dictionary`, the codes by what is left of `scale`. None: `scale`.

    Raises:
        ValueError: one of them is beyond `LARGEST_PENALTY` then.
    """
    whole, row = math.log2(scale), 0.5 * math.log2(scale if of_dictionary is None else of_dictionary)
    exponents = (whole - row, 2 * (whole - row), row, 2 * row, 2 * (whole - row), 2 * row)
    found: list[Any] = []
    for given, exponent in zip(penalties, exponents, strict=True):
        factor = power(2.0, exponent - beta * whole)
        found.append(None if given is None else at_unit(cast(float, given), factor, scale))
    return Penalties(*found)


def at_unit(given: float, factor: float, scale: float) -> float:
    """A penalty for data divided by `scale`. ValueError where it is so far above the data that nothing is left."""
    found = given * factor if given else 0.0
    if found > LARGEST_PENALTY:
        raise ValueError(
            f"a penalty (times samples or features) of {given:.3g} on data of the size of {scale:.0e} is {found:.0e} "
            f"times as large as on data of 1, and leaves nothing of the factors: divide the data by {scale:.0e}, or "
            "lower the penalty"
        )
    return found


def penalty(zt: Array, d: Array, penalties: Penalties) -> Array:
    """The penalty terms, a scalar."""
    xp = namespace(zt, d)
    l1_z, l2_z, l1_d, l2_d, *ortho = penalties
    terms = l1_z * xp.sum(xp.abs(zt)) + 0.5 * l2_z * xp.sum(zt**2)
    terms = terms + l1_d * xp.sum(xp.abs(d)) + 0.5 * l2_d * xp.sum(d**2)
    for strength, x in zip(ortho, (zt, d), strict=True):
        if strength is not None:
            terms = terms + 0.5 * strength * xp.sum(x * (xp.sum(x, axis=0) - x))
    return terms


def beside_divergence(zt: Array, d: Array, target: Target) -> Array:
    """All terms but the divergence: penalties, and that neighbours have near codes. A scalar."""
    terms, smooth = penalty(zt, d, target.penalties), target.smooth
    if smooth is None:
        return terms
    energies = laplacian_energies(zt, smooth.graph)
    return terms + 0.5 * smooth.strength * namespace(d, energies).sum(energies * (d**2).sum(axis=1))


def has_many_atoms(shape: tuple[int, ...], k: int) -> bool:
    """Whether k atoms are so many that products with A, of shape (n, p), cost less than k x k Gram matrices."""
    n, p = shape
    return k * (n + p) > 2 * n * p


def square_sum(a: Matrix) -> Array:
    """Sum of the squares of the entries of A, dense or sparse."""
    return namespace(a).sum((a.data if isinstance(a, Sparse) else a) ** 2)


def squared_error(a: Matrix, zt: Array, d: Array) -> Array:
    """0.5 ||A - Z D||^2 by Gram matrices; where that cancels and A is dense, by the difference itself."""
    xp = namespace(a, zt, d)

    def exact() -> Array:
        return 0.5 * square_sum(cast(Array, a) - product(zt.T, d))

    if not isinstance(a, Sparse) and has_many_atoms(a.shape, zt.shape[0]):
        return exact()
    m, n = product(zt, a), product(zt, zt.T)
    total = square_sum(a)
    gram = 0.5 * xp.maximum(total - 2 * xp.sum(m * d) + xp.sum(n * product(d, d.T)), 0)
    if isinstance(a, Sparse):
        return gram
    if xp is np:
        return exact() if gram < CANCELLATION * total else gram
    return jax.lax.cond(gram < CANCELLATION * total, exact, lambda: gram)


def divergence(zt: Array, d: Array, target: Target, beta: float = 2.0) -> Array:
    """Beta divergence of Z D from A, a scalar; entries of weight 0 do not count."""
    if beta == 2 and target.weights is None:
        return squared_error(target.a, zt, d)
    return beta_divergence_of(cast(Array | Nonzeros, target.a), zt.T, d, beta, target.weights)


def objective(zt: Array, d: Array, target: Target, beta: float = 2.0) -> Array:
    """Divergence plus all other terms, a scalar."""
    return divergence(zt, d, target, beta) + beside_divergence(zt, d, target)


def feasible_part(x: Array, gradient: Array) -> Array:
    """The gradient where x > 0, its negative part where x = 0: zero exactly at a minimum over x >= 0."""
    xp = namespace(x, gradient)
    return xp.where(x > 0, gradient, xp.minimum(gradient, 0))


def gradient_of(half: Half, beta: float = 2.0) -> Callable[[Array], Array]:
    """Projected gradient of the objective with respect to X (k, m): zero exactly at the best X of this half."""
    f, a, l1, _, weights = half[:5]
    gram = half.gram() if half.has_gram(beta) else None

    def gradient(x: Array) -> Array:
        if gram is not None:
            slope = product(gram[1], x) - gram[0]
            return slope if half.smooth is None else slope + half.smooth.slope(x)
        if beta == 2:
            rest = product(x.T, f) - cast(Array, a)
            return product(f, (rest if weights is None else weights * rest).T) + l1 + half.slope(x)
        above, below = beta_terms(cast(Array | Nonzeros, a), x.T, f, beta, weights)
        return (below - above).T + l1 + half.slope(x)

    def projected(x: Array) -> Array:
        part = feasible_part(x, gradient(x))
        return part if half.free is None else namespace(part).where(half.free, part, 0)

    return projected


def projected_gradient_norm(zt: Array, d: Array, target: Target, beta: float = 2.0) -> Array:
    """2-norm of the projected gradient with respect to both factors, a scalar."""
    of_codes = gradient_of(target.for_codes(d), beta)(zt)
    of_dictionary = gradient_of(target.for_dictionary(zt), beta)(d)
    xp = namespace(of_codes, of_dictionary)
    return xp.sqrt(xp.sum(of_codes**2) + xp.sum(of_dictionary**2))
