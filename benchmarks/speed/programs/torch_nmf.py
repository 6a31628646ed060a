"""A plain port of overcomplete's NMF updates to PyTorch, for benchmarks/speed/factorization.py.

Squared error, without penalties. Two things are as they should be instead of as released, in favour of the port: the
multiplicative rule multiplies Z (D D^T), not (Z D) D^T, which costs several times as much, and an atom without codes
keeps its dictionary row.
"""

import torch
from torch import Tensor

EPSILON = 1e-10


def multiplicative(a: Tensor, z: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Lee and Seung: A (n, p), Z (n, k), D (k, p) -> the next Z, D."""
    z = z * (a @ d.T) / (z @ (d @ d.T) + EPSILON)
    d = d * (z.T @ a) / ((z.T @ z) @ d + EPSILON)
    return z, d


def hals(a: Tensor, z: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Atom after atom; A (n, p), Z (n, k), D (k, p) -> the next Z, D."""
    z, d = z.clone(), d.clone()
    c, b = a @ d.T, d @ d.T
    for j in range(z.shape[1]):
        z[:, j] = torch.clamp(z[:, j] + (c[:, j] - z @ b[:, j]) / (b[j, j] + EPSILON), min=0)
    c, b = z.T @ a, z.T @ z
    for j in range(d.shape[0]):
        d[j] = torch.clamp(d[j] + (c[j] - b[j] @ d) / (b[j, j] + EPSILON), min=0)
    return z, d


UPDATES = {"mu": multiplicative, "hals": hals}
