"""One mesh axis over the devices of all processes: batches are split along it, everything else is on each device."""

import logging
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_log = logging.getLogger(__name__)
DATA = "data"


def data_mesh(batch_size: int) -> Mesh:
    """The mesh over as many devices as divide `batch_size`, the same number in each process.

    Logs one line if that leaves devices unused.

    Raises:
        ValueError: the number of processes does not divide the batch.
    """
    processes = jax.process_count()
    if batch_size % processes:
        raise ValueError(f"batch_size = {batch_size} must be a multiple of the {processes} processes")
    local = jax.local_device_count()
    used = max(d for d in range(1, local + 1) if batch_size % (d * processes) == 0)
    if used < local:
        _log.warning(
            "batch_size = %d: %d of %d devices a process are used, as many as divide it", batch_size, used, local
        )
    devices = [d for p in range(processes) for d in [d for d in jax.devices() if d.process_index == p][:used]]
    return Mesh(np.asarray(devices), (DATA,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split_last_axis(mesh: Mesh, rank: int) -> NamedSharding:
    """The last axis of an array of this rank split over the devices."""
    return NamedSharding(mesh, PartitionSpec(*[None] * (rank - 1), DATA))


def place(tree: Any, sharding: NamedSharding) -> Any:
    """Host arrays, equal in every process, as arrays on the devices of the mesh."""

    def one(leaf: Any) -> jax.Array:
        values = np.asarray(leaf)
        return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])

    return jax.tree.map(one, tree)
