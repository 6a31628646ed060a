"""Initial values, as functions (key, shape, dtype) -> array."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

# The authors' initial values: u ~ U(0, 1).
uniform = jax.nn.initializers.uniform(scale=1.0)


@cache  # equal exponents give one function, and so equal modules
def uniform_power(exponent: float) -> Callable[..., Array]:
    """U(0, 1)^exponent: above 1 sparser, so that rows differ more and the inference converges sooner."""

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype) ** exponent

    return init


def identity_plus_noise(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """Identity + U(-0.5e-4, 0.5e-4), (..., in, out): the authors' start of the 1x1 convolution."""
    identity = jnp.broadcast_to(jnp.eye(shape[-2], shape[-1], dtype=dtype), shape)
    return identity + centred_noise(key, shape, dtype)


def centred_noise(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """U(-0.5e-4, 0.5e-4): the authors' start of the biases of the 1x1 convolution."""
    return jax.random.uniform(key, shape, dtype, minval=-0.5e-4, maxval=0.5e-4)


def fan_in_uniform(fan_in: int) -> Callable[..., Array]:
    """U(-b, b) with b = 1 / sqrt(fan_in), for weights and biases alike: PyTorch's default start of a convolution."""
    bound = 1.0 / math.sqrt(fan_in)

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, minval=-bound, maxval=bound)

    return init
