"""The progress bar of an epoch, in whatever width the terminal has."""

import os
import sys
import time
from typing import Any

from deepnmf_jax.training.environment import installed

# Characters of the bar itself where there is little room, and of a terminal that does not say how wide it is.
_SHORTEST, _USUAL = 4, 80


class Progress:
    """One epoch's progress bar: loss, accuracy, time left and images/s, the last ones where there is room.

    `shown` is False when stderr is not a terminal or tqdm is not installed. `done` counts the images so far.
    """

    def __init__(self, num_images: int, description: str):
        self.shown = sys.stderr.isatty() and installed("tqdm", "progress bar")
        self.done = 0
        self._description, self._total = description, num_images
        self._started = time.perf_counter()
        self._bar: Any = None
        if self.shown:
            from tqdm import tqdm

            # Updates are some steps apart, so each is shown.
            self._bar = tqdm(total=num_images, leave=False, mininterval=0, miniters=1, bar_format=description)

    def say(self, what: str) -> None:
        """Shows words in place of numbers, for as long as there are none."""
        self._show(f"{self._description}: {what}")

    def start_clock(self) -> None:
        """Speed and time left count from here on, and not what was compiled before."""
        self._started = time.perf_counter()

    def update(self, images: int, loss: float, accuracy: float) -> None:
        """Advances by `images` and shows the running `loss` and `accuracy` (0 to 1)."""
        self.done += images
        speed = self.done / max(time.perf_counter() - self._started, 1e-9)
        left = round((self._total - self.done) / speed)
        clock = f"{left // 60}:{left % 60:02d}" if left < 3600 else f"{left // 3600} h {left % 3600 // 60} min"
        number = f"{loss:.4f}" if abs(loss) < 1000 else f"{loss:.3g}"
        share = f"accuracy {100 * accuracy:.1f} %"
        before = f"{self._description} {{percentage:3.0f}}%|"
        room = _columns() - len(f"{self._description} 100%|| ") - _SHORTEST
        texts = [f"loss {number}, {share}, {clock} left, {speed:.0f} images/s"]
        texts += [f"loss {number}, {share}, {clock} left", f"loss {number}, {share}", share]
        text = next((text for text in texts if len(text) <= room), None)
        self._show(f"{before}{{bar}}| {text}" if text else f"{self._description} {share}", self.done)

    def close(self) -> None:
        """Removes the bar."""
        bar, self._bar = self._bar, None
        if bar is not None:
            try:
                bar.close()
            except OSError:
                return

    def _show(self, text: str, done: int = 0) -> None:
        if self._bar is None:
            return
        self._bar.bar_format, self._bar.n, self._bar.ncols = text, done, _columns()
        try:
            self._bar.refresh()
        except OSError:
            # The terminal is gone; the run goes on.
            self._bar = None


def _columns() -> int:
    """Columns of the terminal that are used: not its last one, where some terminals begin a new line."""
    try:
        return (os.get_terminal_size(sys.stderr.fileno()).columns or _USUAL) - 1
    except (OSError, ValueError, AttributeError):
        return _USUAL - 1
