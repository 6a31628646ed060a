"""Adam with a learning rate a parameter group, and the rules by which the rates change."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax
import optax.contrib

from deepnmf_jax.core.checks import check_choice, check_integer, check_number

GROUPS = ("nmf", "mixing", "batch_norm")
SCHEDULES = ("constant", "plateau", "one_cycle")


def parameter_group(path: tuple[Any, ...]) -> str:
    """Group of the parameter at a path like block1/mix/kernel: "mixing", "batch_norm", or "nmf" for all others.

    The convolutions that stand in place of NMF belong to "nmf", as in the authors' optimisers.
    """
    names = {getattr(key, "key", None) for key in path}
    if "mix" in names:
        return "mixing"
    return "batch_norm" if names & {"bn_a", "bn_b", "bn_pool"} else "nmf"


def _schedule(settings: Mapping[str, Any], rate: float, num_steps: int) -> optax.Schedule | float:
    if settings["schedule"] != "one_cycle":
        return rate
    cycle = settings["one_cycle"]
    return optax.cosine_onecycle_schedule(
        transition_steps=num_steps,
        peak_value=rate,
        pct_start=cycle["warmup_share"],
        div_factor=cycle["start_divisor"],
        final_div_factor=cycle["end_divisor"],
    )


def create_optimizer(settings: Mapping[str, Any], num_steps: int) -> optax.GradientTransformation:
    """Adam for each parameter group, with the rate and schedule that `settings` (config.optimizer) names.

    Args:
        settings: `learning_rate` (a rate for each of "nmf", "mixing", "batch_norm"), `b1`, `b2`, `eps`, `schedule`
            and, for that schedule, `one_cycle`.
        num_steps: of the whole training, the length of a one-cycle schedule.

    Raises:
        ValueError: an unknown schedule or group, or a number outside what configs/base.py allows for it.
    """
    if set(rates := settings["learning_rate"]) != set(GROUPS):
        raise ValueError(f"learning_rate has groups {sorted(rates)}; it must have {', '.join(GROUPS)}")
    check_choice("optimizer.schedule", settings["schedule"], SCHEDULES)
    for name, rate in rates.items():
        check_number(f"optimizer.learning_rate.{name}", rate, 0, above=True)
    check_number("optimizer.eps", settings["eps"], 0, above=True)
    for name in ("b1", "b2"):
        check_number(f"optimizer.{name}", settings[name], 0, 1, below=True)
    if settings["schedule"] == "one_cycle":
        cycle = settings["one_cycle"]
        check_number("optimizer.one_cycle.warmup_share", cycle["warmup_share"], 0, 1, above=True, below=True)
        for name in ("start_divisor", "end_divisor"):
            check_number(f"optimizer.one_cycle.{name}", cycle[name], 0, above=True)
    transforms = {
        name: optax.adam(
            _schedule(settings, rate, num_steps), b1=settings["b1"], b2=settings["b2"], eps=settings["eps"]
        )
        for name, rate in rates.items()
    }
    return optax.multi_transform(
        transforms,
        lambda params: jax.tree_util.tree_map_with_path(lambda path, _: parameter_group(path), params),
    )


def create_plateau(settings: Mapping[str, Any]) -> optax.GradientTransformationExtraArgs:
    """The paper's rule (section 2.6): the rates fall by `factor` where the loss of an epoch no longer falls.

    Updated once an epoch; its state's `scale` multiplies all updates. `patience` counts as in PyTorch, where it is
    the number of epochs without improvement that are tolerated; optax's reduces at that number already.

    Raises:
        ValueError: a number of settings["plateau"] outside what configs/base.py allows for it, or an unknown loss.
    """
    plateau = settings["plateau"]
    check_choice("optimizer.plateau.loss", plateau["loss"], ("validation", "train"))
    check_integer("optimizer.plateau.patience", plateau["patience"], 0)
    for name in ("factor", "threshold"):
        check_number(f"optimizer.plateau.{name}", plateau[name], 0, 1, above=True, below=True)
    check_number("optimizer.plateau.smallest_rate", plateau["smallest_rate"], 0, above=True)
    return optax.contrib.reduce_on_plateau(
        factor=plateau["factor"],
        patience=plateau["patience"] + 1,
        rtol=plateau["threshold"],
        atol=0.0,
        cooldown=0,
    )


def update_plateau(plateau: optax.GradientTransformationExtraArgs, state: Any, loss: jax.Array) -> Any:
    """The plateau state after an epoch with this loss."""
    return plateau.update({}, state, value=loss)[1]


def rates_exhausted(settings: Mapping[str, Any], scale: np.ndarray) -> bool:
    """Whether the plateau rule has brought the largest rate (of every seed) to `smallest_rate`, compared in float32."""
    if settings["schedule"] != "plateau":
        return False
    largest = np.float32(max(settings["learning_rate"].values())) * np.asarray(scale, np.float32)
    return bool(np.all(largest <= np.float32(settings["plateau"]["smallest_rate"]) * np.float32(1 + 1e-5)))


def learning_rates(settings: Mapping[str, Any], num_steps: int, step: int, scale: np.ndarray) -> dict[str, np.ndarray]:
    """The rate of each parameter group at a step, `scale` being that of the plateau rule (of every seed)."""
    rates = {name: _schedule(settings, rate, num_steps) for name, rate in settings["learning_rate"].items()}
    return {
        f"learning_rate_{name}": np.asarray(rate(step) if callable(rate) else rate) * np.asarray(scale)
        for name, rate in rates.items()
    }
