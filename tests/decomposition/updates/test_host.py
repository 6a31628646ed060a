"""What numpy computes in place of a compiled program gives the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepnmf_jax.decomposition.io import host
from deepnmf_jax.decomposition.updates.fit import judge
from deepnmf_jax.decomposition.updates.objective import Penalties, Target
from deepnmf_jax.decomposition.updates.starts import compiled_start, start_of

RNG = np.random.default_rng(0)
A = RNG.random((30, 12))


@pytest.mark.parametrize("shape", [(2000, 40, 30), (30, 2000, 40), (40, 30, 2000), (3, 4, 5)])
def test_products_by_blocks_are_products(shape: tuple[int, int, int]) -> None:
    m, q, n = shape
    a, b = RNG.random((m, q)), RNG.random((q, n))
    np.testing.assert_allclose(host.product_of(a, b), a @ b, rtol=1e-12)


def test_the_start_is_the_compiled_one() -> None:
    def refused() -> jax.Array:
        raise AssertionError("no random numbers enter")

    for array in (A, A.T.copy()):
        found = start_of(refused, jnp.asarray(array), 4, "nndsvda")
        assert all(isinstance(factor, np.ndarray) for factor in found)
        for ours, expected in zip(found, compiled_start(jax.random.key(0), array, 4, "nndsvda"), strict=True):
            np.testing.assert_allclose(ours, expected, atol=1e-9)


def test_the_judgement_is_the_compiled_one() -> None:
    zt, d = RNG.random((4, 30)), RNG.random((4, 12))
    target = Target(A, Penalties(0.1, 0.2, 0.3, 0.4))
    here = judge(zt, d, target, 2.0, 2.0)
    there = jax.jit(lambda zt, d: judge(zt, d, target, 2.0, 2.0))(zt, d)
    for ours, expected in zip(here, there, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-9)
    assert isinstance(here.z, np.ndarray)
