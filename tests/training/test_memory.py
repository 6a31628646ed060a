"""The temporary memory of a step stays with the process."""

import platform
import subprocess
import sys

import pytest

# Repetitions of a program with temporary arrays of 16 MB, in a fresh process: page faults of a middling one.
PROGRAM = """
import resource, sys
import jax, jax.numpy as jnp
from deepnmf_jax.training.devices import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
run = jax.jit(lambda a: (jnp.outer(a, a) @ jnp.outer(a + 1, a)).sum())
a = jnp.arange(2000.0)
faults = []
for _ in range(10):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    run(a).block_until_ready()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sorted(faults)[4])
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_repetitions_ask_the_system_for_no_new_pages():
    def faults(how):
        done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    kept, returned = faults("keep"), faults("return")
    assert kept < 200
    # Otherwise the program above shows nothing.
    assert returned > 2000
