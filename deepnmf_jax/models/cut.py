"""A network cut in two after one of its blocks, where its activations can be factorized into concepts."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from deepnmf_jax.core.checks import check_integer, check_settings
from deepnmf_jax.core.iteration import Settings
from deepnmf_jax.models.network import Network


class Cut(NamedTuple):
    """The two parts of a network: rest(first(images)) are its logits.

    first: images (n, height, width, channels) to activations (n, h, w, features), non-negative. rest: activations to
    logits (n, classes).
    """

    first: Callable[[Any], Array]
    rest: Callable[[Any], Array]


def cut_network(
    model: Network,
    variables: Mapping[str, Any],
    after: int,
    image_shape: tuple[int, int, int],
    gradient: str | None = "unrolled",
) -> Cut:
    """The parts of a network before and after the ReLU that follows a block, both compiled.

    Args:
        model: the network.
        variables: of it, "params" and "batch_stats".
        after: the block, from 1; the last one cannot be.
        image_shape: height, width and channels of its images.
        gradient: of the NMF layers, as in `deepnmf_jax.infer`. "unrolled" is the derivative of what they compute; the
            approximate ones, which networks are trained with, are not. None: the model's own.

    Raises:
        ValueError: no such block; a network with residual paths, or one that reads both signs of its activations: what
            follows a block of theirs is no function of the activations after the ReLU; a network that spikes; a
            tolerance with "unrolled".
    """
    if model.residual or model.rectification != "relu":
        raise ValueError(
            f"residual = {model.residual} and rectification = {model.rectification!r}: their blocks read more than the "
            "positive part of the activations; cut a network without residual paths, and with 'relu'"
        )
    if model.needs_spikes:
        raise ValueError("the network spikes, and its parts take no key: set num_spikes and input_spikes to 0")
    if gradient is not None:
        blocks = [{**own, "gradient": gradient} if "gradient" in own else own for own in model.block_settings]
        model = model.clone(gradient=gradient, block_settings=blocks)
    for own in model.block_settings or ({},):
        check_settings(Settings(**{name: own.get(name, value) for name, value in model.inference._asdict().items()}))
    name = f"block{check_integer('after', after, 1, len(model.features))}"

    @jax.jit
    def first(images: Any) -> Array:
        _, found = model.apply(variables, images, capture_intermediates=_is_call, mutable=["intermediates"])
        return jax.nn.relu(found["intermediates"][name]["__call__"][0])

    @jax.jit
    def rest(activations: Any) -> Array:
        def given(run: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
            replaced = context.module.name == name and context.method_name == "__call__"
            return jnp.asarray(activations) if replaced else run(*args, **kwargs)

        # What comes before the cut is traced with empty images, and left out by the compiler since nothing uses it.
        with nn.intercept_methods(given):
            return cast(Array, model.apply(variables, jnp.zeros((len(activations), *image_shape), jnp.float32)))

    return Cut(first, rest)


def _is_call(module: nn.Module, method: str) -> bool:
    return method == "__call__"
