"""Checkpoints by each interface of orbax, and each reads what the other wrote."""

import gc
from pathlib import Path
from types import ModuleType

import jax
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest

from deepnmf_jax.training import orbax_io
from deepnmf_jax.training.checkpoints import Checkpoints
from deepnmf_jax.training.orbax_interfaces import V0, V1, Interface, interface_of
from tests.training.conftest import make_state, same, steps_on_disk

# Of orbax 0.12 V1 is a part, of 1.0 it will be the whole; 0.11 has a draft of it, without handlers for JSON.
V1_MODULE = getattr(ocp, "v1", None)
HAS_V1 = V1_MODULE is not None and hasattr(V1_MODULE.handlers, "JsonHandler")
INTERFACES: dict[str, Interface] = {"installed": interface_of()} | ({"V1": V1(V1_MODULE)} if HAS_V1 else {})
OLD_CHECKPOINT = Path(__file__).parent / "old_workdir" / "checkpoints" / "latest" / "8"
each = pytest.mark.parametrize("interface", INTERFACES.values(), ids=INTERFACES)


def test_which_is_chosen() -> None:
    assert isinstance(interface_of(), V0 if hasattr(ocp, "Checkpointer") else V1)
    if HAS_V1:
        assert isinstance(interface_of(V1_MODULE), V1)
    with pytest.raises(ImportError, match=r"neither of the interfaces.*install 0\.12"):
        interface_of(ModuleType("orbax"))


@each
@pytest.mark.parametrize("writer", INTERFACES.values(), ids=INTERFACES)
def test_either_reads_what_the_other_wrote(tmp_path: Path, writer: Interface, interface: Interface) -> None:
    rng = np.random.default_rng(0)
    tree = {
        "kernel": {"float32": rng.random((3, 2), np.float32), "bfloat16": np.ones(3, ml_dtypes.bfloat16)},
        "step": np.asarray(3),
        "mask": np.array([True, False]),
    }
    note = {"step": 3, "content": "", "meta": {"numbers": [1, 2.5, None], "empty": {}, "none": [], "name": "a"}}
    for _ in range(2):  # the second replaces the first
        writer.save(tmp_path / "3", tree, note)
    found, said = interface.load(tmp_path / "3")
    assert said == note
    assert same(found, tree)
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(found))


@each
def test_a_checkpoint_of_an_older_release(interface: Interface, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orbax_io, "interface_of", lambda: interface)
    content = orbax_io.read(OLD_CHECKPOINT)
    assert content.step == 8
    assert any(name[-1] == "kernel" for name in content.arrays)


@each
def test_a_run_goes_on_with_either(tmp_path: Path, interface: Interface, monkeypatch: pytest.MonkeyPatch) -> None:
    Checkpoints(tmp_path).save(1, make_state(1), {"epoch": 1}, best=True)
    monkeypatch.setattr(orbax_io, "interface_of", lambda: interface)
    Checkpoints(tmp_path).save(2, make_state(2), {"epoch": 2})
    monkeypatch.undo()
    assert (steps_on_disk(tmp_path), steps_on_disk(tmp_path, "best")) == ({"1", "2"}, {"1"})
    restored = Checkpoints(tmp_path).restore(make_state(0))
    assert restored is not None
    assert (restored.step, restored.meta) == (2, {"epoch": 2})
    assert same(restored.state, make_state(2))


# V1 leaves its other readers to the garbage collector, which complains.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:coroutine:RuntimeWarning")
@each
def test_what_is_damaged_is_not_read(tmp_path: Path, interface: Interface, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orbax_io, "interface_of", lambda: interface)
    Checkpoints(tmp_path).save(1, make_state(1), {})
    folder = tmp_path / "checkpoints" / "latest" / "1"
    for file in (folder / "meta").iterdir():
        file.write_text("{")
    with pytest.raises(orbax_io.UnreadableError, match="orbax cannot read it"):
        orbax_io.read(folder)
    gc.collect()
