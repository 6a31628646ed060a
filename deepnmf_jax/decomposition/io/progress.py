"""Progress bars over loops that run on the device."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax

# The innermost bar is the one that `show` moves: a callback inside a compiled loop cannot carry the bar itself.
_BARS: list[tuple[Any, float]] = []


def show(done: Any, value: Any) -> None:
    """Move the current bar to `done` sweeps and let it say the objective."""
    if _BARS:
        shown, unit = _BARS[-1]
        shown.update(int(done) - shown.n)
        shown.set_postfix(objective=f"{float(value) * unit:.6g}")


@contextmanager
def bar(verbose: bool, total: int, name: str, unit: float = 1.0) -> Iterator[Callable[[Any, Any], None] | None]:
    """A bar of `total` sweeps, as the function to report to; None if not verbose. Objectives are times `unit`."""
    if not verbose:
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=name, unit="sweep") as made:
        _BARS.append((made, unit))
        try:
            yield show
            jax.effects_barrier()
        finally:
            _BARS.pop()


def warn_of_zeros() -> None:
    """Warn that the multiplicative rule keeps the zeros of its start."""
    warnings.warn(
        "the start of solver='mu' holds zeros, which it can never leave; use init='nndsvda' or 'random'",
        UserWarning,
        stacklevel=5,
    )
