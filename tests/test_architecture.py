"""Who may import whom: the arrows of docs/architecture.md, read from the imports of every file."""

import ast
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[1]

# A file belongs to the room named by its folder in deepnmf_jax/, or by its own name if it lies right there.
# Each room lists the rooms that it may import.
ROOMS = {
    "core": {"core"},
    "layers": {"core", "layers"},
    "models": {"core", "layers", "models"},
    "data": {"data"},
    "plotting": set(),
    "decomposition": {"core", "decomposition", "plotting"},
    "training": {"core", "layers", "models", "data", "training", "plotting"},
    "experiments": {
        *("core", "layers", "models", "data", "training", "decomposition", "experiments", "plotting"),
        "configs.base",
    },
    "sklearn": {"core", "decomposition"},
    "__init__": {"core", "layers", "models", "decomposition"},
    "main": {"training", "experiments"},
    "configs": {"configs.base", "configs.fast", "configs.clustering"},
}

# Libraries that only some files may import; no pattern: no file.
LIBRARIES = {
    "flax": [f"deepnmf_jax/{room}/*" for room in ("layers", "models", "training", "experiments")],
    "optax": ["deepnmf_jax/training/*"],
    "orbax": ["deepnmf_jax/training/*"],
    "tensorflow_datasets": ["deepnmf_jax/data/datasets.py", "deepnmf_jax/data/prepare.py"],
    "tensorflow": ["deepnmf_jax/data/prepare.py"],
    "matplotlib": ["deepnmf_jax/plotting.py", "deepnmf_jax/*/pictures.py", "deepnmf_jax/experiments/*"],
    "mlxtend": ["deepnmf_jax/data/datasets.py"],
    "sklearn": [
        *("deepnmf_jax/sklearn.py", "deepnmf_jax/decomposition/dn2mfgl/scores.py"),
        "deepnmf_jax/experiments/clustering_pictures.py",
    ],
    "torch": [],
}

# core/ is functions of arrays: no other library, and nothing that touches the world outside.
CORE_LIBRARIES = {"jax", "numpy"}
CORE_FORBIDDEN = {"io", "json", "logging", "os", "pathlib", "pickle", "shutil", "subprocess", "tempfile"}

LONGEST_FILE = 400
LONGEST_MAIN = 80


def python_files(*places: str) -> Iterator[tuple[PurePosixPath, str]]:
    """Path below the root and text of each Python file in the given places, as far as they exist."""
    for place in places:
        path = ROOT / place
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            yield PurePosixPath(file.relative_to(ROOT)), file.read_text(encoding="utf-8")


def imports(path: PurePosixPath, text: str) -> set[str]:
    """Full dotted names that a file imports anywhere in it, those of `from a import b` as `a.b`."""
    names = set()
    for node in ast.walk(ast.parse(text, filename=str(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = path.parts[: len(path.parts) - node.level] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            names |= {f"{base}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "import_module":
            names |= {str(argument.value) for argument in node.args[:1] if isinstance(argument, ast.Constant)}
    return names


def room_of(path: PurePosixPath) -> str:
    if path.parts[0] != "deepnmf_jax":
        return path.parts[0].removesuffix(".py")
    return path.parts[1].removesuffix(".py")


def broken_arrows(path: PurePosixPath, text: str) -> list[str]:
    """What a file imports of this project without being allowed to."""
    allowed = ROOMS.get(room_of(path), set()) if path != PurePosixPath("configs/base.py") else set()
    broken = []
    for name in sorted(imports(path, text)):
        house, _, rest = name.partition(".")
        room = rest.split(".")[0]
        if house == "deepnmf_jax" and room != "__version__":
            ok = room in allowed
        elif house in {"configs", "main", "tests", "benchmarks"}:
            ok = f"{house}.{room}" in allowed
        else:
            ok = True
        if not ok:
            broken.append(f"{path} imports {name}")
    return broken


def misplaced_libraries(path: PurePosixPath, text: str) -> list[str]:
    """Libraries that a file imports although they belong elsewhere."""
    libraries = {name.split(".")[0] for name in imports(path, text)} - {"deepnmf_jax"}
    misplaced = {
        library
        for library in libraries & LIBRARIES.keys()
        if not any(fnmatch(str(path), pattern) for pattern in LIBRARIES[library])
    }
    if room_of(path) == "core":
        misplaced |= libraries - CORE_LIBRARIES - sys.stdlib_module_names | libraries & CORE_FORBIDDEN
    return [f"{path} imports {library}" for library in sorted(misplaced)]


def test_every_room_is_known() -> None:
    unknown = {room_of(path) for path, _ in python_files("deepnmf_jax")} - ROOMS.keys()
    assert not unknown, f"say in ROOMS what these may import: {sorted(unknown)}"


def test_the_arrows_hold() -> None:
    files = python_files("deepnmf_jax", "configs", "main.py")
    broken = [line for path, text in files for line in broken_arrows(path, text)]
    assert not broken, "\n".join(broken)


def test_libraries_stay_in_their_rooms() -> None:
    files = python_files("deepnmf_jax", "configs", "main.py")
    misplaced = [line for path, text in files for line in misplaced_libraries(path, text)]
    assert not misplaced, "\n".join(misplaced)


def test_files_are_short_and_well_named() -> None:
    files = dict(python_files("deepnmf_jax", "configs", "main.py", "tests", "benchmarks"))
    lengths = {path: text.count("\n") for path, text in files.items()}
    assert not {path: n for path, n in lengths.items() if n > LONGEST_FILE}
    assert lengths.get(PurePosixPath("main.py"), 0) <= LONGEST_MAIN
    assert not [path for path in files if path.stem in {"utils", "util", "helpers", "misc", "common"}]


@pytest.mark.parametrize(
    ("path", "line", "expected"),
    [
        ("deepnmf_jax/core/checks.py", "from deepnmf_jax.layers import conv", "deepnmf_jax.layers.conv"),
        ("deepnmf_jax/core/checks.py", "from ..training import loop", "deepnmf_jax.training.loop"),
        ("deepnmf_jax/core/__init__.py", "from .. import training", "deepnmf_jax.training"),
        ("deepnmf_jax/data/sampling.py", "def f():\n  import deepnmf_jax.core", "deepnmf_jax.core"),
        ("deepnmf_jax/__init__.py", "import_module('deepnmf_jax.training')", "deepnmf_jax.training"),
        ("deepnmf_jax/models/network.py", "from deepnmf_jax import infer", "deepnmf_jax.infer"),
        ("deepnmf_jax/training/loop.py", "import configs.base", "configs.base"),
        ("configs/cnn.py", "from configs import cnmf", "configs.cnmf"),
        ("configs/base.py", "import deepnmf_jax", "deepnmf_jax"),
        ("main.py", "from deepnmf_jax.models import network", "deepnmf_jax.models.network"),
    ],
)
def test_a_broken_arrow_is_seen(path: str, line: str, expected: str) -> None:
    assert broken_arrows(PurePosixPath(path), line) == [f"{path} imports {expected}"]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("deepnmf_jax/layers/conv.py", "from deepnmf_jax.core.inference import infer"),
        ("deepnmf_jax/core/gradients.py", "from . import normalization"),
        ("deepnmf_jax/training/loop.py", "from deepnmf_jax.data import sampling"),
        ("configs/cnn.py", "from configs.base import get_config"),
        ("configs/fast/cnn.py", "from configs import base"),
        ("main.py", "from deepnmf_jax.training.loop import train_and_evaluate"),
    ],
)
def test_an_allowed_arrow_is_not_reported(path: str, line: str) -> None:
    assert broken_arrows(PurePosixPath(path), line) == []


@pytest.mark.parametrize(
    ("path", "line", "library"),
    [
        ("deepnmf_jax/core/inference.py", "from flax import linen", "flax"),
        ("deepnmf_jax/core/inference.py", "import pathlib", "pathlib"),
        ("deepnmf_jax/core/inference.py", "import chex", "chex"),
        ("deepnmf_jax/decomposition/nmf.py", "import flax.struct", "flax"),
        ("deepnmf_jax/models/network.py", "import optax", "optax"),
        ("deepnmf_jax/data/sampling.py", "import tensorflow_datasets as tfds", "tensorflow_datasets"),
        ("deepnmf_jax/training/loop.py", "import matplotlib.pyplot", "matplotlib"),
        ("deepnmf_jax/decomposition/io/arrays.py", "import torch", "torch"),
        ("configs/base.py", "import torch", "torch"),
    ],
)
def test_a_misplaced_library_is_seen(path: str, line: str, library: str) -> None:
    assert misplaced_libraries(PurePosixPath(path), line) == [f"{path} imports {library}"]


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("deepnmf_jax/core/inference.py", "import functools, jax.numpy, numpy"),
        ("deepnmf_jax/training/pictures.py", "import matplotlib.pyplot"),
        ("deepnmf_jax/training/checkpoints.py", "import orbax.checkpoint"),
        ("deepnmf_jax/experiments/figures/seven.py", "import matplotlib.pyplot"),
        ("deepnmf_jax/sklearn.py", "from sklearn.base import BaseEstimator"),
    ],
)
def test_a_library_in_its_place_is_not_reported(path: str, line: str) -> None:
    assert misplaced_libraries(PurePosixPath(path), line) == []
