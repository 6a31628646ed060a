"""Power cuts: a run is stopped at one of its moments, and goes on from what was synced until then."""

import random
import shutil
from pathlib import Path

from tests.attacks import forgetful
from tests.attacks.laboratory import Laboratory, Verdict, judge


class CutError(BaseException):
    """The power is gone."""


def cuts(laboratory: Laboratory, count: int, rng: random.Random) -> list[Verdict]:
    """Runs until a random fsync or rename, and then on from the disk, twice: with the names and without."""
    disk = laboratory.folder / "disk"
    total = _run_until(laboratory, disk, None)[0]
    verdicts = []
    while len(verdicts) < count:
        moment = rng.randrange(1, total)
        _, trees = _run_until(laboratory, disk, moment)
        for kind, tree in trees.items():
            left = laboratory.folder / "left"
            shutil.rmtree(left, ignore_errors=True)
            forgetful.write(tree, left)

            def right(workdir: Path = left / "run") -> bool:
                laboratory.finish(workdir)
                return laboratory.outcome(workdir) == laboratory.right

            verdicts.append(judge(f"power cut at moment {moment} of {total}, {kind}", right))
    return verdicts[:count]


def _run_until(laboratory: Laboratory, root: Path, moment: int | None) -> tuple[int, dict[str, forgetful.Tree]]:
    """Runs, and cuts the power after so many fsyncs and renames; how many there were, and what is left."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    disk = forgetful.Forgetful(root)
    seen, trees = 0, {}

    def event() -> None:
        nonlocal seen
        seen += 1
        if seen == moment:
            trees.update({"names forgotten": disk.synced(), "names kept": disk.named()})
            raise CutError

    try:
        with disk.watching(event):
            laboratory.finish(root / "run")
    except CutError:
        pass
    return seen, trees
