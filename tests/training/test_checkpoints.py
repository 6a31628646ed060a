"""Checkpoints: what is saved comes back to the bit, also in several processes."""

import os
import shutil
import signal
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from deepnmf_jax.training.checkpoints import Checkpoints, restore_path
from deepnmf_jax.training.integrity import MANIFEST
from deepnmf_jax.training.interruption import Interruption
from tests.programs import Programs, free_port
from tests.training.conftest import make_state, names, same, steps_on_disk


class TestSaveAndRestore:
    def test_state_comes_back_to_the_bit_as_numpy(self, workdir: Path) -> None:
        restored = Checkpoints(workdir).restore(make_state(0))
        assert restored is not None
        step, state, meta, folder = restored
        assert (step, meta, folder) == (3, {"epoch": 3}, workdir / "checkpoints" / "latest" / "3")
        assert same(state, make_state(3))
        assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(state))

    def test_jax_arrays_on_several_devices(self, tmp_path: Path) -> None:
        mesh = Mesh(np.asarray(jax.devices()), ("data",))
        w = jax.device_put(jnp.arange(8.0), NamedSharding(mesh, PartitionSpec()))
        Checkpoints(tmp_path).save(1, {"w": w}, {})
        template = {"w": jax.ShapeDtypeStruct(w.shape, w.dtype)}
        assert same(restore_path(tmp_path, template).state, {"w": np.arange(8.0)})

    def test_keeps_the_latest_and_two_of_the_best(self, workdir: Path) -> None:
        assert steps_on_disk(workdir) == {"2", "3"}
        assert steps_on_disk(workdir, "best") == {"1", "3"}
        Checkpoints(workdir).save(4, make_state(4), {}, best=True)
        assert steps_on_disk(workdir) == {"3", "4"}
        assert steps_on_disk(workdir, "best") == {"3", "4"}

    def test_the_best_is_not_the_latest(self, workdir: Path) -> None:
        saved = Checkpoints(workdir)
        saved.save(5, make_state(5), {})
        for best, expected in ((True, 3), (False, 5)):
            restored = saved.restore(make_state(0), best=best)
            assert restored is not None
            assert restored.step == expected

    def test_nothing_saved(self, tmp_path: Path) -> None:
        assert Checkpoints(tmp_path).restore(make_state(0)) is None

    def test_saving_a_step_again_replaces_it(self, workdir: Path) -> None:
        Checkpoints(workdir).save(3, make_state(33), {"epoch": 33}, best=True)
        for best in (False, True):
            restored = Checkpoints(workdir).restore(make_state(0), best=best)
            assert restored is not None
            assert same(restored.state, make_state(33))
        assert steps_on_disk(workdir) == {"2", "3"}

    def test_going_back(self, workdir: Path) -> None:
        saved = Checkpoints(workdir)
        saved.discard_after(2)
        assert steps_on_disk(workdir) == {"2"}
        assert steps_on_disk(workdir, "best") == {"1"}
        saved.discard_after(0)
        assert saved.restore(make_state(0)) is None

    def test_a_save_removes_the_steps_after_it(self, workdir: Path) -> None:
        Checkpoints(workdir).save(2, make_state(22), {})
        assert steps_on_disk(workdir) == {"2"}

    def test_orbax_alone_can_read_it(self, workdir: Path) -> None:
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore())
        with ocp.CheckpointManager(workdir / "checkpoints" / "latest") as manager:
            assert manager.latest_step() == 3
            params = manager.restore(3, args=arguments)["state"]["params"]
        assert same(params, make_state(3).params)

    def test_sha256sum_can_check_it(self, workdir: Path) -> None:
        if shutil.which("sha256sum") is None:
            pytest.skip("sha256sum is not installed")
        folder = workdir / "checkpoints" / "latest" / "3"
        command = ["sha256sum", "--check", "--strict", "--quiet", MANIFEST]
        assert subprocess.run(command, cwd=folder, check=False).returncode == 0
        next(folder.glob("state/ocdbt.process_0/d/*")).write_bytes(b"")
        assert subprocess.run(command, cwd=folder, check=False, capture_output=True).returncode == 1

    @settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.dictionaries(
            st.text("aB.0_ /-", min_size=1, max_size=4),
            st.tuples(
                st.sampled_from(["float32", "float64", "int8", "uint32", "bool", "bfloat16", "complex64"]),
                st.lists(st.integers(1, 3), max_size=3),
            ),
            min_size=1,
            max_size=4,
        )
    )
    def test_any_tree(self, tmp_path: Path, leaves: dict[str, tuple[str, list[int]]]) -> None:
        rng = np.random.default_rng(0)
        state = {k: (rng.integers(-3, 3, shape).astype(dtype),) for k, (dtype, shape) in leaves.items()}
        Checkpoints(tmp_path).save(1, state, {})
        assert same(restore_path(tmp_path, state).state, state)


@pytest.mark.parametrize(
    "name",
    ["lr[0.1]", "a*?{}", "%20 b", "back\\slash", "new\nline", "gs:bucket", "-x", "~x", "$x", "\u00e9", "\udcff"],
)
def test_any_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Whatever the file system takes; relative, too, and nothing is written elsewhere."""
    try:
        (tmp_path / name).mkdir()
    except OSError:
        pytest.skip("this file system does not take the name")
    monkeypatch.chdir(tmp_path)
    saved = Checkpoints(name)
    saved.save(1, make_state(1), {}, best=True)
    saved.save(2, make_state(2), {})
    for found, step in ((saved.restore(make_state(0)), 2), (restore_path(name, make_state(0)), 1)):
        assert found is not None
        assert found.step == step and same(found.state, make_state(step))
    moved = tmp_path / "one" / name
    shutil.copytree(tmp_path / name / "checkpoints" / "latest" / "2", moved)
    assert restore_path(moved, make_state(0)).step == 2
    assert names(tmp_path) == {name, "one"}
    assert names(tmp_path / name) == {"checkpoints"}


def test_a_path_that_cannot_be_given_to_orbax(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "[x]").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "[x]"))
    with pytest.raises(ValueError, match=r"neither the workdir's path nor .*\[x\]'.*; set TMPDIR"):
        Checkpoints(tmp_path / "a b")
    Checkpoints(tmp_path / "ab")


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    """For the files in it, although the folder itself can be made."""
    free = os.pathconf(tmp_path, "PC_PATH_MAX") - len(str(tmp_path)) - 140
    deep = tmp_path.joinpath(*["x" * 99] * (free // 100), "x" * max(free % 100 - 1, 1))
    with pytest.raises(OSError, match=r"cannot open the checkpoints in \S*: File name too long"):
        Checkpoints(deep)


class TestRestorePath:
    def test_workdir_gives_the_best_then_the_latest(self, workdir: Path) -> None:
        Checkpoints(workdir).save(4, make_state(4), {})
        assert restore_path(workdir, make_state(0)).step == 3
        shutil.rmtree(workdir / "checkpoints" / "best")
        assert restore_path(workdir, make_state(0)).step == 4

    def test_one_steps_folder_wherever_it_was_moved(self, workdir: Path, tmp_path_factory: Any) -> None:
        moved = tmp_path_factory.mktemp("elsewhere") / "my network"
        shutil.copytree(workdir / "checkpoints" / "latest" / "2", moved)
        restored = restore_path(moved, make_state(0))
        assert restored.step == 2
        assert same(restored.state, make_state(2))

    @pytest.mark.parametrize("name", [MANIFEST, "_CHECKPOINT_METADATA"])
    def test_a_damaged_step(self, workdir: Path, name: str) -> None:
        folder = workdir / "checkpoints" / "latest" / "2"
        (folder / name).unlink()
        with pytest.raises(OSError, match=rf"{folder} is damaged: .*{name}"):
            restore_path(folder, make_state(0))

    def test_no_checkpoint(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="holds no checkpoint; give a run"):
            restore_path(tmp_path, make_state(0))
        with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
            restore_path(tmp_path / "nowhere", make_state(0))
        assert names(tmp_path) == set()


def save_with_another(folder: Path, address: str, index: int) -> None:
    """One of two processes that save together, agree on a signal, and then see disks of their own."""
    jax.distributed.initialize(address, 2, index)
    sharding = NamedSharding(Mesh(np.asarray(jax.devices()), ("data",)), PartitionSpec())
    w = jax.make_array_from_process_local_data(sharding, np.arange(6, dtype=np.float32))
    saved = Checkpoints(folder / "run [2]")
    for step in (1, 2, 3):
        saved.save(step, {"w": w + step}, {"epoch": step}, best=step == 1)
    template = {"w": np.zeros(6, np.float32)}
    restored, best = saved.restore(template), saved.restore(template, best=True)
    assert restored is not None and best is not None
    assert (restored.step, restored.meta, best.step) == (3, {"epoch": 3}, 1)
    assert (restored.state["w"] == np.arange(6) + 3).all()
    saved.discard_after(2)
    restored = saved.restore(template)
    assert restored is not None and restored.step == 2

    with Interruption() as interruption:
        assert interruption.requested_anywhere() is None
        if index == 1:
            signal.raise_signal(signal.SIGTERM)
        assert interruption.requested_anywhere() == "SIGTERM"

    apart = Checkpoints(folder / str(index))
    if index == 0:
        (folder / "0" / "checkpoints" / "latest").rmdir()
        (folder / "run [2]" / "checkpoints" / "latest").rename(folder / "0" / "checkpoints" / "latest")
    with pytest.raises(RuntimeError, match="different checkpoints"):
        apart.restore(template)


@pytest.mark.slow
def test_two_processes(programs: Programs, tmp_path: Path) -> None:
    address = f"localhost:{free_port()}"
    started = [programs.call(partial(save_with_another, tmp_path, address, index)) for index in range(2)]
    for program in started:
        program.end(0)
    assert steps_on_disk(tmp_path / "run [2]", "best") == {"1"}
    assert same(restore_path(tmp_path / "0", {"w": np.zeros(6, np.float32)}).state["w"], np.arange(6, dtype="f4") + 2)
