"""Conjugate gradients on the positive codes of every sample, between sweeps of coordinate descent.

More and Toraldo, On the solution of large quadratic programming problems with bound constraints, 1991. Coordinate
descent finds soon which codes are 0, and is slow at the values of the others where atoms are alike. Shapes as in
`objective.Half`.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax

from deepnmf_jax.decomposition.updates.linear_algebra import column_sums, inverse, product
from deepnmf_jax.decomposition.updates.objective import Half

# Of each step; more of them cost more than the sweeps that they save.
ITERATIONS = 8


def conjugate_step(half: Half) -> Callable[[Array], Array]:
    """X (k, m) -> X where the squared error of every column is nearly least over its positive entries.

    A column that is 0 takes the entries that would lower its objective. One whose objective would not fall, since the
    solution over the positive entries has negative ones, stays as it is.
    """
    c, b = half.gram()

    def step(x: Array) -> Array:
        downhill = c - product(b, x)
        free = jnp.where(jnp.any(x > 0, axis=0), x > 0, downhill > 0)
        rest = jnp.where(free, downhill, 0)
        # In a unit of each column's own, a power of 2, whose squares neither vanish nor overflow.
        unit = jnp.ldexp(jnp.ones((), x.dtype), jnp.frexp(jnp.max(jnp.abs(rest), axis=0))[1])
        rest = rest / unit

        def iterate(_: int, carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
            change, rest, along, square = carry
            curved = jnp.where(free, product(b, along), 0)
            length = square * inverse(column_sums(along * curved))
            change, rest = change + length * along, rest - length * curved
            now = column_sums(rest**2)
            return change, rest, rest + now * inverse(square) * along, now

        start = jnp.zeros_like(x), rest, rest, column_sums(rest**2)
        found = jnp.maximum(x + lax.fori_loop(0, ITERATIONS, iterate, start)[0] * unit, 0)
        move = (found - x) / unit
        rise = column_sums(move * (0.5 * product(b, move) - downhill / unit))
        return jnp.where(rise < 0, found, x)

    return step
