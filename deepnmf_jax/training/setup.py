"""From a config to the parts of a run. Nothing is written here, so that a wrong setting leaves no trace."""

import dataclasses
import functools
import inspect
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from deepnmf_jax.core.checks import check_choice, check_integer, check_number
from deepnmf_jax.data.augmentation import Augmentation
from deepnmf_jax.data.datasets import (
    Dataset,
    Split,
    image_shape_and_classes,
    load_dataset,
    split_train_validation,
)
from deepnmf_jax.models import Network, summarize
from deepnmf_jax.models.fields import with_tuples
from deepnmf_jax.models.retired import as_of_today
from deepnmf_jax.training.devices import MATMUL_PRECISIONS, data_mesh
from deepnmf_jax.training.environment import total_memory
from deepnmf_jax.training.evaluation import Evaluator
from deepnmf_jax.training.optimizers import create_optimizer, create_plateau
from deepnmf_jax.training.records import flatten
from deepnmf_jax.training.state import TrainState, count_parameters, create_state

# The run's whole numbers that are at least 0, and those that are at least 1.
_FROM_0 = "seed", "split_seed", "num_validation", "save_every_steps"
_FROM_1 = (
    "num_epochs", "batch_size", "eval_batch_size", "num_seeds", "save_every_epochs", "log_every_steps", "steps_per_call"
)  # fmt: skip
# Beyond these a setting is a slip of the keyboard, and would be noticed when the memory or the week is over.
_MOST_SEEDS, _MOST_UNITS, _MOST_ITERATIONS, _MOST_EVALUATED = 10_000, 1_000_000, 100_000, 10_000
# Steps and patience are counted in int32, numbers are float32.
_MOST_STEPS, _LARGEST = 2**31 - 1, float(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """What a config describes, checked and ready to train."""

    config: Any  # see configs/base.py
    dataset: Dataset
    split: Split
    model: Network
    image_shape: tuple[int, int, int]  # of the images that the network sees
    augmentation: Augmentation
    optimizer: optax.GradientTransformation
    plateau: optax.GradientTransformationExtraArgs
    mesh: Mesh
    seeds: np.ndarray
    steps_per_epoch: int
    num_steps: int

    @functools.cached_property
    def evaluator(self) -> Evaluator:
        """What evaluates the run's network; its programs are compiled once."""
        return Evaluator(
            self.model,
            crop=self.augmentation.crop,
            batch_size=self.config.eval_batch_size,
            mesh=self.mesh,
            seeds=len(self.seeds),
            spike_seed=int(self.seeds[0]),
        )

    def initial_state(self) -> TrainState:
        """The state before the first step; with several seeds, each leaf has a leading axis."""
        state: TrainState = self._create(self._seeds)
        return state

    def creation(self) -> jax.stages.Lowered:
        """The program of `initial_state`, not yet compiled: once it is, `initial_state` has it."""
        return self._create.lower(self._seeds)

    def template(self) -> TrainState:
        """Shapes and dtypes of the state, without its values."""
        return jax.eval_shape(self._create, self._seeds)

    @functools.cached_property
    def _create(self) -> jax.stages.Wrapped:
        return _creator(self.model, self.image_shape, self.optimizer, self.plateau, len(self.seeds) > 1)

    @property
    def _seeds(self) -> np.ndarray:
        return (self.seeds if len(self.seeds) > 1 else self.seeds[0]).astype(np.uint32)


def _creator(
    model: Network,
    image_shape: tuple[int, ...],
    optimizer: optax.GradientTransformation,
    plateau: optax.GradientTransformationExtraArgs,
    several_seeds: bool,
) -> jax.stages.Wrapped:
    def create(seed: jax.Array) -> TrainState:
        return create_state(seed, model, image_shape, optimizer, plateau)

    # One compiled program: eager initialisation rounds differently, and takes longer. As it runs once, to optimise it
    # would take longer than it saves.
    options = {"xla_backend_optimization_level": 1}
    return jax.jit(jax.vmap(create) if several_seeds else create, compiler_options=options)


def without_data(config: Any, image_shape: tuple[int, ...], num_classes: int) -> tuple[Network, TrainState]:
    """The network of a run whose data set is not at hand, and what `Run.template` would give."""
    config = _as_of_today(config)
    model = create_model(config, num_classes)
    # How many steps is the schedule's alone, which is no part of the state.
    optimizer, plateau = create_optimizer(config.optimizer, num_steps=1000), create_plateau(config.optimizer)
    several = config.num_seeds > 1
    seeds = np.zeros(config.num_seeds, np.uint32) if several else np.uint32(0)
    return model, jax.eval_shape(_creator(model, image_shape, optimizer, plateau, several), seeds)


def prepare(config: Any) -> Run:
    """Reads the data and checks every setting of the config.

    Raises:
        ValueError: settings outside what they allow, that contradict each other, or that no longer exist.
        FileNotFoundError: the data set is not there.
    """
    config = _as_of_today(config)
    _check_config(config)
    dataset = load_dataset(config.dataset, config.data_dir or None)
    split = split_train_validation(dataset.train_labels, config.num_validation, config.split_seed)
    steps_per_epoch = len(split.train) // config.batch_size
    if not steps_per_epoch:
        raise ValueError(f"batch_size = {config.batch_size}, but there are only {len(split.train)} training images")
    num_steps = steps_per_epoch * config.num_epochs
    _check_at_most("num_epochs", config.num_epochs, _MOST_STEPS // steps_per_epoch, "steps are counted in 32 bits")
    image_shape = cropped_shape(config.augmentation.crop, dataset.train_images.shape[1:])
    _check_against_images(config, dataset)
    run = Run(
        config=config,
        dataset=dataset,
        split=split,
        model=create_model(config, dataset.num_classes),
        image_shape=image_shape,
        augmentation=Augmentation(**config.augmentation),
        optimizer=create_optimizer(config.optimizer, num_steps),
        plateau=create_plateau(config.optimizer),
        mesh=data_mesh(config.batch_size),
        seeds=np.arange(config.seed, config.seed + config.num_seeds),
        steps_per_epoch=steps_per_epoch,
        num_steps=num_steps,
    )
    # Traced as the run will compute, which then need not trace it again.
    with jax.default_matmul_precision(config.matmul_precision):
        _check_memory(run)
    return run


def summary_line(run: Run) -> str:
    """What is trained, in a line: the network, its parameters, epochs and steps."""
    model, config = run.model, run.config
    units = [max(1, round(f * model.width)) for f in model.features] + [model.num_classes]
    layers = {"nmf": "NMF", "conv": "convolution"}[model.layer] + (" + 1x1" if model.mixing else "")
    seeds = f"seeds {run.seeds[0]} to {run.seeds[-1]}" if len(run.seeds) > 1 else f"seed {run.seeds[0]}"
    return (
        f"network of {len(units)} blocks ({layers}) with {', '.join(map(str, units))} units, "
        f"{count_parameters(run.template().params) // len(run.seeds):,} parameters; "
        f"{config.num_epochs:,} epochs of {run.steps_per_epoch:,} steps of {config.batch_size} images; {seeds}"
    )


def describe(config: Any) -> str:
    """The layer table of the config's network on its data set."""
    config = _as_of_today(config)
    image_shape, num_classes = image_shape_and_classes(config.dataset)
    return summarize(create_model(config, num_classes), cropped_shape(config.augmentation.crop, image_shape))


def create_model(config: Any, num_classes: int) -> Network:
    """The network of config.model.

    Raises:
        ValueError: a setting that the network does not have.
    """
    settings = with_tuples(config.model)
    known = set(inspect.signature(Network).parameters)
    if unknown := set(settings) - known:
        raise ValueError(f"config.model has unknown settings {sorted(unknown)}; use {', '.join(sorted(known))}")
    for own in ({}, *(s for s in settings.get("block_settings", ()) if isinstance(s, Mapping))):
        for name in ("num_iters", "cg_steps"):
            _check_at_most(f"model.{name}", {**settings, **own}.get(name), _MOST_ITERATIONS, "each takes its time")
    width = settings.get("width", 1)
    for features in (f for f in settings.get("features", ()) if isinstance(f, int) and isinstance(width, (int, float))):
        if features * width > _MOST_UNITS:
            raise ValueError(
                f"model.features = {features} times model.width = {width} are {features * width:.3g} units; "
                f"at most {_MOST_UNITS:,} are allowed"
            )
    return Network(num_classes=num_classes, **settings)


def cropped_shape(crop: int, image_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(height, width, channels) of the images that the network sees.

    Raises:
        ValueError: a crop larger than the images.
    """
    height, width, channels = image_shape
    if crop > min(height, width):
        raise ValueError(f"augmentation.crop = {crop}, but the images are {height} x {width}; use at most that, or 0")
    return (crop, crop, channels) if crop else (height, width, channels)


def _as_of_today(config: Any) -> Any:
    """A config of its own, of the same kind, from one that an earlier version may have written."""
    return type(config)(as_of_today(config.to_dict()))


def _check_at_most(name: str, value: Any, largest: int, why: str) -> None:
    """ValueError for a number above `largest`; what is no number is for others to refuse."""
    if isinstance(value, (int, float, np.number)) and value > largest:
        raise ValueError(f"{name} = {value}, but at most {largest:,} is allowed: {why}")


def _check_against_images(config: Any, dataset: Dataset) -> None:
    most = max(_MOST_EVALUATED, len(dataset.train_labels), len(dataset.test_labels))
    _check_at_most("eval_batch_size", config.eval_batch_size, most, "smaller sets are padded to it")
    height, width = dataset.train_images.shape[1:3]
    images = f"the images are {height} x {width}"
    _check_at_most("augmentation.pad", config.augmentation.pad, min(height, width) - 1, images)
    _check_at_most("augmentation.cutout", config.augmentation.cutout, 2 * max(height, width), images)


def _check_memory(run: Run) -> None:
    """ValueError for a state that no device can hold."""
    state = jax.tree.leaves(run.template())
    size, there = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in state), total_memory()
    if there is not None and size > there:
        raise ValueError(
            f"the network has {count_parameters(run.template().params):,} parameters for all seeds; with Adam's means "
            f"and the best ones so far they take {size / 1e9:.3g} GB, but there are {there / 1e9:.3g}: "
            "use a smaller model.width or model.features, or a smaller num_seeds"
        )


def _check_config(config: Any) -> None:
    for name in (*_FROM_0, *_FROM_1):
        check_integer(name, config[name], int(name in _FROM_1))
    if config.seed + config.num_seeds > 2**32:
        raise ValueError(f"seed = {config.seed} with num_seeds = {config.num_seeds}; all seeds must be below 2**32")
    _check_at_most("split_seed", config.split_seed, 2**64 - 1, "it has 64 bits")
    _check_at_most("num_seeds", config.num_seeds, _MOST_SEEDS, "all are trained as one program")
    _check_at_most(
        "optimizer.plateau.patience", config.optimizer.plateau.patience, _MOST_STEPS, "it is kept in 32 bits"
    )
    for name, value in flatten(config.to_dict()).items():
        if isinstance(value, float) and not abs(value) <= _LARGEST:
            raise ValueError(f"{name} = {value}, but it must be a number that float32 holds, up to {_LARGEST:.3g}")
    check_choice("matmul_precision", config.matmul_precision, MATMUL_PRECISIONS)
    check_number("loss.mse_weight", config.loss.mse_weight, 0)
    optimizer = config.optimizer
    if optimizer.schedule == "plateau" and optimizer.plateau.loss == "validation" and not config.num_validation:
        raise ValueError(
            "num_validation = 0, but the plateau rule watches the validation loss; set plateau.loss = 'train'"
        )
