"""Stopping a run: the first SIGTERM or Ctrl-C saves it, and the same command goes on from there."""

import logging
import signal
import threading
from types import FrameType
from typing import Any, Self

import numpy as np

from deepnmf_jax.programs import Ended
from deepnmf_jax.training.devices import from_all_processes

_log = logging.getLogger(__name__)


class Interrupted(Ended):
    """A signal stopped the run after its state was saved; the same call goes on from there."""

    def __init__(self, signal_name: str, step: int):
        super().__init__(f"{signal_name}: saved at step {step}; the same command goes on from there")
        self.signal_name, self.step = signal_name, step
        self.status = 128 + signal.Signals[signal_name]


class Interruption:
    """Turns the first SIGTERM or Ctrl-C into a request that the training loop reads, so that it saves first.

    A second signal does what it did before, so an impatient user can still stop the process. Signals reach
    Python only in its main thread; elsewhere nothing is installed, and a line in the log says so.

    Attributes:
      requested: the signal's name, or None.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            _log.info("not in the main thread: SIGTERM and Ctrl-C stop the run without saving first")
            return self
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore_handlers()

    def requested_anywhere(self) -> str | None:
        """The request of any process of the run; all of them ask at the same step and get the same answer."""
        number = signal.Signals[self.requested] if self.requested else 0
        highest = int(from_all_processes(np.int32(number)).max())
        return signal.Signals(highest).name if highest else None

    def release(self, number: signal.Signals) -> None:
        """Lets a signal do again what it did before."""
        if number in self._previous:
            handler = self._previous.pop(number)
            # None stands for a handler that was not installed from Python and cannot be put back from it.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = signal.Signals(number).name
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number in list(self._previous):
            self.release(number)
