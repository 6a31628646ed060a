"""What all programs share: paths, one sentence for what can be mended, names of configs and settings."""

import os
import re
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from deepnmf_jax import programs
from deepnmf_jax.programs import Ended, check_target, home, mistake, recipe_names, run, sentence
from tests.programs import ROOT

QUICKSTART = "--config=configs/quickstart.py"


def test_a_leading_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert [str(home(path)) for path in ("~", "~/runs/a", "./~", "a/~b", Path("~/x"))] == [
        "/home/somebody", "/home/somebody/runs/a", "~", "a/~b", "/home/somebody/x",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("epsilon = 2"), "ValueError: epsilon = 2"),
        (OSError("no room"), "OSError: no room"),
        (zipfile.BadZipFile("not a zip file"), "BadZipFile: not a zip file"),
        (MemoryError(), "out of memory: no more to be had; try a smaller batch_size"),
        (
            RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nmore"),
            "out of memory: RESOURCE_EXHAUSTED",
        ),
    ],
)
def test_what_can_be_mended_is_a_sentence(error: Exception, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise error

    assert (sentence(error) or "").startswith(told)
    with pytest.raises(SystemExit) as ended:
        run(main)
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(told)


@pytest.mark.parametrize("error", [KeyError("a"), TypeError("b"), NotImplementedError("c"), RecursionError("d")])
def test_a_bug_keeps_its_traceback(error: Exception) -> None:
    def main() -> None:
        raise error

    with pytest.raises(type(error)):
        run(main)


def test_exit_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    class Stopped(Ended):
        status = 143

    def ending(how: BaseException | None, status: int | None = None) -> object:
        def main() -> int | None:
            if how is not None:
                raise how
            return status

        with pytest.raises(SystemExit) as ended:
            run(main)
        return ended.value.code, capsys.readouterr().err

    assert [ending(None), ending(None, 3), ending(KeyboardInterrupt()), ending(Stopped("saved"))] == [
        (0, ""), (3, ""), (130, "SIGINT: stopped\n"), (143, "saved\n"),
    ]  # fmt: skip


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_output_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A result that is lost is an error, and Python adds nothing at its end; a message that is lost is none."""
    for name, status in (("stdout", 1), ("stderr", 0)):
        with open("/dev/full", "w") as full, monkeypatch.context() as patch:
            patch.setattr(sys, name, full)
            with pytest.raises(SystemExit) as ended:
                run(lambda: print("a result", file=full))
            full.flush()
        assert ended.value.code == status
        told = "OSError: cannot write to standard output: No space left on device\n" if status else ""
        assert capsys.readouterr().err == told


def test_threads_that_write_on_after_a_failure_print_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[object] = []
    thread = threading.Thread(target=programs._of_the_main_thread, args=(seen.append, "another's"))
    thread.start()
    thread.join()
    programs._of_the_main_thread(seen.append, "ours")
    assert seen == ["ours"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"--config=FILE says what to train. There are: .*configs/quickstart.py.* For example: python main.py"),
        (["--config=nothing.py"], r"there is no config nothing.py. There are: .*configs/cnmf_1x1.py"),
        (["--config", "configs"], r"there is no config configs. There are: "),
        (["--config=README.md"], r"the config README.md cannot be read: SyntaxError"),
        (["--config=tests/disks.py"], r"the config tests/disks.py cannot be read: KeyError: 'get_config'"),
        (
            [QUICKSTART, "--config.num_epoch=3"],
            r"--config.num_epoch is no .*quickstart.py; is --config.num_epochs meant",
        ),
        ([QUICKSTART, "--config.num_iters=3"], r"num_iters is no setting .* is --config.model.num_iters meant"),
        ([QUICKSTART, "--config.model.crop=3"], r"is --config.augmentation.crop meant"),
        ([QUICKSTART, "--config.qqqq=3"], r"qqqq is no setting .*; there are augmentation, batch_size, "),
        ([QUICKSTART, "--config.seed=3"], r"^what absl says$"),
    ],
)
def test_mistakes_in_a_command_line(monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str) -> None:
    monkeypatch.chdir(ROOT)
    told = mistake(["main.py", *arguments], Exception("what absl says"))
    assert re.search(message, told), told


def test_every_config_is_named() -> None:
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*.py")}
    assert {f"configs/{name}.py" for name in recipe_names()} == files


def test_where_a_file_is_to_be_made(tmp_path: Path) -> None:
    check_target(tmp_path / "a.json")
    for path, message in ((tmp_path, "is a folder"), (tmp_path / "no" / "a.json", f"there is no folder {tmp_path}/no")):
        with pytest.raises(OSError, match=message):
            check_target(path)
