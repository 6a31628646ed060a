"""Compiled programs: kept on disk if asked, and given up before they fill the memory, where JAX keeps each for good.

Data of a new shape compiles programs of its own, about ten for a fit. Each takes about 2.6 MB and, on a CPU, 40 memory
mappings, of which Linux gives a process 65,530 by default and aborts it beyond. Those who fit matrices of ever new
shapes, a class or a fold at a time, would get there after some 150 of them.

JAX has no way to give up some programs only that also reaches its own (one for each operation outside of jit): so all
go, those of the user too, which are compiled again when they are next called. Whoever is far from the bound never pays.
"""

import errno
import functools
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

try:
    from jax.extend.core import get_opaque_trace_state as trace_state
except ImportError:  # where an older JAX has it
    from jax.core import get_opaque_trace_state as trace_state

# Programs that may be kept: about 0.6 GB.
PROGRAMS = 200
# Mappings that they may add, where the system counts them; of what is left to the process at most half.
MAPPINGS = 20_000
# Programs between two looks: a look takes milliseconds, to compile so many a second or more.
LOOK_EVERY = 16
EVENT = "/jax/core/compile/backend_compile_duration"


def mappings() -> int | None:
    """Memory mappings of this process; None where the system does not say."""
    try:
        return Path("/proc/self/maps").read_bytes().count(b"\n")
    except OSError:
        return None


def most_mappings() -> int:
    """How many mappings the system gives a process."""
    try:
        return int(Path("/proc/sys/vm/max_map_count").read_bytes())
    except (OSError, ValueError):
        return 65_530


def _state() -> Any:
    return trace_state(convention="deepnmf_jax")


@functools.cache
def _outside() -> Any:
    # In a thread of its own, since the first call may come from where something is traced; and not at import: a thread
    # before `training.devices.keep_freed_memory` would take the effect from it.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_state).result()


def is_tracing() -> bool:
    """Whether this thread is inside jit, grad or vmap."""
    return _state() != _outside()


def at_once() -> AbstractContextManager:
    """Context that computes what is known now, where somebody else is tracing.

    Outside of tracing it does nothing: within JAX's own context each program would be traced and compiled anew.
    """
    return jax.ensure_compile_time_eval() if is_tracing() else nullcontext()


def enable_compilation_cache(folder: str | os.PathLike = "~/.cache/deepnmf_jax") -> None:
    """Keep compiled programs in a folder, of this process and all later ones: what they compile again is read there.

    It is JAX's persistent cache, for all programs of the process and not this package's alone, so a library leaves it
    off. Call it once, at the start. Another version of JAX or another device reads none of them; the folder may be
    removed at any time.

    Args:
        folder: where; made if it is not there. `~` is the home folder.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    path = os.path.abspath(os.path.expanduser(folder))
    os.makedirs(path, exist_ok=True)
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "no permission to write", path)
    jax.config.update("jax_compilation_cache_dir", path)
    # JAX's own bound of a second would leave out what a fit compiles.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    # JAX looks for the folder once, before the first program.
    compilation_cache.reset_cache()


class Bound:
    """Counts what JAX compiles in this process, and gives it up when it is too much."""

    def __init__(self, programs: int = PROGRAMS, most: int = MAPPINGS, look_every: int = LOOK_EVERY) -> None:
        self.programs, self.most, self.look_every = programs, most, look_every
        # Programs since they were last given up, and the count at which to look; mappings that were left over then.
        self.compiled, self.next_look, self.floor = 0, look_every, 0
        self.times = 0
        self._lock = threading.Lock()

    def count(self, event: str, _seconds: float, **_: Any) -> None:
        """Listens to JAX."""
        if event == EVENT:
            self.compiled += 1

    def is_reached(self) -> bool:
        """Whether there are too many programs, or too many mappings."""
        now = mappings()
        if now is None or self.compiled >= self.programs:
            return self.compiled >= self.programs
        return now - self.floor > min(self.most, (most_mappings() - self.floor) // 2)

    def keep(self) -> None:
        """Gives up all compiled programs if there are too many. Does nothing while something is traced.

        Other threads may compute and compile meanwhile: a program that runs stays until it is done.
        """
        if self.compiled < self.next_look or is_tracing() or not self._lock.acquire(blocking=False):
            return
        try:
            self.next_look = self.compiled + self.look_every
            if self.is_reached():
                jax.clear_caches()
                self.compiled, self.next_look, self.floor = 0, self.look_every, mappings() or 0
                self.times += 1
        finally:
            self._lock.release()


BOUND = Bound()
jax.monitoring.register_event_duration_secs_listener(lambda *given, **more: BOUND.count(*given, **more))


def keep_bounded() -> None:
    """Called before each computation whose shapes are the user's: fits, codes, inference and layers outside of jit."""
    BOUND.keep()
