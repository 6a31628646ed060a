"""Compiled programs on disk, where somebody asks for it and nowhere else."""

import subprocess
import sys
from pathlib import Path

import pytest

from deepnmf_jax import enable_compilation_cache

SCRIPT = """
import sys
import jax
import numpy as np
import deepnmf_jax

read = []
jax.monitoring.register_event_listener(lambda event, **_: read.append(event))
jax.jit(lambda x: x + 1)(1.0)  # before the folder is named
if len(sys.argv) > 1:
    deepnmf_jax.enable_compilation_cache(sys.argv[1])
deepnmf_jax.NMF(2, max_iter=2, tol=0).fit(np.arange(1.0, 13.0).reshape(4, 3))
print(read.count("/jax/compilation_cache/cache_hits"))
"""


def hits(*arguments: str) -> int:
    """Programs that a fit in a process of its own reads from disk."""
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, *arguments]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], check=True, capture_output=True, text=True)
    return int(done.stdout)


@pytest.mark.slow
def test_a_later_process_compiles_nothing_again(tmp_path: Path) -> None:
    folder = tmp_path / "not there yet"
    assert hits(str(folder)) == 0
    assert len(list(folder.iterdir())) >= 2
    assert hits(str(folder)) >= 2
    assert hits() == 0  # off by default


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        enable_compilation_cache(tmp_path / "file" / "cache")
