"""A sparse matrix in the memory of this process, whose products SciPy makes.

A loop over the entries is what a processor does best with them. XLA gathers rows of the other factor first, which takes
three times as long, and needs a program of every shape.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class HostMatrix:
    """A sparse matrix (n, p) for products with dense ones, from either side (`T`). Not for compiled functions.

    entries: SciPy's CSR or CSC array. last: of this matrix and of the transposed one, the last factor and product.
    """

    entries: Any
    last: tuple[list[tuple[np.ndarray, np.ndarray]], ...] = field(default_factory=lambda: ([], []), repr=False)

    @property
    def shape(self) -> tuple[int, int]:
        """(n, p)."""
        return self.entries.shape

    @property
    def data(self) -> np.ndarray:
        """The entries alone."""
        return self.entries.data

    @property
    def dtype(self) -> Any:
        """That of the entries."""
        return self.data.dtype

    @property
    def T(self) -> "HostMatrix":
        """The transposed matrix, which shares the entries."""
        return HostMatrix(self.entries.T, self.last[::-1])

    def times(self, b: np.ndarray) -> np.ndarray:
        """The product with b (p, k), (n, k). The last one is kept: objective, gradient and the next step ask again."""
        for factor, product in self.last[0]:
            if not b.flags.writeable and _is_same(factor, b):
                return product
        product = self.entries @ b
        product.flags.writeable = False
        # What may still be written to is another factor the next time.
        self.last[0][:] = [] if b.flags.writeable else [(b, product)]
        return product

    def row_sums(self, power: int = 1) -> np.ndarray:
        """Sum of the entries of each row to that power, (n,)."""
        return np.asarray(self.entries.power(power).sum(axis=1)).ravel()

    def gram(self) -> np.ndarray:
        """A^T A (p, p), dense."""
        return (self.entries.T @ self.entries).toarray()


def _is_same(held: np.ndarray, given: np.ndarray) -> bool:
    """Whether two arrays, of which the first is held and neither may be written to, are the same part of the memory."""
    places = (x.__array_interface__ for x in (held, given))
    first, second = ((place["data"], place["strides"], place["shape"], place["typestr"]) for place in places)
    return first == second
