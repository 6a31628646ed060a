"""Records: no line doubled or missing, no file half written, no run in another run's folder."""

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepnmf_jax.training.records import MetricsLog, open_workdir, write_results
from deepnmf_jax.training.tensorboard import TensorBoard
from tests.disks import largest_file, make_read_only, small_disk

CONFIG = {"seed": 0, "data_dir": None, "model": {"num_iters": 20, "groups": (1, 1)}, "empty": {}}


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


class TestOpenWorkdir:
    def test_first_start_writes_the_config(self, tmp_path: Path) -> None:
        assert open_workdir(str(tmp_path / "a" / "b"), CONFIG) == tmp_path / "a" / "b"
        assert json.loads((tmp_path / "a" / "b" / "config.json").read_text()) == {
            "seed": 0,
            "data_dir": None,
            "model": {"num_iters": 20, "groups": [1, 1]},
            "empty": {},
        }

    def test_the_same_config_goes_on(self, tmp_path: Path) -> None:
        open_workdir(tmp_path, CONFIG)
        before = (tmp_path / "config.json").read_bytes()
        open_workdir(tmp_path, CONFIG | {"data_dir": "/elsewhere"})
        assert (tmp_path / "config.json").read_bytes() == before

    def test_another_config_is_refused_naming_what_differs(self, tmp_path: Path) -> None:
        open_workdir(tmp_path, CONFIG)
        other = CONFIG | {"model": {"num_iters": 5, "width": 2.0}, "seed": None}
        with pytest.raises(ValueError, match="another config") as caught:
            open_workdir(tmp_path, other)
        assert str(caught.value).splitlines()[1:] == [
            "  model.groups: [1, 1] in the workdir, '(absent)' now",
            "  model.num_iters: 20 in the workdir, 5 now",
            "  model.width: '(absent)' in the workdir, 2.0 now",
            "  seed: 0 in the workdir, None now",
            "choose another --workdir, give the old settings, or delete the folder to start anew",
        ]

    def test_an_absent_key_is_not_null(self, tmp_path: Path) -> None:
        open_workdir(tmp_path, {"a": None})
        with pytest.raises(ValueError, match="a: None in the workdir, '\\(absent\\)' now"):
            open_workdir(tmp_path, {})

    def test_damaged_config(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text('{"seed": ')
        with pytest.raises(ValueError, match=r"config\.json is damaged .*another --workdir"):
            open_workdir(tmp_path, CONFIG)

    def test_checkpoints_without_a_config(self, tmp_path: Path) -> None:
        (tmp_path / "checkpoints" / "latest" / "3").mkdir(parents=True)
        with pytest.raises(ValueError, match=r"checkpoints but no config\.json"):
            open_workdir(tmp_path, CONFIG)

    @pytest.mark.parametrize("name", ["file", "file/below"])
    def test_a_file_in_the_way(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match=rf"cannot write to the workdir \S*{name}: .*choose a --workdir"):
            open_workdir(tmp_path / name, CONFIG)

    def test_read_only(self, tmp_path: Path) -> None:
        folder, message = tmp_path / "read-only", r"cannot write to the workdir \S*: (Read-only|Permission denied)"
        with contextlib.ExitStack() as stack:
            if os.geteuid():
                folder.mkdir(mode=0o555)
            else:
                stack.enter_context(small_disk(folder, "1m"))
                make_read_only(folder)
            with pytest.raises(OSError, match=message):
                open_workdir(folder, CONFIG)


class TestMetricsLog:
    def lines(self, path: Path) -> list[int]:
        return [json.loads(line)["step"] for line in path.read_text().splitlines()]

    def test_lines_are_on_disk_when_append_returns(self, tmp_path: Path) -> None:
        log = MetricsLog(tmp_path / "metrics.jsonl")
        log.append({"step": 1, "loss": np.float32(0.1), "accuracy": jnp.asarray(0.5, jnp.bfloat16), "n": np.int64(3)})
        text = (tmp_path / "metrics.jsonl").read_text()
        assert text == '{"step": 1, "loss": 0.10000000149011612, "accuracy": 0.5, "n": 3}\n'
        assert log.records == [json.loads(text)]

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data(), count=st.integers(0, 4), resume=st.integers(0, 5), tear=st.booleans())
    def test_killed_anywhere_and_resumed(
        self, tmp_path: Path, data: st.DataObject, count: int, resume: int, tear: bool
    ) -> None:
        """Cut at any byte, then replayed from any step reached: the file of a run that was never stopped."""
        path = tmp_path / "metrics.jsonl"
        path.unlink(missing_ok=True)
        log = MetricsLog(path)
        for step in range(1, count + 1):
            log.append({"step": step, "loss": 1 / step})
        whole = path.read_bytes()
        resume = min(resume, count)
        kept = len(b"".join(whole.splitlines(keepends=True)[:resume]))
        if tear:
            path.write_bytes(whole[: data.draw(st.integers(kept, len(whole)))])
        log = MetricsLog(path, step=resume)
        assert [record["step"] for record in log.records] == self.lines(path) == list(range(1, resume + 1))
        for step in range(resume + 1, count + 1):
            log.append({"step": step, "loss": 1 / step})
        assert path.read_bytes() == whole

    def test_refusals(self, tmp_path: Path) -> None:
        log = MetricsLog(tmp_path / "metrics.jsonl")
        log.append({"step": 2})
        for record, message in (
            ({"epoch": 1}, "needs an integer 'step', got None"),
            ({"step": 2}, "already has a line of step 2, got one of step 2"),
            ({"step": 1}, "already has a line of step 2, got one of step 1"),
            ({"step": 3, "loss": float("nan")}, r"record\.loss is nan"),
            ({"step": 3, "loss": [0.0, np.float32("inf")]}, r"record\.loss\[1\] is inf"),
        ):
            with pytest.raises(ValueError, match=message):
                log.append(record)
        assert self.lines(tmp_path / "metrics.jsonl") == [2]

    @pytest.mark.parametrize("line", ['{"step": 1, "lo', "[1]", '{"step": 1.5}', "\\xff"])
    def test_a_damaged_line_before_the_last_is_an_error(self, tmp_path: Path, line: str) -> None:
        path = tmp_path / "metrics.jsonl"
        path.write_text('{"step": 1}\n' + line + '\n{"step": 3}\n')
        with pytest.raises(ValueError, match=r"line 2 of \S*metrics.jsonl is not a record"):
            MetricsLog(path, step=3)
        assert path.read_text().count("\n") == 3

    def test_lines_that_are_not_those_of_the_checkpoint(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """They are named and written anew."""
        path = tmp_path / "metrics.jsonl"
        saved = [{"step": step, "loss": 1 / step} for step in (4, 8)]
        lines = [json.dumps(record) + "\n" for record in (*saved, {"step": 12, "loss": 0.1})]
        one, two, later = lines
        for text, reason in (
            (one + two + later, ""),
            (one + two + later[:9], ""),
            (one + two + later[:9] + "\n" + later, "line 3 of "),
            (one + one + two, "line 2 is of step 4, not 8"),
            (two + one + later, "line 1 is of step 8, not 4"),
            (one + later, "line 2, of step 8, is missing"),
            ("", "line 1, of step 4, is missing"),
            (one.replace("0.25", "0.15") + two, "line 1, of step 4, is not what the run wrote"),
        ):
            # As a checkpoint has them, and as an older one has them.
            for kept in (one + two, saved):
                caplog.clear()
                path.write_text(text)
                log = MetricsLog(path, step=8, saved=kept, every=4)
                assert (log.records, log.text) == (saved, one + two)
                assert path.read_text() == one + two
                warned = [f"{path}: {reason}; written anew from the checkpoint"] if reason and reason[-1] != " " else []
                assert caplog.messages == warned

    def test_full_disk(self, tmp_path: Path) -> None:
        log = MetricsLog(tmp_path / "metrics.jsonl")
        log.append({"step": 1})
        with largest_file(20), pytest.raises(OSError, match=r"cannot write \S*metrics.jsonl: File too large"):
            log.append({"step": 2, "text": "long" * 20})
        assert self.lines(MetricsLog(tmp_path / "metrics.jsonl", step=2).path) == [1]

    @pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_bytes(b"")], ids=["removed", "emptied"])
    def test_a_file_that_is_changed_meanwhile_is_written_again(
        self, tmp_path: Path, change: Callable[[Path], object], caplog: pytest.LogCaptureFixture
    ) -> None:
        log = MetricsLog(path := tmp_path / "metrics.jsonl")
        log.append({"step": 1})
        change(path)
        log.append({"step": 2})
        assert self.lines(path) == [1, 2] and "while the run went on" in caplog.text

    def test_a_folder_that_is_gone(self, tmp_path: Path) -> None:
        (folder := tmp_path / "run").mkdir()
        log = MetricsLog(folder / "metrics.jsonl")
        (folder / "metrics.jsonl").unlink()
        folder.rmdir()
        with pytest.raises(OSError, match=r"cannot write \S*metrics.jsonl: No such file"):
            log.append({"step": 1})

    def test_lines_twice_or_out_of_order_are_put_in_order(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "metrics.jsonl"
        path.write_text("".join(f'{{"step": {step}}}\n' for step in (2, 8, 8, 4)))
        assert [r["step"] for r in MetricsLog(path, step=9, every=2).records] == self.lines(path) == [2, 4, 8]
        assert "twice or out of order" in caplog.text and "lacks the lines of step 6;" in caplog.text
        caplog.clear()
        MetricsLog(path, step=4, every=2)
        assert not caplog.text
        path.write_text('{"step": 2, "loss": 1}\n{"step": 2, "loss": 3}\n')
        with pytest.raises(ValueError, match="two different lines of step 2"):
            MetricsLog(path, step=2)


class TestTensorBoard:
    def scalars(self, folder: Path) -> dict[str, list[tuple[int, float]]]:
        accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
        events = accumulator.EventAccumulator(str(folder)).Reload()
        return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}

    @pytest.mark.parametrize("name", ["gs:run", "s3:run", "-", "a[0]*"])
    def test_any_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.chdir(tmp_path)
        TensorBoard(name).close()
        assert files(tmp_path) == {name}
        assert len(files(tmp_path / name)) == 1

    # tensorboard's and protobuf's own warnings are no concern of ours.
    @pytest.mark.filterwarnings("ignore")
    def test_replayed_steps_are_not_doubled(self, tmp_path: Path) -> None:
        board = TensorBoard(tmp_path)
        for step in (10, 20, 30):
            board.write(step, {"train/loss": step / 4, "train/accuracy": np.float32(0.5)})
        # As after a kill: never closed, what was written is there all the same.
        assert self.scalars(tmp_path)["train/loss"] == [(10, 2.5), (20, 5.0), (30, 7.5)]
        resumed = TensorBoard(tmp_path, step=20)
        resumed.write(30, {"train/loss": -1.0})
        resumed.write(40, {"train/loss": -2.0})
        resumed.close()
        scalars = self.scalars(tmp_path)
        assert scalars["train/loss"] == [(10, 2.5), (20, 5.0), (30, -1.0), (40, -2.0)]
        assert scalars["train/accuracy"] == [(10, 0.5), (20, 0.5)]
        board.close()

    @pytest.mark.filterwarnings("ignore")
    def test_a_restart_from_the_beginning_hides_what_was_there(self, tmp_path: Path) -> None:
        for value in (1.0, 2.0):
            board = TensorBoard(tmp_path)
            board.write(1, {"loss": value})
            board.close()
        assert self.scalars(tmp_path) == {"loss": [(1, 2.0)]}

    def test_a_clock_that_was_set_back(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """By the names of files, which TensorBoard goes by, events are in the order of writing, and so are times."""
        events = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
        now = 1_900_000_000.0
        monkeypatch.setattr(time, "time", lambda: now)
        for step, then in ((0, now), (2, now - 3600), (4, now - 9e6)):
            now = then
            board = TensorBoard(tmp_path, step=step)
            board.write(step + 1, {"loss": 1.0})
            now -= 60
            board.write(step + 2, {"loss": 1.0})
            board.close()
        found = [e for path in sorted(tmp_path.iterdir()) for e in events.EventFileLoader(str(path)).Load()]
        assert [e.step for e in found if e.HasField("summary")] == [1, 2, 3, 4, 5, 6]
        times = [e.wall_time for e in found]
        assert times == sorted(times)


class TestWriteResults:
    def test_plain_and_sorted(self, tmp_path: Path) -> None:
        path = write_results(
            tmp_path,
            {
                "z": jnp.asarray(3, jnp.int32),
                "accuracy": np.float64(0.5),
                "list": (np.arange(2), np.asarray(1.5, ml_dtypes.bfloat16)),
                "nested": {"b": True, "a": None, "path": Path("x/y")},
            },
        )
        assert path == tmp_path / "results.json"
        results = json.loads(path.read_text())
        assert results == {
            "accuracy": 0.5,
            "list": [[0, 1], 1.5],
            "nested": {"a": None, "b": True, "path": "x/y"},
            "z": 3,
        }
        assert list(results) == sorted(results)
        assert list(results["nested"]) == ["a", "b", "path"]

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (float("nan"), r"results\.test\.loss is nan, which JSON cannot hold"),
            (np.float32("-inf"), r"results\.test\.loss is -inf"),
            (jnp.asarray([1.0, jnp.nan], jnp.float32), r"results\.test\.loss\[1\] is nan"),
            (object(), r"results\.test\.loss is a object"),
            (1j, r"results\.test\.loss is a complex"),
        ],
    )
    def test_what_json_cannot_hold_is_named_and_nothing_written(self, tmp_path: Path, value: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            write_results(tmp_path, {"test": {"loss": value}})
        assert files(tmp_path) == set()
