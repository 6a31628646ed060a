"""The temporary memory of a step stays with the process."""

import platform
import subprocess
import sys
from functools import partial

import pytest

from tests.programs import Programs


def repeat(as_main: bool) -> None:
    """Prints the page faults of a middling repetition of a program with a temporary array of 100 MB."""
    import resource

    import jax
    import jax.numpy as jnp

    from deepnmf_jax.training import devices

    if as_main:
        devices.start("", None, None, None)
    run = jax.jit(lambda a: jnp.outer(a, a) @ a)
    a = jnp.arange(5000.0)
    faults = []
    # The first ones still find no free block that is large enough: small ones lie in it.
    for _ in range(40 if as_main else 12):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        run(a).block_until_ready()
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    print(sorted(faults[-10:])[5])


GLIBC_ALONE = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
# Prints how many arenas the C library has when `main.py` has imported all that it needs.
ARENAS = """
import ctypes, os, tempfile
from deepnmf_jax import command_line, experiments
from deepnmf_jax.training import devices, loop, reports, setup, tuning

libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
libc.fclose.argtypes = [ctypes.c_void_p]
with tempfile.NamedTemporaryFile() as file:
    stream = libc.fopen(file.name.encode(), b"w")
    libc.malloc_info(0, stream)
    libc.fclose(stream)
    print(file.read().count(b"<heap nr="))
"""


@pytest.mark.slow
@GLIBC_ALONE
def test_there_is_one_arena_before_the_setting() -> None:
    """Threads of XLA would take turns with a second one, and what they allocate there goes back to the system."""
    found = subprocess.run([sys.executable, "-c", ARENAS], capture_output=True, text=True, check=True)
    assert found.stdout == "1\n"


@pytest.mark.slow
@GLIBC_ALONE
def test_repetitions_ask_the_system_for_no_new_pages(programs: Programs) -> None:
    kept, returned = (int(programs.call(partial(repeat, as_main)).end(0).stdout) for as_main in (True, False))
    assert kept < 200
    # Otherwise the program above shows nothing.
    assert returned > 2000
