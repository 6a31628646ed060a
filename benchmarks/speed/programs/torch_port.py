"""The four-block network in plain PyTorch: what our speed is measured against.

Written from the paper's equations, features last inside the blocks. `Peer.load` copies the weights of our networks, so
that tests/benchmarks/test_speed.py and benchmarks/speed/step.py can show that both compute the same loss and gradients.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEATURES = (32, 64, 96, 10)
KERNELS = (5, 5, 4, 1)


class ApproximateNMF(torch.autograd.Function):
    """h after `num_iters` EM steps, with the paper's one-step gradient (eq. 13, 17 to 19)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, num_iters: int) -> Tensor:
        """x (rows, n) and w (k, n), rows summing to 1 -> h (rows, k)."""
        h = x.new_full((x.shape[0], w.shape[0]), 1 / w.shape[0])
        for _ in range(num_iters):
            h = h * ((x / (h @ w + 1e-20)) @ w.T)
            h = h / (h.sum(-1, keepdim=True) + 1e-20)
        ctx.save_for_backward(x, w, h)
        return h

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None]:
        """Cotangent of h (rows, k) -> those of x and w."""
        x, w, h = ctx.saved_tensors
        v, r = h * g, h @ w + 1e-20
        f = x / r
        grad_x = (v @ w) / r
        return grad_x, v.T @ f - h.T @ (f * grad_x), None


def unit_rows(a: Tensor) -> Tensor:
    """a (..., n), non-negative, divided by its sums along the last axis (1e-12 at least)."""
    return a / a.sum(-1, keepdim=True).clamp_min(1e-12)


class Block(nn.Module):
    """NMF or convolution of normalised patches, batch norm, 1x1 convolution, batch norm, pooling."""

    def __init__(self, channels: int, features: int, kernel: int, layer: str, num_iters: int, spatial: bool):
        super().__init__()
        self.kernel, self.layer, self.num_iters, self.features = kernel, layer, num_iters, features
        self.weight = nn.Parameter(torch.rand(features, channels * kernel**2))
        self.bias = nn.Parameter(torch.zeros(features)) if layer == "conv" else None
        self.mix = nn.Linear(features, features)
        self.norms = nn.ModuleList(nn.BatchNorm1d(features) for _ in range(2 * spatial))

    def forward(self, x: Tensor) -> Tensor:
        """x (batch, channels, height, width) of any sign -> (batch, features, height', width')."""
        batch, side = x.shape[0], x.shape[-1] - self.kernel + 1
        patches = F.unfold(F.relu(x), self.kernel) if self.kernel > 1 else F.relu(x).flatten(2)
        x = unit_rows(patches.transpose(1, 2).reshape(-1, patches.shape[1]))
        if self.layer == "nmf":
            x = ApproximateNMF.apply(x, unit_rows(self.weight.abs()), self.num_iters)
        else:
            x = F.linear(x, self.weight, self.bias)
        if self.norms:
            x = self.norms[0](x)
        x = self.mix(unit_rows(F.relu(x)))
        if self.norms:
            x = self.norms[1](x)
        x = x.reshape(batch, side, side, self.features).permute(0, 3, 1, 2)
        return F.avg_pool2d(x, 2) if self.norms else x


class Network(nn.Module):
    """CNMF+1x1 (layer "nmf") or CNN+1x1 ("conv") for images (batch, 3, 28, 28)."""

    def __init__(self, layer: str = "nmf", num_iters: int = 20):
        super().__init__()
        channels = (3, *FEATURES)
        self.blocks = nn.ModuleList(
            Block(channels[i], FEATURES[i], KERNELS[i], layer, num_iters, spatial=i < 2) for i in range(4)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images in [0, 1] -> logits (batch, 10)."""
        for block in self.blocks:
            images = block(images)
        return images.flatten(1)

    def beside(self, tree: Mapping[str, Any]) -> Iterator[tuple[nn.Parameter, np.ndarray]]:
        """Every parameter, and what `tree` has for it in its order: parameters of `deepnmf_jax.models.Network`, or
        their gradients."""
        for block, ours in zip(self.blocks, blocks_in_torch_order(tree), strict=True):
            bias = [block.bias] if block.layer == "conv" else []
            norms = [p for norm in block.norms for p in (norm.weight, norm.bias)]
            yield from zip([block.weight, *bias, block.mix.weight, block.mix.bias, *norms], ours, strict=True)


def blocks_in_torch_order(tree: Mapping[str, Any]) -> Iterator[list[np.ndarray]]:
    """Of each block of `deepnmf_jax.models.Network`: weights (and the bias of a convolution), weights and bias of the
    1x1, scale and bias of the batch norms. `tree` has its parameters or their gradients."""
    for i, kernel in enumerate(KERNELS):
        ours = tree[f"block{i + 1}"]
        if "nmf" in ours:
            arrays = [to_torch_order(np.asarray(ours["nmf"]["u"]), kernel)]
        else:
            arrays = [to_torch_order(np.asarray(ours["conv"]["kernel"])[0].T, kernel), np.asarray(ours["conv"]["bias"])]
        arrays += [np.asarray(ours["mix"]["kernel"]).T.copy(), np.asarray(ours["mix"]["bias"])]
        yield arrays + [
            np.asarray(ours[norm][name]) for norm in ("bn_a", "bn_b") if norm in ours for name in ("scale", "bias")
        ]


def to_torch_order(rows: np.ndarray, kernel: int) -> np.ndarray:
    """Rows (k, kernel * kernel * c) with entries (position, channel) -> entries (channel, position), as F.unfold's."""
    k = rows.shape[0]
    return rows.reshape(k, kernel**2, -1).transpose(0, 2, 1).reshape(k, -1).copy()


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Eq. 21 summed over the batch, over 15: the authors' scaling."""
    h = torch.softmax(logits, -1)
    y = F.one_hot(labels, logits.shape[-1]).to(h)
    return (0.5 * (h - y).square().sum() - (y * torch.log(h + 1e-20)).sum()) / (1.5 * logits.shape[-1])


class Peer:
    """A network in PyTorch, `network`, run as `forward` on one repeated batch on `device`."""

    network: nn.Module
    forward: Callable[[Tensor], Tensor]
    device = "cpu"

    def beside(self, tree: Mapping[str, Any]) -> Iterator[tuple[nn.Parameter, np.ndarray]]:
        """Every parameter, and what `tree` has for it in its shape: parameters of `deepnmf_jax.models.Network`, or
        their gradients."""
        raise NotImplementedError

    def load(self, params: Mapping[str, Any]) -> None:
        """Copies the parameters of `deepnmf_jax.models.Network`."""
        with torch.no_grad():
            for parameter, ours in self.beside(params):
                parameter.copy_(torch.tensor(ours))

    def feed(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Images (batch, height, width, 3) in [0, 1] and labels (batch,) of the steps to come."""
        self.images = torch.tensor(images, device=self.device).permute(0, 3, 1, 2).contiguous()
        self.labels = torch.tensor(labels, device=self.device).long()

    def inference(self) -> None:
        """The forward alone, in evaluation."""
        with torch.no_grad():
            self.network.eval()
            self.forward(self.images)
            self.network.train()


class Training(Peer):
    """The port, its Adam groups and one repeated batch; `step` is what is timed."""

    network: Network

    def __init__(self, layer: str, num_iters: int = 20, compiled: bool = False, device: str = "cpu"):
        self.device = device
        self.network = Network(layer, num_iters).to(device)
        weights = [block.weight for block in self.network.blocks]
        chosen = {id(p) for p in weights}
        rest = [p for p in self.network.parameters() if id(p) not in chosen]
        self.optimizer = torch.optim.Adam([{"params": weights, "lr": 0.01}, {"params": rest, "lr": 0.001}])
        self.forward = torch.compile(self.network) if compiled else self.network

    def beside(self, tree: Mapping[str, Any]) -> Iterator[tuple[nn.Parameter, np.ndarray]]:
        """See `Network.beside`."""
        return self.network.beside(tree)

    def gradient(self) -> float:
        """Loss of the batch; its gradient goes to the parameters."""
        return self._backward().item()

    def step(self) -> None:
        """Forward, backward, Adam; on a GPU, nothing waits for the result."""
        self._backward()
        self.optimizer.step()

    def _backward(self) -> Tensor:
        self.optimizer.zero_grad()
        loss = loss_of(self.forward(self.images), self.labels)
        loss.backward()
        return loss.detach()
