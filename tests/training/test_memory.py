"""The temporary memory of a step stays with the process."""

import os
import platform
import subprocess
import sys

import pytest

# Repetitions of a program with a temporary array of 100 MB, in a fresh process: page faults of a middling one.
PROGRAM = """
import resource, sys
import jax, jax.numpy as jnp
from deepnmf_jax.training import devices

if sys.argv[1] == "as main.py":
    devices.start("", None, None, None)
run = jax.jit(lambda a: jnp.outer(a, a) @ a)
a = jnp.arange(5000.0)
faults = []
for _ in range(40):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    run(a).block_until_ready()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
# The first ones still find no free block that is large enough: small ones lie in it.
print(sorted(faults[30:])[5])
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_repetitions_ask_the_system_for_no_new_pages():
    def faults(how):
        environment = os.environ | {"JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-c", PROGRAM, how]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        return int(done.stdout)

    kept, returned = faults("as main.py"), faults("as it comes")
    assert kept < 200
    # Otherwise the program above shows nothing.
    assert returned > 2000
