"""The authors' released PyTorch code, run from a clone of it: what a user of theirs waits for.

git clone https://github.com/mahbodnr/deep_nmf. The network comes from their config, loss and optimisers are theirs; a
step is what their loop does with a batch. Of their code nothing is here; it needs torch and jsmin.
"""

import importlib
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.speed.programs.torch_port import Peer, blocks_in_torch_order

NETWORK, RATES = "configs/networks/cnnmf_1x1cnn.json", "configs/config_lr_parameter.json"
# Their numbers for the kinds of layers: a network of convolutions differs from the released config in the first layer
# of each block alone, and has a bias there as ours has.
KINDS: dict[str, dict[str, Any]] = {
    "nmf": {},
    "conv": {"type_of_neuron_a": [2] * 4, "bias_norm_neuron_a": [True] * 4},
}
# The names of the rates in their config, in the order of their groups of parameters.
GROUPS = ("neuron_a", "neuron_b", "norm", "batchnorm2d")


class Training(Peer):
    """A network of theirs, its optimisers and one repeated batch; `step` is what is timed."""

    def __init__(self, folder: str, layer: str = "nmf"):
        """Builds the network.

        Args:
            folder: a clone of their repository.
            layer: "nmf", their CNMF+1x1, or "conv", the same with convolutions.

        Raises:
            ValueError: a package that their code imports is missing.
        """
        sys.path.insert(0, folder)
        config = _config(folder, NETWORK) | KINDS[layer]
        self.settings = _config(folder, RATES)
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(config, file)
            file.flush()
            make = _module("make_network").make_network
            network, groups, _ = make(28, 28, 3, torch.device("cpu"), config_network_filename=file.name)
        self.network = self.forward = network
        rates = [float(self.settings[f"lr_initial_{name}"]) for name in GROUPS]
        self.optimizers = [o for o in _module("make_optimize").make_optimize(groups, rates)[0] if o is not None]
        self.loss_of = _module("loss_function").loss_function

    def beside(self, tree: Mapping[str, Any]) -> Iterator[tuple[nn.Parameter, np.ndarray]]:
        """Every parameter, and what `tree` has for it in its shape: parameters of `deepnmf_jax.models.Network`, or
        their gradients."""
        modules = iter([m for m in self.network if next(m.parameters(), None) is not None])
        for ours in blocks_in_torch_order(tree):
            norms = len(ours) > 4
            layer, first = next(modules), next(modules) if norms else None
            mix, second = next(modules), next(modules) if norms else None
            parameters = [p for m in (layer, mix, first, second) if m is not None for p in m.parameters()]
            yield from ((p, a.reshape(p.shape)) for p, a in zip(parameters, ours, strict=True))

    def gradient(self) -> float:
        """Loss of the batch; its gradient goes to the parameters."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        output = self.network(self.images)
        loss: Tensor = self.loss_of(
            h=output,
            labels=self.labels,
            number_of_output_neurons=output.shape[1],
            loss_mode=int(self.settings["loss_mode"]),
            loss_coeffs_mse=float(self.settings["loss_coeffs_mse"]),
            loss_coeffs_kldiv=float(self.settings["loss_coeffs_kldiv"]),
        )
        loss.backward()
        return loss.item()

    def step(self) -> None:
        """Forward, backward and Adam, as in their loop."""
        self.gradient()
        for optimizer in self.optimizers:
            optimizer.step()


def _module(name: str) -> Any:
    """A module of theirs; their folder is on the path."""
    try:
        return importlib.import_module(f"tools.{name}")
    except ModuleNotFoundError as error:
        raise ValueError(f"the authors' code needs {error.name}: pip install {error.name}") from error


def _config(folder: str, name: str) -> dict[str, Any]:
    """A config of theirs: JSON with comments."""
    lines = (Path(folder) / name).read_text().splitlines()
    return json.loads("\n".join(line.partition("//")[0] for line in lines))
