"""What is computed once is computed by numpy, where the arrays lie in the memory of this process.

To compile a program takes longer than such a computation, and every shape compiles anew.
"""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax import Array
from jax.experimental.sparse import BCOO

from deepnmf_jax.decomposition.io.host_matrix import HostMatrix
from deepnmf_jax.decomposition.io.nonzeros import Sparse, on_scipy

# Multiplications up to which OpenBLAS uses one thread, and those from which several are worth waking.
SERIAL, SMALL = 2**18, 2**26


def namespace(*arrays: Any) -> Any:
    """numpy if all of them are its own, jax.numpy for all others."""
    return np if all(isinstance(x, np.ndarray | np.generic | HostMatrix) for x in arrays) else jnp


def on_host(x: Any) -> bool:
    """Whether x is an array with values in the memory of this process, on one device, dense or `HostMatrix`."""
    if not isinstance(x, Array):
        return isinstance(x, HostMatrix) or not isinstance(x, Sparse)
    if isinstance(x, jax.core.Tracer) or jnp.issubdtype(x.dtype, jax.dtypes.extended):
        return False
    return len(x.sharding.device_set) == 1 and all(getattr(d, "platform", None) == "cpu" for d in x.sharding.device_set)


def host_matrix_of(a: Any) -> Any:
    """A sparse matrix (`BCOO`) that is `on_host` as a `HostMatrix`; anything else as it is."""
    return HostMatrix(on_scipy(a)) if isinstance(a, BCOO) and on_host(a.data) else a


def product_of(a: Any, b: Any) -> Any:
    """a b of matrices; smaller ones by blocks that one thread multiplies.

    OpenBLAS wakes its threads for products of a tenth of a millisecond, and where other programs have the cores they
    wait for one another a hundred times as long.
    """
    (m, q), n = a.shape, b.shape[1]
    if not SERIAL < m * q * n <= SMALL:
        return a @ b
    longest = max(m, q, n)
    edges = [*range(0, longest, max(1, SERIAL * longest // (m * q * n))), longest]
    parts = [slice(*pair) for pair in itertools.pairwise(edges)]
    if longest == m:
        return np.concatenate([a[part] @ b for part in parts])
    if longest == n:
        return np.concatenate([a @ b[:, part] for part in parts], axis=1)
    return sum((a[:, part] @ b[part] for part in parts[1:]), a[:, parts[0]] @ b[parts[0]])


def eigh(x: Any) -> tuple[Any, Any]:
    """Eigenvalues, ascending, and eigenvectors of a symmetric matrix."""
    # Where numpy's function wakes threads for small matrices too, this driver of LAPACK does not.
    return scipy.linalg.eigh(x, driver="evd") if namespace(x) is np else tuple(jnp.linalg.eigh(x))


def beside(x: Any, a: Array | BCOO) -> Array:
    """x as a JAX array on the device of A."""
    if not isinstance(x, np.ndarray | np.generic):
        return x
    a = a.data if isinstance(a, BCOO) else a
    # What the user has put nowhere may go on to another device later.
    return jax.device_put(x, a.sharding if getattr(a, "committed", True) else None)


class where_it_lies:
    """A function of arrays, computed by numpy where all of them are `on_host`, else compiled (`compiled`, always).

    The function takes its operations from `namespace`; the results are numpy's or JAX's.

    Args:
        function: what is computed.
        static: names of the arguments that are no arrays.
    """

    def __init__(self, function: Callable, static: tuple[str, ...] = ()) -> None:
        self.function, self.compiled = function, jax.jit(function, static_argnames=static)

    def __call__(self, *args: Any, **named: Any) -> Any:
        """What the function gives for these arguments."""
        leaves, tree = jax.tree.flatten((args, named), is_leaf=lambda x: isinstance(x, Sparse))
        if not all(map(on_host, leaves)):
            return self.compiled(*args, **named)
        args, named = jax.tree.unflatten(tree, [np.asarray(x) if isinstance(x, Array) else x for x in leaves])
        # An overflow is told by those who look at the result, which may be JAX's too.
        with np.errstate(all="ignore"):
            return self.function(*args, **named)


@where_it_lies
def scaled(x: Array, factor: float) -> Array:
    """x times a factor."""
    return x * factor


@where_it_lies
def transposed(x: Array, factor: float) -> Array:
    """x^T times a factor."""
    return (x * factor).T


@where_it_lies
def holds_zeros(x: Array) -> Array:
    """Whether an entry of x is 0."""
    return namespace(x).any(x == 0)


@where_it_lies
def _stacked(arrays: tuple[Array, ...]) -> Array:
    return namespace(arrays[0]).stack(arrays)


def stacked(arrays: tuple[Array, ...]) -> Array:
    """Arrays of one shape with a first axis that numbers them."""
    return arrays[0][None] if len(arrays) == 1 and isinstance(arrays[0], np.ndarray) else _stacked(arrays)
