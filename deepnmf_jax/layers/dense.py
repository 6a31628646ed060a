"""NMF in place of a dense layer."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from deepnmf_jax.core import initializers
from deepnmf_jax.core.checks import check_choice, check_integer, check_settings
from deepnmf_jax.core.gradients import LOCAL_RULES, with_local_gradient
from deepnmf_jax.core.inference import infer_unchecked
from deepnmf_jax.core.iteration import Settings
from deepnmf_jax.core.normalization import normalize_patches, normalize_weights


class NMFLayer(nn.Module, kw_only=True):
    """Settings that all NMF layers share, and what they do with them.

    Attributes:
        num_iters: iterations of the inference, at least 1.
        epsilon: step size in the paper's convention, in (0, 1].
        gradient: "approximate" (the paper's), "scaled", "unrolled" or "implicit"; see `deepnmf_jax.infer`.
        cg_steps: conjugate-gradient steps of the implicit gradient.
        acceleration: "none", "power", "adaptive" or "multistep"; see `deepnmf_jax.infer`.
        exponent: of "power" and "multistep", the largest of "adaptive".
        tolerance: certificate, in nats, at which an input takes no further step; 0: all take `num_iters`.
        products: of the iterations, "full" (float32), "tf32" or "bfloat16".
        implementation: "xla"; "pallas", a fused kernel, which needs a CUDA GPU; or "interpret", that kernel in Pallas's
            interpreter, for tests. See `deepnmf_jax.infer`.
        local_learning: "none", or the rule that gives u its gradient in place of back-propagation, "kl" or "mse"
            (paper, section 4.2). Lower layers still receive the error passed back.
        u_init: initial raw weights, (key, shape, dtype) -> array. The rows of the weights are those of |u|, made
            to sum to 1.
        dtype: of the computation; None takes that of the input. Sums are in float32 at least.
        param_dtype: of u.
    """

    num_iters: int = 20
    epsilon: float = 1.0
    gradient: str = "approximate"
    cg_steps: int = 4
    acceleration: str = "none"
    exponent: float = 8.0
    tolerance: float = 0.0
    products: str = "full"
    implementation: str = "xla"
    local_learning: str = "none"
    u_init: Callable[..., Array] = initializers.uniform
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @property
    def _settings(self) -> Settings:
        return Settings(*(getattr(self, name) for name in Settings._fields))

    def activity(self, patches: Array, features: int) -> Array:
        """NMF code of non-negative patches (..., groups, n): each group on its own -> (..., features), summing to 1.

        Raises:
            ValueError: settings outside what they allow, or `features` that the groups do not divide.
        """
        check_settings(self._settings)
        check_choice("local_learning", self.local_learning, ("none", *LOCAL_RULES))
        check_integer("features", features, 1)
        groups, n = patches.shape[-2:]
        if features % groups:
            raise ValueError(f"features = {features} must be a multiple of feature_group_count = {groups}")
        u = self.param("u", self.u_init, (features, n), self.param_dtype)
        dtype = self.dtype or jnp.result_type(patches, u)
        w = normalize_weights(u.astype(dtype))
        if groups == 1:  # without an axis of length 1, which slows XLA's CPU backend down threefold
            return self._infer(normalize_patches(patches[..., 0, :].astype(dtype)), w)
        x = normalize_patches(patches.astype(dtype))
        h = jax.vmap(self._infer, in_axes=(-2, 0), out_axes=-2)(x, w.reshape(groups, features // groups, n))
        return h.reshape(*h.shape[:-2], features) / groups

    def _infer(self, x: Array, w: Array) -> Array:
        if self.local_learning == "none":
            return infer_unchecked(x, w, self._settings)
        h = infer_unchecked(x, jax.lax.stop_gradient(w), self._settings)
        return with_local_gradient(h, x, w, self.local_learning)


class NMFDense(NMFLayer):
    """NMF code of a feature vector: ReLU, sum 1, inference (paper, section 2.2).

    The parameter u has shape (features, n). Other fields: see `NMFLayer`.

    Attributes:
        features: number of units k.
    """

    features: int

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """inputs (..., n) of any sign -> activities (..., features), non-negative, summing to 1 (0 without input).

        Raises:
            ValueError: settings outside what they allow.
        """
        return self.activity(jax.nn.relu(inputs)[..., None, :], self.features)
