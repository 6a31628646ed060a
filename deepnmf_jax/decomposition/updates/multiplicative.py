"""Multiplicative rules: of Lee and Seung, for every beta divergence, and for data of any sign.

They never leave an exact zero, so that none may come from underflow alone: what falls below the smallest normal number
stays there and can grow again. Shapes as in `objective.Half`.
"""

from collections.abc import Callable
from typing import cast

import jax.numpy as jnp
from jax import Array

from deepnmf_jax.decomposition.io.nonzeros import Nonzeros
from deepnmf_jax.decomposition.updates.beta_divergence import beta_terms
from deepnmf_jax.decomposition.updates.linear_algebra import product
from deepnmf_jax.decomposition.updates.objective import Half

NEWTON_STEPS = 8


def multiplicative_step(half: Half, beta: float = 2.0, inner: int = 1) -> Callable[[Array], Array]:
    """X -> X after `inner` multiplicative updates; for beta = 2 without weights products with A are made once."""
    squared = beta == 2 and half.weights is None
    if squared:
        c, b = half.products()

    def steps(x: Array) -> Array:
        for _ in range(inner):
            new = quadratic_step(x, c, b, half) if squared else beta_step(x, half, beta)
            x = half.moved(x, new)
        return x

    return steps


def above_underflow(x: Array, above: Array, new: Array) -> Array:
    """`new`, no smaller than the smallest normal number where x and the numerator `above` of its factor are positive.

    In float32 a factor of 0.9 a sweep reaches that number after 830 sweeps; 0 would stay 0 for ever.
    """
    return jnp.where((x > 0) & (above > 0), jnp.maximum(new, jnp.finfo(x.dtype).tiny), new)


def quadratic_step(x: Array, c: Array, b: Array, half: Half) -> Array:
    """X <- X * C / (B X + l1 + l2 X) for non-negative C = F A^T and B = F F^T, penalties not yet in them.

    Where the denominator is 0 so is X or C, and X becomes 0.

    With a graph X is multiplied by the root t of (B X + l1 + pull) t^2 = C t + push, which minimises the majoriser of
    the whole objective. The rule of Cai et al. (2011), (C + push) / (B X + l1 + pull), all but swaps the codes of two
    samples that are strongly bound, again and again.
    """
    below, push = product(b, x) + half.l1 + half.pull(x), half.push(x)
    safe = jnp.where(below > 0, below, 1)
    if push is None:
        return above_underflow(x, c, x * (c / safe))
    # Both halves in units of the denominator, whose squares neither vanish nor overflow.
    middle, rest = 0.5 * c / safe, push / safe
    return above_underflow(x, c + push, x * (middle + jnp.sqrt(middle**2 + rest)))


def square_root_step(x: Array, above: Array, below: Array) -> Array:
    """X <- X sqrt(above / below), the rule of Ding, Li and Jordan (2010) for data of any sign; shapes of x.

    Entries whose denominator is 0 stay as they are; no constant is added, so the unit of the data does not matter.
    """
    return above_underflow(x, above, x * jnp.sqrt(jnp.where(below > 0, above / jnp.where(below > 0, below, 1), 1)))


def beta_step(x: Array, half: Half, beta: float) -> Array:
    """One multiplicative update of X (k, m) that never raises divergence + l1 sum X + 0.5 l2 sum X^2."""
    above, below = beta_terms(cast(Array | Nonzeros, half.a), x.T, half.f, beta, half.weights)
    return rescaled_by(x, above.T, below.T, half, beta)


def exponent_of(beta: float) -> float:
    """The exponent with which the multiplicative rule does not raise the divergence."""
    return 1 / (2 - beta) if beta < 1 else 1 / (beta - 1) if beta > 2 else 1.0


def rescaled_by(x: Array, above: Array, below: Array, half: Half, beta: float) -> Array:
    """X <- X * (above / (below + l1 + l2 X))^g, all of one shape, g of `exponent_of`, the penalties of `half`.

    For beta < 2 an L2 penalty in the denominator can raise the objective; there X is multiplied with the root of the
    exact majoriser's derivative instead (for beta = 1 a quadratic equation). So it is with a graph: what the neighbours
    push with is added to the numerator, and for beta > 1 the equation is below t^beta + (l2 X) t^2 = above, of a
    majoriser that bounds the term of A by a logarithm.
    """
    pull, push = half.pull(x), half.push(x)
    below = below + half.l1
    above = above if push is None else above + push
    if beta >= 2:
        below = below + pull
        factor = above / jnp.where(below > 0, below, 1)
        power = beta - 1 if push is None else beta
        factor = factor if power == 1 else factor ** (1 / power)
    elif push is not None and beta > 1:
        factor = _positive_root(above, below, pull, beta, 2.0)
    else:
        factor = _positive_root(above, below, pull, 2 - beta if beta < 1 else 1.0, 3 - beta)
    return above_underflow(x, above, x * factor)


def _positive_root(above: Array, below: Array, extra: Array, q: float, r: float) -> Array:
    """t >= 0 with below t^q + extra t^r = above, for r >= q >= 1; 0 where above is 0."""
    t = above / jnp.where(below > 0, below, 1)
    t = t if q == 1 else t ** (1 / q)
    # Newton's method from the right of the root of a convex, increasing function falls monotonically onto it.
    start = jnp.where(below > 0, t, jnp.inf)
    safe = jnp.where(extra > 0, extra, 1)
    root = jnp.minimum(start, jnp.where(extra > 0, (above / safe) ** (1 / r), jnp.inf))
    root = jnp.where(jnp.isfinite(root), root, 0)
    for _ in range(NEWTON_STEPS):
        value = below * root**q + extra * root**r - above
        slope = q * below * root ** (q - 1) + r * extra * root ** (r - 1)
        root = jnp.maximum(root - value / jnp.where(slope > 0, slope, 1), 0)
    return jnp.where(extra > 0, root, t)
