"""What a fit of NMF starts from: random and NNDSVD factors, those that are given, what is known of the dictionary."""

import math
import warnings
from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from deepnmf_jax.decomposition.io import arrays
from deepnmf_jax.decomposition.io.checked import Data, read_data, with_missing_filled
from deepnmf_jax.decomposition.io.host import beside, holds_zeros, namespace, stacked
from deepnmf_jax.decomposition.known import Known, started, with_known
from deepnmf_jax.decomposition.streaming import FromBatches
from deepnmf_jax.decomposition.updates.objective import Target
from deepnmf_jax.decomposition.updates.solvers import SOLVERS
from deepnmf_jax.decomposition.updates.starts import start_of


class Starting(FromBatches):
    """The starts of `NMF`."""

    n_restarts: int

    def _starts(
        self, data: Data, target: Target, start: tuple[Array, Array] | None, known: Known | None
    ) -> tuple[Array, Array]:
        """Starting factors of every restart, Z^T (r, k, n) and D (r, k, p), with what is known of D put in."""
        filled = target.a if data.weights is None else with_missing_filled(data)
        starts = [] if start is None else [(start[0], with_known(start[1], known))]
        for i in range(len(starts), self.n_restarts):
            key = partial(self._key_of, i)
            found = start_of(key, filled, self.nb_concepts, self.init if i == 0 else "random")
            starts.append(started(*found, known))
        # Zeros that are known are to stay.
        free = [(zt, d if known is None else namespace(d).where(known.free, d, 1)) for zt, d in starts]
        if SOLVERS[self.solver].keeps_zeros and any(holds_zeros(f) for pair in free for f in pair):
            warnings.warn(
                f"the start of solver={self.solver!r} holds zeros, which it can never leave; use init='nndsvda' or "
                "'random'",
                UserWarning,
                stacklevel=3,
            )
        zts, ds = zip(*starts, strict=True)
        return stacked(zts), stacked(ds)

    def _key_of(self, start: int) -> Array:
        return jax.random.split(self._key(), self.n_restarts)[start]

    def with_dictionary(self, D: Any, A: Any = None) -> Self:
        """Take D (k, p) for the dictionary in place of a fit, so that `encode` has it. Returns self.

        Args:
            D: the dictionary, of any kind of matrix.
            A: data of the size of that to be encoded; None: such that codes are as large as D.

        Raises:
            ValueError: another number of concepts; entries that are negative, NaN or infinite.
        """
        dtype = arrays.dtype_for(D, self.dtype)
        with arrays.with_precision(dtype):
            given = read_data(D, dtype, self.device, sparse=False)
            if given.a.shape[0] != self.nb_concepts:
                raise ValueError(f"D has {given.a.shape[0]} rows; it must have {self.nb_concepts}, one a concept")
            scale = given.scale**2 if A is None else self._read(A, dtype, features=given.a.shape[1]).scale
            self._begin(D, given)
            self._d, self._scale = arrays.to_dense(D, dtype, self.device), scale
        return self

    def starting_factors(self, A: Any) -> tuple[np.ndarray, np.ndarray]:
        """The start Z (n, k) and D (k, p) that `fit` makes by `init` for A, as numpy."""
        dtype = arrays.dtype_for(A, self.dtype)
        with arrays.with_precision(dtype):
            data = self._read(A, dtype)
            root = math.sqrt(data.scale)
            if data.zero:
                n, p = data.a.shape
                return np.zeros((n, self.nb_concepts), dtype), np.zeros((self.nb_concepts, p), dtype)
            zt, d = start_of(self._key, data.a, self.nb_concepts, self.init)
            return np.asarray(zt).T * root, np.asarray(d) * root

    def init_nndsvda(self, A: Any) -> tuple[Any, Any]:
        """NNDSVDa start (Z, D) for A, of its kind and dtype; zeros are filled with sqrt(mean(A) / k)."""
        dtype = arrays.dtype_for(A, self.dtype)
        with arrays.with_precision(dtype):
            data = read_data(A, dtype, self.device)
            if data.zero:
                zt, d = (jnp.zeros((self.nb_concepts, m), dtype) for m in data.a.shape)
            else:
                zt, d = start_of(self._key, data.a, self.nb_concepts, "nndsvda")
            root = math.sqrt(data.scale)
            return tuple(self._restore(beside(f * root, data.a), arrays.kind_of(A), A) for f in (zt.T, d))  # type: ignore[return-value]
