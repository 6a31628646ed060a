"""Scalars for TensorBoard, whatever the clock does."""

import os
import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_STAMP = re.compile(r"\.tfevents\.(\d{10})\.")


class TensorBoard:
    """Scalars for TensorBoard, on disk when `write` returns. Like a metrics line, write before saving.

    TensorBoard reads a run's files in the order of the seconds in their names, and leaves out a new one that is before
    the last: both these seconds and the times of events never go back, though the clock may.
    """

    def __init__(self, folder: str | os.PathLike[str], *, step: int = 0):
        """Opens an event file for a run that starts or resumes at `step`; TensorBoard hides later steps.

        Raises:
          OSError: the file cannot be made.
        """
        from tensorboardX.proto.event_pb2 import SessionLog
        from tensorboardX.record_writer import RecordWriter

        # A relative path such as "gs:run" would be taken for a place in a cloud.
        folder = Path(folder).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        self._now = max([time.time(), *_times(folder)])
        # With the step in the name, the worst that a restart within the same second overwrites is a file whose steps
        # are all written again.
        self.path = folder / f"events.out.tfevents.{int(self._now):010d}.{socket.gethostname()}.{step:012d}"
        try:
            # SummaryWriter hands events to a thread, and its flush does not wait for them; this writes at once.
            self._file = RecordWriter(str(self.path))
            self._write(file_version="brain.Event:2")
            self._write(step=step + 1, session_log=SessionLog(status=SessionLog.START))
            self._file.flush()
        except OSError as error:
            raise self._cannot_write(error) from error

    def write(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Writes `scalars` (tag -> value) of `step`. OSError: the file cannot be written."""
        from tensorboardX.summary import scalar

        try:
            for tag, value in scalars.items():
                self._write(step=step, summary=scalar(tag, float(value)))
            self._file.flush()
        except OSError as error:
            raise self._cannot_write(error) from error

    def close(self) -> None:
        """Closes the event file."""
        try:
            self._file.close()
        except OSError:
            # Of a disk that `write` has already found full.
            return

    def _write(self, **fields: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._now = max(self._now, time.time())
        self._file.write(Event(wall_time=self._now, **fields).SerializeToString())

    def _cannot_write(self, error: OSError) -> OSError:
        return OSError(error.errno, f"cannot write {self.path}: {error.strerror}")


def _times(folder: Path) -> list[float]:
    """When the event files of a folder were opened and last written, by the clocks of then."""
    found = [(match, path) for path in folder.iterdir() if (match := _STAMP.search(path.name))]
    return [float(match[1]) for match, _ in found] + [path.stat().st_mtime for _, path in found]
