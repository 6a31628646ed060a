"""The temporary memory of a step stays with the process."""

import platform
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


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_repetitions_ask_the_system_for_no_new_pages(programs: Programs) -> None:
    kept, returned = (int(programs.call(partial(repeat, as_main)).end(0).stdout) for as_main in (True, False))
    assert kept < 200
    # Otherwise the program above shows nothing.
    assert returned > 2000
