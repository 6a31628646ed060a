"""The progress bar says what matters in any width, and nothing that is not so."""

import contextlib
import io
import sys
import time

import pytest

from deepnmf_jax.training import progress
from deepnmf_jax.training.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 100.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)


def shown(stream: io.StringIO) -> str:
    """What stands in the line last."""
    return next(part for part in reversed(stream.getvalue().split("\r")) if "epoch" in part)


def a_terminal(monkeypatch: pytest.MonkeyPatch, columns: int = 120) -> Terminal:
    """In place of stderr. No fixture: pytest sets stderr anew between a fixture and its test."""
    monkeypatch.setattr(sys, "stderr", stream := Terminal())
    monkeypatch.setattr(progress, "_columns", lambda: columns - 1)
    return stream


@pytest.mark.parametrize("columns", [30, 40, 60, 80, 200])
def test_it_fits_and_the_accuracy_is_whole(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    terminal, clock = a_terminal(monkeypatch, columns), Clock(monkeypatch)
    with contextlib.closing(Progress(50_000, "epoch 17/500")) as bar:
        clock.now += 10
        bar.update(40_000, 1.23456, 0.875)
        text = shown(terminal)
        assert len(text.rstrip()) < columns and "accuracy 87.5 %" in text
        assert ("loss 1.2346" in text, "0:02 left" in text) == (columns >= 60, columns >= 80)
        assert ("4000 images/s" in text) == (columns >= 80)


def test_compilation_is_named_and_is_no_part_of_the_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, clock = a_terminal(monkeypatch), Clock(monkeypatch)
    with contextlib.closing(Progress(300, "epoch 1/5")) as bar:
        bar.say("compiling the training step")
        assert "epoch 1/5: compiling the training step" in shown(terminal)
        clock.now += 50
        bar.start_clock()
        clock.now += 2
        bar.update(200, 1.0, 0.5)
        assert "100 images/s" in shown(terminal) and "0:01 left" in shown(terminal)


def test_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    with contextlib.closing(Progress(300, "epoch 2/5")) as bar:
        bar.say("compiling")
        bar.update(100, 1.0, 0.5)
        assert (bar.shown, bar.done, stream.getvalue()) == (False, 100, "")


def test_a_terminal_that_is_gone_ends_the_bar_and_not_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = a_terminal(monkeypatch)

    def gone(_: str) -> int:
        raise OSError(5, "Input/output error")

    with contextlib.closing(Progress(300, "epoch 2/5")) as bar:
        terminal.write = gone  # type: ignore[method-assign,assignment]
        for _ in range(2):
            bar.update(100, 1.0, 0.5)
    assert bar.done == 200
