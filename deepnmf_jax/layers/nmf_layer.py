"""What all NMF layers share: the settings of the inference as fields, and the way from patches to codes."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from deepnmf_jax.compiled import keep_bounded
from deepnmf_jax.core import initializers
from deepnmf_jax.core.checks import check_choice, check_integer, check_settings
from deepnmf_jax.core.dtypes import floats, promoted
from deepnmf_jax.core.gradients import LOCAL_RULES, with_local_gradient
from deepnmf_jax.core.inference import infer_unchecked
from deepnmf_jax.core.iteration import Settings, python_numbers
from deepnmf_jax.core.normalization import normalize_weights, unit_rows
from deepnmf_jax.core.spiking import SpikeSettings, check_spike_settings, spiking_unchecked


def rectified(inputs: ArrayLike, axes: int = 1) -> Array:
    """ReLU of the inputs, of which whole numbers and truth values are taken as float32.

    Raises:
        ValueError: inputs that are no real numbers, of fewer than `axes` axes, or whose last axis is empty.
    """
    keep_bounded()
    x = floats("inputs", inputs)
    if x.ndim < axes or not x.shape[-1]:
        needed = f"{axes - 1} spatial axes and channels last" if axes > 1 else "at least one axis"
        raise ValueError(f"inputs have shape {x.shape}; they need {needed}, and at least one entry along the last axis")
    return jax.nn.relu(x)


class InferenceFields(nn.Module, kw_only=True):
    """The settings of the inference as fields of a module; `deepnmf_jax.infer` and `infer_spiking` explain them.

    Attributes:
        num_iters: iterations of the inference, at least 1.
        epsilon: step size in the paper's convention, in (0, 1].
        gradient: "approximate" (the paper's), "scaled", "unrolled" or "implicit"; see `deepnmf_jax.infer`.
        cg_steps: conjugate-gradient steps of the implicit gradient.
        acceleration: "none", "adaptive" or "multistep".
        exponent: plain steps in one of "multistep", the largest exponent of "adaptive".
        tolerance: certificate, in nats, at which an input takes no further step; 0: all take `num_iters`.
        products: of the iterations, "full" (float32), "tf32" or "bfloat16".
        implementation: "xla"; "pallas", a fused kernel, which needs a CUDA GPU; or "interpret", that kernel in Pallas's
            interpreter, for tests.
        num_spikes: above 0, each input is coded by so many spikes (`deepnmf_jax.infer_spiking`) in place of the
            iterations. They need a key: `apply(..., rngs={"spikes": key})`.
        spike_epsilon: step of the first spike, above 0.
        spike_decay: spike t has the step spike_epsilon t^-spike_decay; at least 0.
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
    num_spikes: int = 0
    spike_epsilon: float = 1.0
    spike_decay: float = 0.5

    @property
    def inference(self) -> Settings:
        """The fields as `infer` takes them."""
        return python_numbers(Settings(**{name: getattr(self, name) for name in Settings._fields}))

    @property
    def spiking(self) -> SpikeSettings:
        """The fields that concern spikes."""
        return python_numbers(SpikeSettings(*(getattr(self, name) for name in SpikeSettings._fields)))


def spike_key(module: nn.Module, field: str) -> Array:
    """A key of the module's rng stream "spikes"; any key at initialisation, which keeps no outputs.

    Raises:
        ValueError: there is no such stream. `field` is the one that asks for spikes.
    """
    if module.has_rng("spikes"):
        return module.make_rng("spikes")
    if module.is_initializing():
        return jax.random.key(0)
    raise ValueError(
        f"{field} = {getattr(module, field)}, but there is no key for the spikes; pass "
        'rngs={"spikes": jax.random.key(0)} to apply'
    )


class NMFLayer(InferenceFields, kw_only=True):
    """A layer whose outputs are NMF codes. Its other fields, num_iters ... implementation: see `InferenceFields`.

    Attributes:
        local_learning: "none", or the rule that gives u its gradient in place of back-propagation, "kl" or "mse"
            (paper, section 4.2). Lower layers still receive the error passed back.
        u_init: initial raw weights, (key, shape, dtype) -> array. The rows of the weights are those of |u|, made
            to sum to 1.
        dtype: of the computation; None takes that of the input. Sums are in float32 at least.
        param_dtype: of u.
    """

    local_learning: str = "none"
    u_init: Callable[..., Array] = initializers.uniform
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def activity(self, patches: Array, features: int) -> Array:
        """NMF code of non-negative patches (..., groups, n): each group on its own -> (..., features), summing to 1.

        Raises:
            ValueError: settings outside what they allow, or `features` that the groups do not divide.
        """
        check_settings(self.inference)
        check_spike_settings(self.spiking, self.gradient)
        check_choice("local_learning", self.local_learning, ("none", *LOCAL_RULES))
        check_integer("features", features, 1)
        groups, n = patches.shape[-2:]
        if features % groups:
            raise ValueError(f"features = {features} must be a multiple of feature_group_count = {groups}")
        u = self.param("u", self.u_init, (features, n), self.param_dtype)
        dtype = self.dtype or promoted(patches.dtype, u.dtype)
        w = normalize_weights(u.astype(dtype))
        key = spike_key(self, "num_spikes") if self.num_spikes else None
        if groups == 1:  # without an axis of length 1, which slows XLA's CPU backend down threefold
            return self._infer(unit_rows(patches[..., 0, :].astype(dtype)), w, key)
        x = unit_rows(patches.astype(dtype))
        keys = None if key is None else jax.random.split(key, groups)
        h = jax.vmap(self._infer, in_axes=(-2, 0, 0), out_axes=-2)(x, w.reshape(groups, features // groups, n), keys)
        return h.reshape(*h.shape[:-2], features) / groups

    def _infer(self, x: Array, w: Array, key: Array | None) -> Array:
        if self.local_learning == "none":
            return self._code(x, w, key)
        h = self._code(x, jax.lax.stop_gradient(w), key)
        return with_local_gradient(h, x, w, self.local_learning)

    def _code(self, x: Array, w: Array, key: Array | None) -> Array:
        if key is None:
            return infer_unchecked(x, w, self.inference)
        return spiking_unchecked(key, x, w, *self.spiking, self.gradient, self.cg_steps)
