"""A run with checkpoints for the tests of this folder."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_dtypes
import numpy as np
import pytest

from deepnmf_jax.training.checkpoints import Checkpoints


class State(NamedTuple):
    step: Any
    params: Any
    opt_state: Any


def make_state(step: int) -> State:
    rng = np.random.default_rng(step)
    return State(
        step=np.asarray(step, np.int32),
        params={"block.0": {"w": rng.random((4, 12), np.float32), "bias/1": rng.random(4)}},
        opt_state=(
            {},
            (rng.random((4, 12), np.float32), np.asarray(rng.random(3), ml_dtypes.bfloat16)),
            [np.asarray(True), None, rng.integers(0, 9, 5, np.uint32)],
        ),
    )


def same(left: Any, right: Any) -> bool:
    """Equal structure, dtypes and bits."""
    leaves = list(zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True))
    return str(jax.tree.structure(left)) == str(jax.tree.structure(right)) and all(
        a.dtype == b.dtype and a.shape == b.shape and np.asarray(a).tobytes() == np.asarray(b).tobytes()
        for a, b in leaves
    )


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def steps_on_disk(workdir: Path, kind: str = "latest") -> set[str]:
    return names(workdir / "checkpoints" / kind)


@pytest.fixture(scope="module")
def saved_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("run")
    saved = Checkpoints(workdir)
    for step in (1, 2, 3):
        saved.save(step, make_state(step), {"epoch": step}, best=step != 2)
    return workdir


@pytest.fixture
def workdir(saved_run: Path, tmp_path: Path) -> Path:
    """A run with steps 1, 2 and 3 saved, of which 1 and 3 were the best so far."""
    shutil.copytree(saved_run, tmp_path, dirs_exist_ok=True)
    return tmp_path
