"""What is minimised: divergence of Z D from A plus penalties, in scikit-learn's scaling. All functions are pure.

    divergence(A, Z D) + l1_z sum Z + 0.5 l2_z sum Z^2 + l1_d sum D + 0.5 l2_d sum D^2

A (n, p) is dense, or sparse as `Nonzeros` (`BCOO` too for the squared error), Z^T (k, n), D (k, p), weights (n, p) or
None. The products with A keep Z transposed, because all updates run along its rows.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import numpy as np
from jax import Array

from deepnmf_jax.decomposition.io.host import namespace
from deepnmf_jax.decomposition.io.nonzeros import Matrix, Nonzeros, Sparse
from deepnmf_jax.decomposition.io.units import power
from deepnmf_jax.decomposition.updates.beta_divergence import beta_divergence_of, beta_terms
from deepnmf_jax.decomposition.updates.linear_algebra import product

# Where the squared error is below this share of ||A||^2, the Gram form has lost its digits in float32.
CANCELLATION = 1e-3
# The largest penalty of data that has been brought to a unit near 1: what is beyond has no square in float32.
LARGEST_PENALTY = 2.0**50


class Penalties(NamedTuple):
    """Weights of the penalties, scalars: L1 and L2 of the codes, L1 and L2 of the dictionary."""

    l1_z: Array | float = 0.0
    l2_z: Array | float = 0.0
    l1_d: Array | float = 0.0
    l2_d: Array | float = 0.0


class Half(NamedTuple):
    """One half of a factorization, the other factor being fixed: X (k, m) is sought, with X^T F near A.

    f (k, q), a (m, q) dense or sparse, l1 and l2 the penalties of X, weights (m, q) or None. For the codes X = Z^T and
    F = D; for the dictionary X = D, F = Z^T, and A is transposed.
    """

    f: Array
    a: Matrix
    l1: Array | float
    l2: Array | float
    weights: Array | None = None

    def gram(self) -> tuple[Array, Array]:
        """C = F A^T - l1 (k, m) and B = F F^T + l2 (k, k): minimised is 0.5 <X, B X> - <C, X> where no weights are."""
        b, c = product(self.f, self.f.T), product(self.f, self.a.T)
        return c - self.l1, b + self.l2 * namespace(b).eye(len(b), dtype=b.dtype)

    def has_gram(self, beta: float) -> bool:
        """Whether the divergence is a function of the Gram matrices, which are cheaper than A - X^T F."""
        return beta == 2 and self.weights is None and not self.prefers_residual()

    def prefers_residual(self) -> bool:
        """Whether A - X^T F costs less than Gram matrices: dense A, and more atoms than features."""
        return not isinstance(self.a, Sparse) and has_many_atoms(self.a.shape, self.f.shape[0])


class Target(NamedTuple):
    """What Z D shall be near: a (n, p) dense or sparse, the penalties, weights (n, p) or None."""

    a: Matrix
    penalties: Penalties = Penalties()
    weights: Array | None = None

    def for_codes(self, d: Array) -> Half:
        """The half in which Z^T is sought for the dictionary D (k, p)."""
        return Half(d, self.a, self.penalties.l1_z, self.penalties.l2_z, self.weights)

    def for_dictionary(self, zt: Array) -> Half:
        """The half in which D is sought for the codes Z^T (k, n)."""
        flipped = None if self.weights is None else self.weights.T
        return Half(zt, self.a.T, self.penalties.l1_d, self.penalties.l2_d, flipped)


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
    exponents = (whole - row, 2 * (whole - row), row, 2 * row)
    return Penalties(
        *(
            at_unit(cast(float, given), power(2.0, e - beta * whole), scale)
            for given, e in zip(penalties, exponents, strict=True)
        )
    )


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
    """The four penalty terms, a scalar."""
    xp = namespace(zt, d)
    l1_z, l2_z, l1_d, l2_d = penalties
    return l1_z * xp.sum(xp.abs(zt)) + 0.5 * l2_z * xp.sum(zt**2) + l1_d * xp.sum(xp.abs(d)) + 0.5 * l2_d * xp.sum(d**2)


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
    """Divergence plus penalties, a scalar."""
    return divergence(zt, d, target, beta) + penalty(zt, d, target.penalties)


def feasible_part(x: Array, gradient: Array) -> Array:
    """The gradient where x > 0, its negative part where x = 0: zero exactly at a minimum over x >= 0."""
    xp = namespace(x, gradient)
    return xp.where(x > 0, gradient, xp.minimum(gradient, 0))


def projected_gradient(x: Array, c: Array, b: Array) -> Array:
    """`feasible_part` of the gradient B X - C (see `Half.gram`). Shape of x."""
    return feasible_part(x, product(b, x) - c)


def gradient_of(half: Half, beta: float = 2.0) -> Callable[[Array], Array]:
    """Projected gradient of the objective with respect to X (k, m): zero exactly at the best X of this half."""
    f, a, l1, l2, weights = half
    if half.has_gram(beta):
        c, b = half.gram()
        return lambda x: projected_gradient(x, c, b)

    def gradient(x: Array) -> Array:
        if beta == 2:
            rest = product(x.T, f) - cast(Array, a)
            return feasible_part(x, product(f, (rest if weights is None else weights * rest).T) + l1 + l2 * x)
        above, below = beta_terms(cast(Array | Nonzeros, a), x.T, f, beta, weights)
        return feasible_part(x, (below - above).T + l1 + l2 * x)

    return gradient


def projected_gradient_norm(zt: Array, d: Array, target: Target, beta: float = 2.0) -> Array:
    """2-norm of the projected gradient with respect to both factors, a scalar."""
    of_codes = gradient_of(target.for_codes(d), beta)(zt)
    of_dictionary = gradient_of(target.for_dictionary(zt), beta)(d)
    xp = namespace(of_codes, of_dictionary)
    return xp.sqrt(xp.sum(of_codes**2) + xp.sum(of_dictionary**2))
