"""What a result depends on besides its config, and which packages a run does without."""

import datetime
import importlib
import importlib.metadata
import logging
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

_log = logging.getLogger(__name__)
# Names the commit of a copy of the repository whose git does not know it.
COMMIT = "DEEPNMF_COMMIT"
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def environment(*packages: str) -> dict[str, Any]:
    """What a result depends on besides its config: versions (of further `packages`, too; None: not installed), commit,
    devices, machine, settings of the arithmetic; its memory so far, bytes; and the UTC date."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in (*_PACKAGES, *packages):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    # The package's own is asked of the code that runs, which need not be what is installed.
    versions["deepnmf_jax"] = getattr(sys.modules["deepnmf_jax"], "__version__", None)
    return {
        "versions": versions,
        "commit": os.environ.get(COMMIT) or git_commit(Path(__file__).parent),
        **_arithmetic(),
        "platform": platform.platform(),
        "peak_memory": peak_memory(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _arithmetic() -> dict[str, Any]:
    devices = jax.devices()
    return {
        "device": devices[0].device_kind,
        "device_backend": devices[0].platform,
        "device_count": len(devices),
        "process_count": jax.process_count(),
        "cpu": processor(),
        "cpu_count": usable_cores(),
        "x64": bool(jax.config.jax_enable_x64),  # type: ignore[attr-defined]
        "jit": not jax.config.jax_disable_jit,  # type: ignore[attr-defined]
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def same_bits() -> dict[str, Any]:
    """What must be as it was for a run to end with the same bits: its arithmetic and the versions of what compiles
    it."""
    return _arithmetic() | {package: importlib.metadata.version(package) for package in ("jax", "jaxlib")}


def changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What of `before` is otherwise now, in words; empty: nothing."""
    differing = [key for key in before if before[key] != now.get(key)]
    return "; ".join(f"{key}: {before[key]!r} then, {now.get(key)!r} now" for key in differing)


def processor() -> str:
    """The name of the processor, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def usable_cores() -> int | None:
    """The processor cores that this process may run on, which can be fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def peak_memory() -> int | None:
    """The most memory held so far, bytes: the first accelerator's, or, without one, this process's.

    None where the system does not tell (Windows, devices without statistics).
    """
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("peak_bytes_in_use")
    status = Path("/proc/self/status")
    if status.exists():
        # What getrusage says on Linux is at least what the parent held when it started this process.
        return next((int(x.split()[1]) * 1024 for x in status.read_text().splitlines() if x.startswith("VmHWM")), None)
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def total_memory() -> int | None:
    """The memory of the first device, bytes: the accelerator's, or else this machine's, as far as it may be used.

    None where the system does not tell.
    """
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit")
    if not hasattr(os, "sysconf") or not {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= os.sysconf_names.keys():
        return None
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # Of a container, which may use a part of it.
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else ""
    return min(total, int(text)) if text.isdecimal() else total


def git_commit(folder: Path) -> str | None:
    """The commit of the checkout that tracks `folder`, with "+changes" if tracked Python files differ from it.

    None where there is no git, no checkout, no commit yet, or where the checkout does not track the folder
    (a package installed inside somebody else's repository).
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        if not git("ls-files", "--", "."):
            return None
        commit = git("rev-parse", "HEAD")
        # Other files are records and words: a benchmark writes its results where the next one finds them.
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/*.py")
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return commit + "+changes" if changed else commit


def installed(package: str, what: str) -> bool:
    """Whether a package is there that a run can do without; if not, the log says what there will be none of."""
    try:
        importlib.import_module(package)
    except ImportError as error:
        _log.info("no %s: %s", what, error)
        return False
    return True
