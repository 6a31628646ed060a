"""Integrity: no damage to a checkpoint goes unnoticed, and none is put into a tree that it does not fit."""

import os
import random
import re
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from deepnmf_jax.training import orbax_io
from deepnmf_jax.training.checkpoints import Checkpoints, restore_path
from deepnmf_jax.training.integrity import MANIFEST, differing_line
from tests.training.conftest import make_state, same, steps_on_disk


class TestDamage:
    @pytest.fixture
    def newest(self, workdir: Path) -> Path:
        """Of steps 2 and 3 in `latest`, and 1 in `best`."""
        shutil.rmtree(workdir / "checkpoints" / "best" / "3")
        return workdir / "checkpoints" / "latest" / "3"

    @pytest.fixture(autouse=True)
    def log(self, caplog: pytest.LogCaptureFixture) -> None:
        self.caplog = caplog

    def assert_falls_back(self, newest: Path, reason: str) -> None:
        self.caplog.clear()
        restored = Checkpoints(newest.parents[2]).restore(make_state(0))
        (line,) = self.caplog.messages
        assert re.fullmatch(rf"skipped the damaged checkpoint \S*latest/3: .*{reason}.*", line)
        assert restored is not None
        assert (restored.step, restored.folder) == (2, newest.with_name("2"))
        assert same(restored.state, make_state(2))

    @pytest.mark.slow
    def test_one_flipped_byte_anywhere(self, newest: Path) -> None:
        rng = random.Random(0)
        files = sorted(path for path in newest.rglob("*") if path.is_file())
        sizes = [path.stat().st_size for path in files]
        # One position in each file at least, then bytes drawn from all that there are.
        chosen = files + rng.choices(files, sizes, k=max(50 - len(files), 20))
        for path in chosen:
            content = path.read_bytes()
            position = rng.randrange(len(content))
            flipped = content[position] ^ rng.randrange(1, 256)
            path.write_bytes(content[:position] + bytes([flipped]) + content[position + 1 :])
            self.assert_falls_back(newest, "is (changed|missing)|cannot read")
            path.write_bytes(content)
        restored = Checkpoints(newest.parents[2]).restore(make_state(0))
        assert restored is not None
        assert restored.step == 3

    def test_a_flipped_byte_in_the_arrays(self, newest: Path) -> None:
        path = max(newest.glob("state/ocdbt.process_0/d/*"), key=lambda path: path.stat().st_size)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        self.assert_falls_back(newest, f"{path.name} is changed")

    def test_truncated_file(self, newest: Path) -> None:
        path = newest / "state" / "_METADATA"
        os.truncate(path, path.stat().st_size // 2)
        self.assert_falls_back(newest, "state/_METADATA is changed")

    def test_missing_file(self, newest: Path) -> None:
        (newest / "state" / "manifest.ocdbt").unlink()
        self.assert_falls_back(newest, "state/manifest.ocdbt is missing")

    def test_extra_file(self, newest: Path) -> None:
        (newest / "state" / "new").touch()
        self.assert_falls_back(newest, "state/new is not in the manifest")

    def test_missing_manifest(self, newest: Path) -> None:
        (newest / MANIFEST).unlink()
        self.assert_falls_back(newest, f"cannot read \\S*{MANIFEST}: No such file")

    def test_whitespace_in_the_manifest(self, newest: Path) -> None:
        (newest / MANIFEST).write_text((newest / MANIFEST).read_text() + "\n")
        self.assert_falls_back(newest, f"{MANIFEST} is changed")

    def test_folder_of_another_step(self, newest: Path) -> None:
        shutil.rmtree(newest)
        shutil.copytree(newest.with_name("2"), newest)
        self.assert_falls_back(newest, "it is the checkpoint of step 2")

    def test_what_is_no_file(self, newest: Path) -> None:
        """None of these may be read: a pipe is waited for, a device has no end."""
        data = next(newest.glob("state/d/*"))
        for name in (data.relative_to(newest), MANIFEST):
            path = newest / name
            content = path.read_bytes()
            for reason, make in (
                ("it is no regular file", os.mkfifo),
                ("it is no regular file", lambda path: path.symlink_to("/dev/zero")),
                ("No such file", lambda path: path.symlink_to("nowhere")),
            ):
                path.unlink()
                make(path)
                self.assert_falls_back(newest, f"cannot read {path}: {reason}")
            path.unlink()
            path.write_bytes(content)

    def test_arrays_that_are_wrong_when_they_are_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What cannot be read back does not become a checkpoint."""
        saved = Checkpoints(tmp_path)
        saved.save(2, make_state(2), {})
        monkeypatch.setattr(orbax_io, "nested", lambda arrays: {"params": np.zeros(3)})
        with pytest.raises(OSError, match=r"latest/3: what was written cannot be read back: the arrays differ"):
            saved.save(3, make_state(3), {})
        assert steps_on_disk(tmp_path) == {"2"}

    def test_every_best_but_one_is_damaged(self, workdir: Path) -> None:
        (workdir / "checkpoints" / "best" / "3" / MANIFEST).unlink()
        restored = Checkpoints(workdir).restore(make_state(0), best=True)
        assert restored is not None
        assert restored.step == 1
        (line,) = self.caplog.messages
        assert "best/3" in line

    def test_each_of_latest_and_best_stands_in_for_the_other(self, workdir: Path) -> None:
        """A workdir is resumed from the newest of all, and evaluated by the newest that knows the best variables."""
        resumed = ("latest/3", "best/3", "latest/2", "best/1")
        orders = {True: ("best/3", "latest/3", *resumed[2:]), False: resumed}
        folders = {name: workdir / "checkpoints" / name for name in resumed}
        for evaluated, order in orders.items():
            manifests = {name: (folder / MANIFEST).read_bytes() for name, folder in folders.items()}
            for number, name in enumerate(order):
                self.caplog.clear()
                found = (
                    restore_path(workdir, make_state(0)) if evaluated else Checkpoints(workdir).restore(make_state(0))
                )
                assert found is not None
                assert found.folder == folders[name]
                assert same(found.state, make_state(int(name[-1])))
                # One line for each damaged one, and one where a better may have been lost.
                assert len(self.caplog.messages) == number + (evaluated and found.step < 3)
                (folders[name] / MANIFEST).unlink()
            for name, content in manifests.items():
                (folders[name] / MANIFEST).write_bytes(content)

    def test_all_damaged_is_an_error_not_a_fresh_start(self, workdir: Path) -> None:
        for folder in workdir.glob("checkpoints/*/*"):
            (folder / MANIFEST).unlink()
        with pytest.raises(OSError, match=r"all checkpoints in .* \(latest/3, best/3, latest/2, best/1\).*delete .*"):
            Checkpoints(workdir).restore(make_state(0))

    def test_a_replayed_save_mends_it(self, newest: Path) -> None:
        (newest / MANIFEST).unlink()
        saved = Checkpoints(newest.parents[2])
        saved.save(3, make_state(3), {})
        restored = saved.restore(make_state(0))
        assert restored is not None
        assert (restored.step, restored.folder) == (3, newest)


class TestWrongTree:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda s: s._replace(step=np.zeros(2, np.int32)), r"step: int32\[\] in .*, int32\[2\] expected"),
            (lambda s: s._replace(step=np.zeros((), np.int64)), r"step: int32\[\] in .*, int64\[\] expected"),
            (lambda s: s._replace(params={}), r"params/block\.0/w: float32\[4, 12\] in .*, absent expected"),
            (
                lambda s: s._replace(params=s.params | {"u": np.ones(1)}),
                r"params/u: absent in .*, float64\[1\] exp",
            ),
        ],
    )
    def test_another_template_names_the_leaf(self, workdir: Path, change: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Checkpoints(workdir).restore(change(make_state(0)))

    @pytest.mark.parametrize(
        ("leaf", "message"),
        [
            (np.zeros((0, 3)), r"a/b is float64\[0, 3\]"),
            ("text", "a/b is str"),
            (jax.random.key(0), "a/b cannot be read as an array"),
        ],
    )
    def test_a_leaf_that_is_no_numbers(self, tmp_path: Path, leaf: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Checkpoints(tmp_path).save(1, {"a": {"b": leaf}}, {})
        assert steps_on_disk(tmp_path) == set()

    def test_bad_arguments(self, tmp_path: Path) -> None:
        saved = Checkpoints(tmp_path)
        with pytest.raises(ValueError, match="step = -1, .* at least 0"):
            saved.save(-1, make_state(0), {})
        with pytest.raises(ValueError, match="meta must hold plain JSON values"):
            saved.save(1, make_state(0), {"a": np.zeros(2)})
        with pytest.raises(ValueError, match="at least one array"):
            saved.save(1, {}, {})
        assert steps_on_disk(tmp_path) == set()


def test_a_line_of_the_metrics_that_is_not_the_one_expected() -> None:
    one, two, three = ({"step": step, "loss": 1 / step} for step in (4, 8, 12))
    whole = [one, two, three]
    for found, reason in (
        (whole, ""),
        ([*whole, None], ""),
        ([one, one, two, three], "line 2 is of step 4, not 8"),
        ([*whole, three], "line 4, of step 12, is one too many"),
        ([one, three], "line 2 is of step 12, not 8"),
        ([one, two], "line 3, of step 12, is missing"),
        ([], "line 1, of step 4, is missing"),
        (whole[::-1], "line 1 is of step 12, not 4"),
        ([one, None, three], "line 2 is not a record with an integer 'step'"),
        ([one, two | {"loss": 0.51}, three], "line 2, of step 8, is not what the run wrote"),
    ):
        assert differing_line(found, whole) == reason


def test_reading_again_and_again_holds_on_to_little(tmp_path: Path) -> None:
    """Each checkpoint is read back: what stays behind of each, a run of many epochs adds up."""
    arrays = {("layer", str(i)): np.ones((2, 3), np.float32) for i in range(20)}
    orbax_io.write(tmp_path / "1", arrays, orbax_io.note_of(1, arrays, {}))
    orbax_io.read(tmp_path / "1")
    tracemalloc.start()
    try:
        orbax_io.read(tmp_path / "1")
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(4):
            orbax_io.read(tmp_path / "1")
        kept = (tracemalloc.get_traced_memory()[0] - before) / 4
    finally:
        tracemalloc.stop()
    assert kept < 60_000
