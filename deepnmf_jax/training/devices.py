"""One mesh axis over the devices of all processes: batches are split along it, everything else is on each device."""

import contextlib
import ctypes
import faulthandler
import importlib.metadata
import importlib.util
import inspect
import logging
import os
import platform
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from deepnmf_jax.compiled import enable_compilation_cache
from deepnmf_jax.programs import Ended, sentence

_log = logging.getLogger(__name__)
DATA = "data"
# Seconds without a sign of life after which a process counts as gone; a check is due within as many again at most.
_SILENCE = 50
# Seconds that a process which has failed waits for the others, which may have failed alike.
_FAREWELL = 10
MATMUL_PRECISIONS = ("float32", "tensorfloat32")
# Parameters of glibc's mallopt (malloc.h).
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Makes this process keep the memory that a step frees, for the next step.

    Call it before JAX starts its threads, that is before the first array: a thread that has allocated has an arena of
    its own for good, and only the first arena keeps blocks above 64 MB.

    XLA allocates the temporary arrays of a program anew at each call, on the CPU from the C library; glibc gives
    blocks of that size back to the system, which then hands out zeroed pages one fault at a time: a third of the
    step's time (docs/reports/speed.md). The process keeps its largest footprint until it ends.

    Returns:
        Whether the C library has the setting (glibc has, on Linux).
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all([mallopt(_ARENA_MAX, 1), mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, 2**31 - 1)])


def start(cache: str, coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Memory, compilation cache and, in a run of several processes, the connection between them; logs the devices.

    Args:
        cache: folder of compiled programs; empty: none.
        coordinator: host:port of the first process; None: there is only this one.
        num_processes: how many there are.
        process_id: which of them this is, from 0.

    Raises:
        RuntimeError: JAX has no device of the kind that JAX_PLATFORMS names, or does not reach the coordinator.
        ValueError: settings of JAX or of the processes that cannot be.
    """
    if coordinator is None and (num_processes is not None or process_id is not None):
        raise ValueError("--num_processes and --process_id need --coordinator=host:port, of the first process")
    if num_processes is not None and process_id is not None and not 0 <= process_id < num_processes:
        raise ValueError(f"--process_id={process_id} with --num_processes={num_processes}; they count from 0")
    # On a GPU the steps allocate nothing on the host, and the threads of its compiler would share the one arena.
    if not _accelerator_expected():
        keep_freed_memory()
    if cache and _usable(cache):
        enable_compilation_cache(cache)
    if coordinator:
        _join(coordinator, num_processes, process_id)
    # Where an accelerator's plugin is installed and the accelerator is not there: late, which helps smaller blocks.
    if backend() == "cpu":
        keep_freed_memory()
    _log.info("devices: %s", ", ".join(map(str, jax.devices())))


def backend() -> str:
    """The kind of JAX's default device, "cpu", "gpu" or another; from here on JAX has its devices.

    Raises:
        RuntimeError: JAX has no device of the kind that JAX_PLATFORMS names.
    """
    try:
        return str(jax.default_backend())
    except (AssertionError, RuntimeError) as error:
        asked = os.environ.get("JAX_PLATFORMS") or "its default"
        # The first line: JAX adds how to leave plugins out. For a device whose plugin is missing it only asserts.
        reason = str(error).partition("\n")[0].partition(" (")[0].rstrip(".")
        raise RuntimeError(
            f"JAX finds no device of the kind {asked!r} (JAX_PLATFORMS){f': {reason}' if reason else ''}; unset that "
            "variable, set it to cpu, or install JAX for that device (https://docs.jax.dev/en/latest/installation.html)"
        ) from error


def _usable(cache: str) -> bool:
    """Whether programs can be kept there; if not, a warning says why: JAX would say so for each of them."""
    try:
        os.makedirs(cache, exist_ok=True)
        if os.access(cache, os.W_OK | os.X_OK):
            return True
        reason = "no permission to write"
    except OSError as error:
        reason = str(error.strerror)
    _log.warning("no compiled programs are kept in %s: %s; another --compilation_cache is possible", cache, reason)
    return False


def _join(coordinator: str, num_processes: int | None, process_id: int | None) -> None:
    known = inspect.signature(jax.distributed.initialize).parameters
    # Old versions of JAX wait for 100 s and cannot be told otherwise.
    patience: dict[str, Any] = {"heartbeat_timeout_seconds": _SILENCE} if "heartbeat_timeout_seconds" in known else {}
    jax.distributed.initialize(coordinator, num_processes, process_id, **patience)
    # Where another process is silent, JAX says so and aborts; the stacks of Python's threads would hide its message.
    faulthandler.disable()
    _log.info(
        "process %d of %d; where one fails, is stopped or killed the others end within two minutes, and all started "
        "again go on from the last checkpoint",
        jax.process_index(),
        jax.process_count(),
    )


def leave(error: Exception) -> None:
    """Ends this process with a message and status 1, if it is one of several: the others must not wait for it.

    At its end JAX waits for the others for five minutes; they, in turn, wait for this one in what they compute. When it
    is gone, so is the connection, and they end too. Where all fail alike, such as by a wrong setting, each has
    `_FAREWELL` seconds for its own message.
    """
    if jax.process_count() == 1 or isinstance(error, Ended):
        return
    who = f"process {jax.process_index()} of {jax.process_count()}"
    again = "start all of them again to go on from the last checkpoint"
    lost = _lost_connection(error)
    if lost:
        reason = str(lost).strip().partition("\n")[0]
        reason = reason if len(reason) <= 200 else f"{reason[:80]} ... {reason[-120:]}"
        failed = f"what the processes compute together failed, as it does where another one has ended ({reason})"
        text = f"{failed}; see what the others say, and {again}"
    else:
        if (said := sentence(error)) is None:
            traceback.print_exception(error)
        text = f"{said or type(error).__name__}; the others end with this one: {again}"
    print(f"{who}: {text}", file=sys.stderr, flush=True)
    if not lost:
        farewell = threading.Thread(target=jax.distributed.shutdown, daemon=True)
        farewell.start()
        farewell.join(_FAREWELL)
    os._exit(1)


def _lost_connection(error: BaseException | None) -> BaseException | None:
    """The error, among this one and its causes, that says that another process has ended; None: there is none."""
    while error:
        # On a CPU some come as ValueError.
        if isinstance(error, (OthersGoneError, jax.errors.JaxRuntimeError)) or "Gloo" in str(error):
            return error
        error = error.__cause__
    return None


def _accelerator_expected() -> bool:
    """Whether JAX may find a device that is no CPU, told without starting JAX (and so its threads)."""
    if platforms := jax.config.jax_platforms:  # type: ignore[attr-defined]
        return platforms != "cpu"
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return bool(plugins) or any(importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu"))


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


class OthersGoneError(RuntimeError):
    """The processes of a run cannot reach each other any more."""


def barrier(name: str) -> None:
    """Returns once every process of the run has called it with this name.

    Raises:
        OthersGoneError: another process has ended.
    """
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        with _reaching_others():
            multihost_utils.sync_global_devices(f"deepnmf_jax: {name}")


def from_all_processes(values: np.ndarray | np.generic) -> np.ndarray:
    """An array of each process of the run, all of one shape, along a new first axis; they call it at one moment.

    Raises:
        OthersGoneError: another process has ended.
    """
    if jax.process_count() == 1:
        return np.asarray(values)[None]
    from jax.experimental import multihost_utils

    with _reaching_others():
        return np.asarray(multihost_utils.process_allgather(values))


@contextlib.contextmanager
def _reaching_others() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as error:  # by the backend
        raise OthersGoneError(str(error)) from error


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
