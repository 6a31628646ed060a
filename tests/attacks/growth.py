"""Growth: shapes that never come again, and epochs without end, must not fill the memory.

python -m tests.attacks.growth [--shapes=300] [--minutes=20] [--compiled=usual] [--record] [kind ...] prints a table.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from docs import attacks as tables
from tests.attacks.laboratory import PATIENCE, Verdict

ROOT = Path(__file__).resolve().parents[2]
# Above what the programs may take stand Python, JAX, and what a call compiles before the next look.
MEGABYTES, SPARE_MAPPINGS = 1500, 6000
# In the course of a process.
POINTS = 40
# By how much the memory of a run may grow.
EPOCHS_GROW = 1.05
RNG = np.random.default_rng(0)


class Growth(NamedTuple):
    """Of a process: shapes (or epochs) that were done, most memory and mappings, times that programs were given up.

    `course`: after so many shapes, the memory and mappings of that moment.
    """

    shapes: int
    megabytes: int
    mappings: int
    given_up: int
    seconds: int
    course: list[list[int]]


def matrix(n: int, p: int) -> np.ndarray:
    return RNG.random((n, p), np.float32)


def fits() -> Callable[[int], Any]:
    from deepnmf_jax import NMF

    return lambda i: NMF(3, max_iter=2, tol=0).fit(matrix(10 + i, 8 + i % 7))


def other_fits() -> Callable[[int], Any]:
    from deepnmf_jax import ArchetypalAnalysis, ConvexNMF, Dn2MFGL, SemiNMF

    estimators = [
        SemiNMF(3, max_iter=2, tol=0),
        ConvexNMF(3, max_iter=2, tol=0),
        ArchetypalAnalysis(3, max_iter=2, tol=0),
        Dn2MFGL((4, 3), alpha=0.1, max_iter=2, tol=0),
    ]
    return lambda i: estimators[i % 4].fit(matrix(10 + i, 8))


def codes() -> Callable[[int], Any]:
    from deepnmf_jax import NMF, SemiNMF

    estimators = [Model(3, max_iter=2, tol=0) for Model in (NMF, SemiNMF)]
    for estimator in estimators:
        estimator.fit(matrix(9, 8))
    return lambda i: estimators[i % 2].decode(estimators[i % 2].encode(matrix(10 + i, 8)))


def batches() -> Callable[[int], Any]:
    from deepnmf_jax import NMF

    estimator = NMF(3)
    return lambda i: estimator.partial_fit(matrix(10 + i, 8))


def chosen() -> Callable[[int], Any]:
    from deepnmf_jax.decomposition import choose_k

    return lambda i: choose_k(matrix(10 + i, 8), [2, 3], repeats=1, max_iter=2, tol=0)


def inferences() -> Callable[[int], Any]:
    import jax.numpy as jnp

    from deepnmf_jax import infer, normalize_patches, normalize_weights

    def infer_one(i: int) -> Any:
        x, w = jnp.asarray(matrix(10 + i, 8)), jnp.asarray(matrix(3 + i % 5, 8))
        return infer(normalize_patches(x), normalize_weights(w), num_iters=2).block_until_ready()

    return infer_one


def layers() -> Callable[[int], Any]:
    import jax
    import jax.numpy as jnp

    from deepnmf_jax import NMFConv

    layer = NMFConv(4, (3, 3), num_iters=2)
    variables = layer.init(jax.random.key(0), jnp.ones((1, 8, 8, 2)))
    return lambda i: layer.apply(variables, jnp.ones((1, 8, 9 + i, 2))).block_until_ready()


def epochs(folder: Path, count: int, look: Callable[[], None]) -> None:
    """A run of so many epochs of two steps, on images of 8 x 8, by the plateau rule."""
    from configs import quickstart
    from deepnmf_jax.training import loop, reports
    from tests.programs import TWO_BLOCKS

    end_epoch = loop.Training._end_epoch

    def end_and_look(*arguments: Any) -> None:
        end_epoch(*arguments)
        look()

    loop.Training._end_epoch = end_and_look  # type: ignore[method-assign]
    reports._draw = lambda *_: None
    labels = np.arange(24) % 3
    images = RNG.integers(0, 255, (24, 8, 8, 1), np.uint8)
    np.savez(folder / "images.npz", x_train=images, y_train=labels, x_test=images[:9], y_test=labels[:9])
    tiny = {"batch_size": 8, "eval_batch_size": 6, "num_validation": 8, "num_epochs": count, "save_every_epochs": 50}
    # So slowly that the run does not end before.
    rule = {"optimizer.plateau.factor": 0.99, "optimizer.plateau.smallest_rate": 1e-30}
    model = {"augmentation.crop": 8, "model.kernels": (3, 0), "model.features": (8,)}
    config = quickstart.get_config()
    config.update_from_flattened_dict({**TWO_BLOCKS, "dataset": str(folder / "images.npz"), **tiny, **rule, **model})
    loop.train_and_evaluate(config, folder / "run")


KINDS = {
    "fits": fits,
    "other fits": other_fits,
    "codes": codes,
    "batches": batches,
    "choose_k": chosen,
    "infer": inferences,
    "layers": layers,
}


class Watch:
    """The most memory and mappings of this process, and their course."""

    def __init__(self, total: int) -> None:
        self.megabytes = self.mappings = self.done = 0
        self.every = max(total // POINTS, 1)
        self.course: list[list[int]] = []

    def look(self) -> None:
        """After each shape or epoch."""
        from deepnmf_jax.compiled import mappings

        status = Path("/proc/self/status").read_text()
        resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        megabytes, now = int(resident.split()[1]) // 1024, mappings() or 0
        self.megabytes, self.mappings = max(self.megabytes, megabytes), max(self.mappings, now)
        self.done += 1
        if self.done % self.every == 0:
            self.course.append([self.done, megabytes, now])
            print(*self.course[-1], file=sys.stderr, flush=True)


def measure(kind: str, shapes: int, minutes: float) -> Growth:
    """Does all this in this process, or as many shapes as the minutes allow (of epochs, all)."""
    from deepnmf_jax import compiled

    watch, started = Watch(shapes), time.monotonic()
    if kind == "epochs":
        with tempfile.TemporaryDirectory() as folder:
            epochs(Path(folder), shapes, watch.look)
    else:
        do = KINDS[kind]()
        for i in range(shapes):
            if time.monotonic() > started + 60 * minutes:
                break
            do(i)
            watch.look()
    seconds = round(time.monotonic() - started)
    return Growth(watch.done, watch.megabytes, watch.mappings, compiled.BOUND.times, seconds, watch.course)


def in_its_process(kind: str, shapes: int, how: str, minutes: float = 600) -> Growth | str:
    """`measure` in a process of its own; what it said if it failed."""
    options = [f"--shapes={shapes}", f"--minutes={minutes}", f"--compiled={how}"]
    command = [sys.executable, "-m", "tests.attacks.growth", "--here", *options, kind]
    longest = max(PATIENCE, min(20 * shapes, 120 * minutes))
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=longest)
    except subprocess.TimeoutExpired:
        return "took too long"
    if done.returncode:
        return f"status {done.returncode}: {done.stderr[-300:]}"
    return Growth(*json.loads(done.stdout.splitlines()[-1]))


def judged(kind: str, found: Growth | str) -> Verdict:
    """Right if the memory and the mappings are within the bound."""
    from deepnmf_jax.compiled import MAPPINGS

    if isinstance(found, str):
        return Verdict("wrong", f"{kind}: {found}")
    within = found.megabytes < MEGABYTES and found.mappings < MAPPINGS + SPARE_MAPPINGS
    if kind == "epochs":
        settled = [megabytes for epoch, megabytes, _ in found.course if epoch >= tables.SETTLED]
        within &= not settled or max(settled) <= EPOCHS_GROW * settled[0]
    return Verdict("right" if within else "wrong", f"{kind}: {found}")


def growth(shapes: int, minutes: float) -> Iterator[Verdict]:
    """So many shapes of every kind, or as many as the minutes allow for each, and so many epochs."""
    for kind in (*KINDS, "epochs"):
        yield judged(kind, in_its_process(kind, shapes, "quick", minutes))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join((*KINDS, 'epochs'))}")
    parser.add_argument("--shapes", type=int, default=300, help="shapes, or epochs (default 300)")
    parser.add_argument("--minutes", type=float, default=600, help="no new shape of a kind after so long (default 600)")
    parser.add_argument("--compiled", default="quick", help="as tests/compilation.py has it (default quick)")
    parser.add_argument("--record", action="store_true", help="keep what was found (make pages)")
    parser.add_argument("--here", action="store_true", help="in this process, as a line of JSON")
    options = parser.parse_args()
    if options.here:
        _here(*options.kinds, options)
        return 0
    found = {}
    for kind in options.kinds or (*KINDS, "epochs"):
        found[kind] = in_its_process(kind, options.shapes, options.compiled, options.minutes)
        print(kind, *found[kind][:-1] if isinstance(found[kind], Growth) else found[kind], flush=True)
    if options.record:
        kept = {kind: each._asdict() for kind, each in found.items() if isinstance(each, Growth)}
        tables.add_growth(kept, " ".join(["python -m tests.attacks.growth", *sys.argv[1:]]))
    return int(any(judged(kind, each).word == "wrong" for kind, each in found.items()))


def _here(kind: str, options: argparse.Namespace) -> None:
    import jax

    from deepnmf_jax.training.devices import keep_freed_memory
    from tests.compilation import compile_as

    jax.config.update("jax_platforms", "cpu")
    if kind == "epochs":
        # As main.py does.
        keep_freed_memory()
    compile_as(options.compiled)
    warnings.simplefilter("ignore")
    print(json.dumps(measure(kind, options.shapes, options.minutes)))


if __name__ == "__main__":
    sys.exit(main())
