"""What is done to the files of a workdir. Each function damages one place and says in words what it did."""

import os
import pickle
import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from deepnmf_jax.data.datasets import load_dataset
from deepnmf_jax.decomposition import NMF
from tests.attacks.laboratory import files

Damage = Callable[[Path], str]
ZEROS = 4096


def _file(workdir: Path, rng: random.Random) -> Path:
    """Every second time one of any size, otherwise one by its size."""
    found = [path for path in files(workdir) if path.stat().st_size]
    sizes = [path.stat().st_size for path in found]
    return rng.choices(found, sizes if rng.random() < 0.5 else None)[0]


def flip(workdir: Path, rng: random.Random) -> str:
    """Another value of one byte."""
    path = _file(workdir, rng)
    content = bytearray(path.read_bytes())
    position = rng.randrange(len(content))
    content[position] ^= rng.randrange(1, 256)
    path.write_bytes(content)
    return f"byte {position} of {path.relative_to(workdir)}"


def cut(workdir: Path, rng: random.Random) -> str:
    """A file that ends too early."""
    path = _file(workdir, rng)
    length = rng.randrange(path.stat().st_size)
    os.truncate(path, length)
    return f"{path.relative_to(workdir)} cut to {length} bytes"


def zero_tail(workdir: Path, rng: random.Random) -> str:
    """A file whose last blocks were never written."""
    path = _file(workdir, rng)
    size = path.stat().st_size
    kept = rng.randrange(size) // ZEROS * ZEROS if size > ZEROS else rng.choice((0, rng.randrange(size)))
    os.truncate(path, kept)
    os.truncate(path, size)
    return f"{path.relative_to(workdir)} zero from byte {kept}"


def lose(workdir: Path, rng: random.Random) -> str:
    """A file or a folder that is gone."""
    path = rng.choice(sorted(workdir.rglob("*")))
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return f"{path.relative_to(workdir)} is gone"


def mix_lines(workdir: Path, rng: random.Random) -> str:
    """Lines of the metrics doubled, dropped, or in another order."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    kind = rng.choice(("doubled", "dropped", "reversed", "swapped digits"))
    number = rng.randrange(len(lines))
    if kind == "doubled":
        lines.insert(number, lines[number])
    elif kind == "dropped":
        del lines[number]
    elif kind == "reversed":
        lines.reverse()
    else:
        lines[number] = lines[number].replace("1", "7")
    path.write_text("".join(lines))
    return f"line {number + 1} of metrics.jsonl {kind}"


DAMAGES = {"flipped bytes": flip, "cuts": cut, "zero tails": zero_tail, "lost files": lose, "lines": mix_lines}

# ------------------------------------------------------------------------------------------------- hostile files

_CHECKPOINT = "checkpoints/latest/21"
_PLACES = (
    "config.json",
    "images.json",
    "metrics.jsonl",
    f"{_CHECKPOINT}/manifest.sha256",
    f"{_CHECKPOINT}/meta/metadata",
    f"{_CHECKPOINT}/state/_METADATA",
    "checkpoints/best/99",
    "metrics.jsonl.tmp",
)


class Payload:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.mark),)


def _contents(mark: Path) -> dict[str, Callable[[Path], object]]:
    return {
        "a pickle": lambda path: path.write_bytes(pickle.dumps(Payload(mark))),
        "100,000 brackets": lambda path: path.write_text("[" * 100_000),
        "a pipe": os.mkfifo,
        "a link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
        "a link to itself": lambda path: path.symlink_to(path),
    }


def _replace(place: str, name: str, mark: Path, workdir: Path) -> str:
    path = workdir / place
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    _contents(mark)[name](path)
    return f"{place} is {name}"


def _manifest_elsewhere(workdir: Path) -> str:
    (workdir / _CHECKPOINT / "manifest.sha256").write_text(f"{'0' * 64}  ../../../../etc/passwd\n" * 1000)
    return "the manifest names files elsewhere"


def hostile_workdirs(mark: Path) -> Iterator[Damage]:
    """Files in a workdir that want to run code, to fill the memory, or to be waited for."""
    for place in _PLACES:
        for name in _contents(mark):
            yield partial(_replace, place, name, mark)
    yield _manifest_elsewhere


def hostile_data(folder: Path, mark: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Files of data and models that want to run code, and what reads them."""
    folder.mkdir(exist_ok=True)
    objects = np.array([Payload(mark)], object)
    for name, read in (("data.npz", load_dataset), ("data.pack", load_dataset), ("model.npz", NMF.load)):
        arrays = folder / f"arrays-{name}"
        with open(arrays, "wb") as file:
            np.savez(
                file, x_train=objects, y_train=objects, x_test=objects, y_test=objects, kind=objects, format=objects
            )
        whole = folder / f"whole-{name}"
        whole.write_bytes(pickle.dumps(Payload(mark)))
        for path in (arrays, whole):
            yield f"{path.name} with a pickle", partial(read, str(path))
