"""What a layer is, whichever of Flax's interfaces it is used in: its fields, what they allow, and what it computes.

The Linen layers beside this file and the NNX layers of `deepnmf_jax.nnx` inherit from these classes. Both add what
their interface is about, the parameters and the random keys, and nothing else.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from deepnmf_jax.compiled import keep_bounded
from deepnmf_jax.core import initializers
from deepnmf_jax.core.checks import check_choice, check_integer, check_settings
from deepnmf_jax.core.dtypes import floats, plain, promoted
from deepnmf_jax.core.gradients import LOCAL_RULES, with_local_gradient
from deepnmf_jax.core.inference import infer_unchecked
from deepnmf_jax.core.iteration import Settings, python_numbers
from deepnmf_jax.core.normalization import normalize_weights, unit_rows
from deepnmf_jax.core.patches import Padding, extract_patches, has_axes, split_groups
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


@dataclass(eq=False, repr=False, kw_only=True)
class InferenceFields:
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
            iterations. They need a key: in Linen `apply(..., rngs={"spikes": key})`, in NNX the stream "spikes" of
            the `nnx.Rngs`.
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


@dataclass(eq=False, repr=False, kw_only=True)
class NMFFields(InferenceFields):
    """What all NMF layers share. Its other fields, num_iters ... spike_decay: see `InferenceFields`.

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

    def check_fields(self, features: int, groups: int) -> int:
        """`features` as Python's int. ValueError for settings outside what they allow, or groups that do not divide
        it."""
        check_settings(self.inference)
        check_spike_settings(self.spiking, self.gradient)
        check_choice("local_learning", self.local_learning, ("none", *LOCAL_RULES))
        features = check_integer("features", features, 1)
        if features % groups:
            raise ValueError(f"features = {features} must be a multiple of feature_group_count = {groups}")
        return features

    def codes(self, patches: Array, u: Array, key: Array | None) -> Array:
        """NMF code of non-negative patches (..., groups, n), each group on its own, under raw weights u (features, n)
        -> (..., features), summing to 1. `key`: of the spikes; None: iterations."""
        (groups, n), features = patches.shape[-2:], u.shape[0]
        dtype = self.dtype or promoted(patches.dtype, u.dtype)
        w = normalize_weights(u.astype(dtype))
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
        return spiking_unchecked(key, x, w, *self.spiking, self.gradient, self.inference.cg_steps)


@dataclass(eq=False, repr=False)
class ConvFields:
    """Patches as a convolution takes them. The fields are those of `flax.linen.Conv`.

    Attributes:
        kernel_size: of the patches, one number a spatial axis; an integer is one axis, as in Flax.
        strides: None is 1.
        padding: "SAME", "VALID" (the default, as in the paper), a number, or one number or pair an axis.
        kernel_dilation: None is 1.
        feature_group_count: groups of channels that are treated independently.
    """

    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] | None = None
    padding: Padding = "VALID"
    kernel_dilation: int | Sequence[int] | None = None
    feature_group_count: int = 1

    def check_groups(self, features: int, channels: int) -> int:
        """`feature_group_count` as Python's int. ValueError unless it divides both numbers."""
        features = check_integer("features", features, 1)
        groups = check_integer("feature_group_count", self.feature_group_count, 1)
        if channels % groups or features % groups:
            raise ValueError(
                f"feature_group_count = {groups} must divide the {channels} input channels and features = {features}"
            )
        return groups

    def grouped_patches(self, inputs: ArrayLike, features: int) -> Array:
        """ReLU and patches of the inputs (..., *spatial, c), channels split in groups -> (..., *positions, groups, n).

        Raises:
            ValueError: a kernel larger than the map, groups that do not divide, inputs that are none.
        """
        rank = len(self.kernel_size) if has_axes(self.kernel_size) else 1
        x = rectified(inputs, axes=rank + 1)
        channels = x.shape[-1]
        groups = self.check_groups(features, channels)
        patches = extract_patches(
            x, self.kernel_size, strides=self.strides, padding=self.padding, kernel_dilation=self.kernel_dilation
        )
        return split_groups(patches, patches.shape[-1] // channels, groups)


@dataclass(eq=False, repr=False)
class NormalizedConvFields(ConvFields):
    """A convolution of patches that sum to 1. Its other fields: see `ConvFields`.

    Attributes:
        use_bias: whether a bias follows.
        dtype: of the computation; None takes that of the input.
        param_dtype: of kernel and bias.
    """

    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def product(self, patches: Array, kernel: Array, bias: Array | None) -> Array:
        """patches (..., groups, n), kernel (groups, n, features / groups), bias (features,) -> (..., features)."""
        groups, _, share = kernel.shape
        dtype = self.dtype or promoted(patches.dtype, kernel.dtype)
        if groups == 1:
            y = jnp.matmul(unit_rows(patches[..., 0, :].astype(dtype)), kernel[0].astype(dtype))
        else:
            x = unit_rows(patches.astype(dtype))
            y = jnp.einsum("...gn,gnk->...gk", x, kernel.astype(dtype))
            y = y.reshape(*y.shape[:-2], groups * share)
        if bias is not None:
            bias = bias.astype(dtype)
            y = y + bias.reshape((1,) * (y.ndim - 1) + bias.shape)
        return y


@dataclass(eq=False, repr=False)
class PoolFields:
    """Windows as a pooling takes them.

    Attributes:
        window_shape: of the windows, one number a spatial axis; an integer is both sides of a square.
        strides: None is the window's shape, so that windows do not overlap.
        padding: "SAME", "VALID", a number, or one number or pair an axis.
    """

    window_shape: int | Sequence[int] = (2, 2)
    strides: int | Sequence[int] | None = None
    padding: Padding = "VALID"

    @property
    def window(self) -> tuple[int, ...]:
        """`window_shape`, one number a spatial axis."""
        given = self.window_shape
        return tuple(given) if has_axes(given) else (plain(given),) * 2

    def windows(self, inputs: ArrayLike) -> Array:
        """ReLU and windows of the inputs (..., *spatial, c) -> (..., *positions, 1, n).

        Raises:
            ValueError: a window larger than the map, inputs that are none.
        """
        window = self.window
        strides = window if self.strides is None else self.strides
        x = rectified(inputs, axes=len(window) + 1)
        return extract_patches(x, window, strides=strides, padding=self.padding)[..., None, :]

    def channels(self, windows: Array) -> int:
        """c of `windows` (..., 1, n)."""
        return windows.shape[-1] // math.prod(self.window)


@dataclass(eq=False, repr=False)
class MixingFields:
    """Weights of both signs among the features of one position.

    Attributes:
        dtype: of the computation; None takes that of the input.
        param_dtype: of kernel and bias.
        feature_group_count: contiguous groups of channels that are mixed among themselves only. The kernel has shape
            (c, c), with several groups (groups, c / groups, c / groups): the blocks on the diagonal of the former.
    """

    dtype: Any = None
    param_dtype: Any = jnp.float32
    feature_group_count: int = 1

    def kernel_shape(self, channels: int) -> tuple[int, ...]:
        """Of c channels: (c, c), or (groups, c / groups, c / groups). ValueError for groups that do not divide."""
        groups = check_integer("feature_group_count", self.feature_group_count, 1)
        if channels % groups:
            raise ValueError(f"feature_group_count = {groups} must divide the {channels} input channels")
        return (channels, channels) if groups == 1 else (groups, channels // groups, channels // groups)

    def mixed(self, x: Array, kernel: Array, bias: Array) -> Array:
        """x (..., c), non-negative, whose rows are made to sum to 1; a kernel of `kernel_shape` and a bias (c,) ->
        (..., c)."""
        channels = x.shape[-1]
        dtype = self.dtype or promoted(x.dtype, self.param_dtype)
        # One leading axis, so that the kernel's gradient is a plain product of two matrices.
        rows = unit_rows(x).reshape(-1, channels).astype(dtype)
        if kernel.ndim == 2:
            y = jnp.matmul(rows, kernel.astype(dtype))
        else:
            groups, side, _ = kernel.shape
            y = jnp.einsum("rgi,gio->rgo", rows.reshape(-1, groups, side), kernel.astype(dtype)).reshape(-1, channels)
        return (y + bias.astype(dtype)[None]).reshape(x.shape)
