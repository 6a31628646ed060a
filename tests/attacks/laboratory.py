"""A tiny run that is finished again and again in one process, so that an attack on its files costs a second."""

import contextlib
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from configs import quickstart
from deepnmf_jax.training import loop, reports
from deepnmf_jax.training.checkpoints import Checkpoints, restore_path
from deepnmf_jax.training.interruption import Interrupted
from deepnmf_jax.training.setup import prepare
from tests.programs import TWO_BLOCKS, metrics, results, write_images

STOPPED_AT = 21
# Seconds after which something counts as waited for without end, on a busy machine, too.
PATIENCE = 600
EXPECTED = (ValueError, OSError)
"""What a run may end with: its message, and no traceback, is what the user sees."""


class Verdict(NamedTuple):
    """How an attack ended: "right", "refused" or "wrong", what it was, and of kills at which place."""

    word: str
    why: str
    place: str = ""


class Laboratory:
    """The run, its workdir when it was not disturbed, and the one that it leaves when it is stopped."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        config = quickstart.get_config()
        config.update_from_flattened_dict({"dataset": str(write_images(folder / "images.npz")), **TWO_BLOCKS})
        self.run = prepare(config)
        # Prepared and compiled once; pictures take a third of the time, and depend on nothing that is attacked.
        loop.prepare = reports.prepare = lambda config: self.run
        compiled, step = loop.Training._compiled_step, []
        loop.Training._compiled_step = lambda training: step[0] if step else step.append(compiled(training)) or step[0]
        reports._draw = lambda *_: None
        self.whole, self.stopped = folder / "whole", folder / "stopped"
        self.finish(self.whole)
        self._stop(self.stopped)
        self.right = self.outcome(self.whole)
        self.right_accuracy = self.evaluate(self.stopped)

    def finish(self, workdir: Path) -> None:
        """Lets the run in a workdir go on to its end."""
        loop.train_and_evaluate(self.run.config, workdir)

    def evaluate(self, workdir: Path) -> tuple[float, float]:
        """Test accuracy and loss of its best variables."""
        found = reports.evaluate(self.run.config, str(workdir))
        return found["test_accuracy"], found["test_loss"]

    def _stop(self, workdir: Path) -> None:
        after = loop.Training._after_step

        def stopping(training: loop.Training, step: int, *arguments: Any) -> None:
            if step == STOPPED_AT:
                signal.raise_signal(signal.SIGTERM)
            after(training, step, *arguments)

        loop.Training._after_step = stopping
        try:
            with contextlib.suppress(Interrupted):
                self.finish(workdir)
        finally:
            loop.Training._after_step = after

    def outcome(self, workdir: Path) -> dict[str, Any]:
        """All that a finished workdir says, but for clocks, and its states to the bit."""
        latest = Checkpoints(workdir).restore(self.run.template())
        best = restore_path(workdir, self.run.template())
        assert latest is not None
        return {
            "metrics": metrics(workdir),
            "results": results(workdir),
            "latest": [leaf.tobytes() for leaf in jax.tree.leaves(latest.state)],
            "best": [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(best.state.best)],
        }

    def attack(self, base: Path, damage: Callable[[Path], str], *, evaluated: bool = True) -> Verdict:
        """Damages a copy of a workdir, evaluates and finishes it; `damage` says in words what it did."""
        workdir = self.folder / "attacked"
        shutil.rmtree(workdir, ignore_errors=True)
        shutil.copytree(base, workdir)
        what = damage(workdir)
        calls = [lambda: self.evaluate(workdir) == self.right_accuracy] if evaluated else []
        calls.append(lambda: self.finish(workdir) or self.outcome(workdir) == self.right)
        return judge(what, *calls)


def judge(what: str, *calls: Callable[[], bool]) -> Verdict:
    """Right if all calls say so, refused if some end with an expected error instead, wrong otherwise."""
    word, why = "right", what
    for call in calls:
        try:
            with _alarm():
                if not call():
                    return Verdict("wrong", f"{what}: another result")
        except EXPECTED as error:
            word, why = "refused", f"{what}: {type(error).__name__}: {error}"
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            return Verdict("wrong", f"{what}: {type(error).__name__}: {error}")
    return Verdict(word, why)


class TookTooLongError(BaseException):
    """Something waits for what will not come."""


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise TookTooLongError

    previous = signal.signal(signal.SIGALRM, ring)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def files(workdir: Path) -> list[Path]:
    """All files of a workdir, in a fixed order."""
    return sorted(path for path in workdir.rglob("*") if path.is_file())
