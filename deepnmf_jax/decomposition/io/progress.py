"""Progress bars over loops that run on the device."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(
    verbose: bool, total: int, name: str, unit: float = 1.0, shows: str = "objective"
) -> Iterator[Callable[[int, float], None] | None]:
    """A bar of `total` sweeps, as the function to report sweeps and a value to (it is shown times `unit`, under the
    name of `shows`); None if not verbose."""
    if not verbose:
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=name, unit="sweep") as made:

        def show(done: int, value: float) -> None:
            made.update(done - made.n)
            made.set_postfix({shows: f"{value * unit:.6g}"})

        yield show
