"""Experiments on whole data sets: one file each, with `run(config, workdir)`; a config names its own."""

import importlib
from typing import Any

from deepnmf_jax.core.checks import check_choice
from deepnmf_jax.programs import home

EXPERIMENTS = (
    "accuracy",
    "clustering",
    "clustering_studies",
    "cost",
    "gradients",
    "local_learning",
    "robustness",
    "spikes",
    "variants",
)


def run(config: Any, mode: str, workdir: str) -> None:
    """Run the experiment `config.experiment`, which writes to the folder `workdir`.

    Raises:
        ValueError: an unknown experiment, or a mode other than "train": there is no network to evaluate or describe.
    """
    check_choice("experiment", config.experiment, EXPERIMENTS)
    if mode != "train":
        raise ValueError(f"--mode={mode} with the experiment {config.experiment!r}, which has no network; leave it out")
    importlib.import_module(f"deepnmf_jax.experiments.{config.experiment}").run(config, home(workdir))
