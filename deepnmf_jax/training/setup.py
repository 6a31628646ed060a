"""From a config to the parts of a run. Nothing is written here, so that a wrong setting leaves no trace."""

import inspect
import logging
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from deepnmf_jax.data.augmentation import Augmentation
from deepnmf_jax.data.datasets import (
    Dataset,
    Split,
    image_shape_and_classes,
    load_dataset,
    split_train_validation,
)
from deepnmf_jax.models import Network, summarize
from deepnmf_jax.models.network import with_tuples
from deepnmf_jax.training.devices import COMMAND_BUFFERS, MATMUL_PRECISIONS, data_mesh
from deepnmf_jax.training.optimizers import create_optimizer, create_plateau
from deepnmf_jax.training.state import TrainState, create_state

_log = logging.getLogger(__name__)


class Run(NamedTuple):
    """What a config describes, checked and ready to train."""

    dataset: Dataset
    split: Split
    model: Network
    image_shape: tuple[int, int, int]
    augmentation: Augmentation
    optimizer: optax.GradientTransformation
    plateau: optax.GradientTransformationExtraArgs
    mesh: Mesh
    seeds: np.ndarray
    steps_per_epoch: int
    num_steps: int
    early_model: Network
    early_steps: int
    averaged: bool

    def initial_state(self) -> TrainState:
        """The state before the first step; with several seeds, each leaf has a leading axis."""

        def create(seed: jax.Array) -> TrainState:
            return create_state(
                seed, self.model, self.image_shape, self.optimizer, self.plateau, averaged=self.averaged
            )

        # One compiled program: eager initialisation rounds differently, and takes longer.
        if len(self.seeds) == 1:
            return jax.jit(create)(jnp.uint32(self.seeds[0]))
        return jax.jit(jax.vmap(create))(jnp.asarray(self.seeds, jnp.uint32))

    def template(self) -> TrainState:
        """Shapes and dtypes of the state, without its values."""
        return jax.eval_shape(self.initial_state)


def create_model(config: Any, num_classes: int) -> Network:
    """The network of config.model.

    Raises:
        ValueError: a setting that the network does not have.
    """
    settings = with_tuples(config.model)
    known = set(inspect.signature(Network).parameters)
    if unknown := set(settings) - known:
        raise ValueError(f"config.model has unknown settings {sorted(unknown)}; use {', '.join(sorted(known))}")
    return Network(num_classes=num_classes, **settings)


def _with_iterations(model: Network, num_iters: int) -> Network:
    """The same network with so many iterations in all blocks."""
    own = ({k: v for k, v in settings.items() if k != "num_iters"} for settings in model.block_settings)
    return model.clone(num_iters=num_iters, block_settings=tuple(own))


def cropped_shape(crop: int, image_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(height, width, channels) of the images that the network sees.

    Raises:
        ValueError: a crop larger than the images.
    """
    height, width, channels = image_shape
    if crop > min(height, width):
        raise ValueError(f"augmentation.crop = {crop}, but the images are {height} x {width}; use at most that, or 0")
    return (crop, crop, channels) if crop else (height, width, channels)


def prepare(config: Any) -> Run:
    """Reads the data and checks every setting of the config.

    Raises:
        ValueError: settings outside what they allow, or that contradict each other.
        FileNotFoundError: the data set is not there.
    """
    _check_config(config)
    dataset = load_dataset(config.dataset, config.data_dir or None)
    split = split_train_validation(dataset.train_labels, config.num_validation, config.split_seed)
    steps_per_epoch = len(split.train) // config.batch_size
    if not steps_per_epoch:
        raise ValueError(f"batch_size = {config.batch_size}, but there are only {len(split.train)} training images")
    num_steps = steps_per_epoch * config.num_epochs
    model = create_model(config, dataset.num_classes)
    run = Run(
        dataset=dataset,
        split=split,
        model=model,
        image_shape=cropped_shape(config.augmentation.crop, dataset.train_images.shape[1:]),
        augmentation=Augmentation(**config.augmentation),
        optimizer=create_optimizer(config.optimizer, num_steps),
        plateau=create_plateau(config.optimizer),
        mesh=data_mesh(config.batch_size),
        seeds=np.arange(config.seed, config.seed + config.num_seeds),
        steps_per_epoch=steps_per_epoch,
        num_steps=num_steps,
        early_model=_with_iterations(model, config.early.num_iters),
        early_steps=round(config.early.share * num_steps),
        averaged=config.optimizer.average > 0,
    )
    run.template()
    return run


def _check_config(config: Any) -> None:
    for name, smallest in (
        ("num_epochs", 1), ("batch_size", 1), ("eval_batch_size", 1), ("num_seeds", 1), ("seed", 0),
        ("num_validation", 0), ("save_every_steps", 0), ("save_every_epochs", 1), ("log_every_steps", 1),
        ("steps_per_call", 1),
    ):  # fmt: skip
        if config[name] < smallest:
            raise ValueError(f"{name} = {config[name]}, but it must be at least {smallest}")
    if config.seed + config.num_seeds > 2**32:
        raise ValueError(f"seed = {config.seed} with num_seeds = {config.num_seeds}; all seeds must be below 2**32")
    for name, known in (("matmul_precision", MATMUL_PRECISIONS), ("command_buffers", tuple(COMMAND_BUFFERS))):
        if config[name] not in known:
            raise ValueError(f"{name} = {config[name]!r} is unknown; use {' or '.join(map(repr, known))}")
    plateau, adam = config.optimizer.plateau, config.optimizer
    for name, value, allowed in (
        ("optimizer.b1", adam.b1, 0 <= adam.b1 < 1),
        ("optimizer.b2", adam.b2, 0 <= adam.b2 < 1),
        ("optimizer.average", adam.average, 0 <= adam.average < 1),
        ("early.share", config.early.share, 0 <= config.early.share <= 1),
        ("early.num_iters", config.early.num_iters, config.early.num_iters >= 1),
        ("loss.mse_weight", config.loss.mse_weight, config.loss.mse_weight >= 0),
        ("loss.label_smoothing", config.loss.label_smoothing, 0 <= config.loss.label_smoothing < 1),
        ("optimizer.plateau.patience", plateau.patience, plateau.patience >= 0),
        ("optimizer.plateau.factor", plateau.factor, 0 < plateau.factor < 1),
        ("optimizer.plateau.threshold", plateau.threshold, 0 < plateau.threshold < 1),
        ("optimizer.plateau.smallest_rate", plateau.smallest_rate, plateau.smallest_rate > 0),
        ("optimizer.one_cycle.start_divisor", adam.one_cycle.start_divisor, adam.one_cycle.start_divisor > 0),
        ("optimizer.one_cycle.end_divisor", adam.one_cycle.end_divisor, adam.one_cycle.end_divisor > 0),
        ("optimizer.one_cycle.warmup_share", adam.one_cycle.warmup_share, 0 < adam.one_cycle.warmup_share < 1),
    ):
        if not allowed:
            raise ValueError(f"{name} = {value} is outside what configs/base.py allows for it")
    watched = plateau.loss
    if watched not in ("validation", "train"):
        raise ValueError(f"optimizer.plateau.loss = {watched!r} is unknown; use 'validation' or 'train'")
    if config.optimizer.schedule == "plateau" and watched == "validation" and not config.num_validation:
        raise ValueError(
            "num_validation = 0, but the plateau rule watches the validation loss; set plateau.loss = 'train'"
        )


def describe(config: Any) -> str:
    """The layer table of the config's network on its data set."""
    image_shape, num_classes = image_shape_and_classes(config.dataset)
    return summarize(create_model(config, num_classes), cropped_shape(config.augmentation.crop, image_shape))
