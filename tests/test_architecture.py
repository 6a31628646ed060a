"""Who may import whom, and how large a file may get: docs/develop/architecture.md, read from the text of every file."""

import ast
import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ("deepnmf_jax", "benchmarks", "configs", "docs/pages.py", "docs/attacks.py", "docs/draw.py", "main.py")
PAGE = ROOT / "docs" / "develop" / "architecture.md"

# Which other rooms each room may import; its own it always may. `room_of` says which file is where.
SHARED = {"archives", "compiled", "files", "plotting", "programs"}
NETWORKS = {"core", "layers", "models", "data", "training"}
FACTORIZATIONS = {f"decomposition.{part}" for part in ("io", "updates", "base", "family", "dn2mfgl", "names")}
ROOMS: dict[str, set[str]] = {
    "archives": set(),
    "compiled": set(),
    "files": set(),
    "programs": set(),
    "plotting": {"files"},
    "core": {"compiled"},
    "layers": {"core", "compiled"},
    "models": {"core", "layers", *SHARED},
    "nnx": {"core", "layers", "models"},
    "data": {"core", *SHARED},
    "training": {*NETWORKS, *SHARED},
    "decomposition.io": {"core", *SHARED},
    "decomposition.updates": {"core", "decomposition.io"},
    "decomposition.base": {"core", *SHARED, "decomposition.io", "decomposition.updates"},
    "decomposition.family": {"core", *SHARED, "decomposition.io", "decomposition.updates", "decomposition.base"},
    "decomposition.dn2mfgl": {"core", *SHARED, "decomposition.io", "decomposition.updates", "decomposition.base"},
    "decomposition.names": FACTORIZATIONS,
    "names": {"core", "compiled", "layers", "models", *FACTORIZATIONS},
    "sklearn": {"core", *SHARED, *FACTORIZATIONS},
    "configs": set(),
    "experiments": {*NETWORKS, *SHARED, "names", *FACTORIZATIONS},
    "benchmarks": {*NETWORKS, *SHARED, "names", *FACTORIZATIONS, "sklearn", "configs", "experiments"},
    "docs": {*NETWORKS, *SHARED, "names", *FACTORIZATIONS, "configs", "experiments", "benchmarks"},
    "command_line": {"training", "experiments", "programs"},
    "__main__": {"training", "data", "programs", "command_line"},
    "main": {"training", "experiments", "programs", "command_line"},
}
# Of decomposition/: the estimators that are no part of dn2mfgl/, which must not know of them, nor they of it.
FAMILY = {"nmf", "symmetric_nmf", "semi_nmf", "convex_nmf", "archetypal", "selection", "consensus", "pictures"}

# Libraries that only some files may import; no pattern: no file.
LIBRARIES = {
    "flax": [f"deepnmf_jax/{room}/*" for room in ("layers", "models", "nnx", "training", "experiments")],
    "optax": ["deepnmf_jax/training/*"],
    "orbax": ["deepnmf_jax/training/*"],
    "tensorflow_datasets": ["deepnmf_jax/data/tfds.py"],
    "tensorflow": ["deepnmf_jax/data/prepare.py"],
    "matplotlib": ["deepnmf_jax/plotting.py", "deepnmf_jax/*/pictures.py", "deepnmf_jax/experiments/*"],
    "mlxtend": ["deepnmf_jax/data/datasets.py"],
    "sklearn": [f"deepnmf_jax/{file}" for file in ("sklearn/*", "decomposition/dn2mfgl/scores.py", "experiments/*")],
    "torch": [],
}

# core/ is functions of arrays: no other library, and nothing that touches the world outside.
CORE_LIBRARIES = {"jax", "numpy"}
CORE_FORBIDDEN = {"io", "json", "logging", "os", "pathlib", "pickle", "shutil", "subprocess", "tempfile"}

LONGEST_FILE, LONGEST_FUNCTION, LONGEST_MAIN, LONGEST_TEST = 350, 80, 110, 400


@cache
def files() -> dict[PurePosixPath, str]:
    """Path below the root and text of each source file."""
    places = [ROOT / place for place in SOURCE]
    found = [file for place in places for file in ([place] if place.is_file() else sorted(place.rglob("*.py")))]
    return {PurePosixPath(file.relative_to(ROOT)): file.read_text(encoding="utf-8") for file in found}


@cache
def modules() -> dict[str, PurePosixPath]:
    """Source files by their dotted names; a package's file is its __init__.py."""
    return {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in files()}


@cache
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


def file_of(name: str) -> PurePosixPath | None:
    """The source file that an imported name is, or is in; None if it is not of this project."""
    while name and name not in modules():
        name = name.rpartition(".")[0]
    return modules().get(name)


def arrows(path: PurePosixPath, text: str) -> dict[str, PurePosixPath]:
    """The other files of the project that a file imports, by the names in the import."""
    found = {name: file_of(name) for name in imports(path, text) if not name.endswith(".__version__")}
    return {name: file for name, file in found.items() if file not in (None, path)}


def room_of(path: PurePosixPath) -> str:
    if path.parts[0] != "deepnmf_jax":
        return path.parts[0].removesuffix(".py")
    room, *inner = path.with_suffix("").parts[1:]
    if room != "decomposition":
        return "names" if room == "__init__" else room
    if len(inner) > 1:
        return f"decomposition.{inner[0]}"
    return f"decomposition.{'names' if inner[0] == '__init__' else 'family' if inner[0] in FAMILY else 'base'}"


def broken_arrows(path: PurePosixPath, text: str) -> list[str]:
    """What a file imports of this project without being allowed to."""
    room = room_of(path)
    broken = [name for name, file in arrows(path, text).items() if room_of(file) not in ROOMS[room] | {room}]
    broken += [name for name in imports(path, text) if name.split(".")[0] == "tests"]
    return [f"{path} imports {name}" for name in sorted(broken)]


def circles(graph: dict[PurePosixPath, set[PurePosixPath]]) -> list[str]:
    """Circles of imports, one through each arrow that must go for none to be left."""
    graph, found = {path: set(above) for path, above in graph.items()}, []
    while True:
        try:
            TopologicalSorter(graph).prepare()
            return found
        except CycleError as error:
            circle = error.args[1][::-1]  # each imports the next one
            found.append(" -> ".join(map(str, circle)))
            graph[circle[0]].remove(circle[1])


def misplaced_libraries(path: PurePosixPath, text: str) -> list[str]:
    """Libraries that a file of the package, a config or main.py imports although they belong elsewhere."""
    libraries = {name.split(".")[0] for name in imports(path, text)} - {"deepnmf_jax"}
    misplaced = {
        library
        for library in libraries & LIBRARIES.keys()
        if not any(fnmatch(str(path), pattern) for pattern in LIBRARIES[library])
    }
    if room_of(path) == "core":
        misplaced |= libraries - CORE_LIBRARIES - sys.stdlib_module_names | libraries & CORE_FORBIDDEN
    return [f"{path} imports {library}" for library in sorted(misplaced)]


def long_functions(path: PurePosixPath, text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text, filename=str(path))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            lines = node.end_lineno - node.lineno + 1
            if lines > LONGEST_FUNCTION:
                yield f"{path}: {node.name} has {lines} lines"


def test_every_room_is_known() -> None:
    unknown = {room_of(path) for path in files()} - ROOMS.keys()
    assert not unknown, f"say in ROOMS what these may import: {sorted(unknown)}"


def test_the_arrows_hold() -> None:
    broken = [line for path, text in files().items() for line in broken_arrows(path, text)]
    assert not broken, "\n".join(broken)


def test_no_circle_of_imports() -> None:
    found = circles({path: set(arrows(path, text).values()) for path, text in files().items()})
    assert not found, "\n".join(found)


def test_libraries_stay_in_their_rooms() -> None:
    inner = {path: text for path, text in files().items() if path.parts[0] not in ("benchmarks", "docs")}
    misplaced = [line for path, text in inner.items() for line in misplaced_libraries(path, text)]
    assert not misplaced, "\n".join(misplaced)


def test_files_and_functions_are_short_and_well_named() -> None:
    tests = {PurePosixPath(file.relative_to(ROOT)): file.read_text() for file in sorted(ROOT.glob("tests/**/*.py"))}
    limits = {**dict.fromkeys(files(), LONGEST_FILE), **dict.fromkeys(tests, LONGEST_TEST)}
    limits[PurePosixPath("main.py")] = LONGEST_MAIN
    texts = {**files(), **tests}
    lines = {path: texts[path].count("\n") for path in limits}
    assert not {path: n for path, n in lines.items() if n > limits[path]}
    assert not [line for path, text in files().items() for line in long_functions(path, text)]
    assert not [path for path in texts if path.stem in {"utils", "util", "helpers", "misc", "common"}]


def test_the_page_names_every_file() -> None:
    """And none that is not there."""
    page = PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:deepnmf_jax|benchmarks|configs)/[\w/]+\.py|docs/\w+\.py|main\.py)`", page))
    there = {str(path) for path in files() if path.name != "__init__.py"}
    assert (sorted(there - named), sorted(named - there)) == ([], [])


@pytest.mark.parametrize(
    ("path", "line", "expected"),
    [
        ("deepnmf_jax/core/checks.py", "from deepnmf_jax.layers import conv", "deepnmf_jax.layers.conv"),
        ("deepnmf_jax/core/checks.py", "from ..training import loop", "deepnmf_jax.training.loop"),
        ("deepnmf_jax/core/__init__.py", "from .. import training", "deepnmf_jax.training"),
        ("deepnmf_jax/data/sampling.py", "def f():\n  import deepnmf_jax.layers", "deepnmf_jax.layers"),
        ("deepnmf_jax/__init__.py", "import_module('deepnmf_jax.training')", "deepnmf_jax.training"),
        ("deepnmf_jax/models/network.py", "from deepnmf_jax import infer", "deepnmf_jax.infer"),
        ("deepnmf_jax/training/loop.py", "import configs.base", "configs.base"),
        ("deepnmf_jax/training/loop.py", "from deepnmf_jax import experiments", "deepnmf_jax.experiments"),
        ("deepnmf_jax/experiments/trials.py", "from benchmarks import harness", "benchmarks.harness"),
        ("deepnmf_jax/decomposition/io/arrays.py", "from .. import nmf", "deepnmf_jax.decomposition.nmf"),
        ("deepnmf_jax/decomposition/updates/loop.py", "from .. import codes", "deepnmf_jax.decomposition.codes"),
        ("deepnmf_jax/decomposition/codes.py", "from . import nmf", "deepnmf_jax.decomposition.nmf"),
        ("deepnmf_jax/decomposition/nmf.py", "from . import dn2mfgl", "deepnmf_jax.decomposition.dn2mfgl"),
        ("deepnmf_jax/decomposition/dn2mfgl/sweep.py", "from .. import nmf", "deepnmf_jax.decomposition.nmf"),
        ("deepnmf_jax/decomposition/dn2mfgl/sweep.py", "from .. import NMF", "deepnmf_jax.decomposition.NMF"),
        ("configs/base.py", "import deepnmf_jax", "deepnmf_jax"),
        ("main.py", "from deepnmf_jax.models import network", "deepnmf_jax.models.network"),
        ("main.py", "from tests import programs", "tests.programs"),
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
        ("deepnmf_jax/training/loop.py", "from deepnmf_jax import __version__"),
        ("deepnmf_jax/decomposition/dn2mfgl/estimator.py", "from deepnmf_jax.decomposition import codes"),
        ("configs/fast/cnn.py", "from configs import base"),
        ("main.py", "from deepnmf_jax.training.loop import train_and_evaluate"),
    ],
)
def test_an_allowed_arrow_is_not_reported(path: str, line: str) -> None:
    assert broken_arrows(PurePosixPath(path), line) == []


def test_a_circle_is_seen() -> None:
    a, b, c, d = map(PurePosixPath, "abcd")
    assert circles({a: {b, c}, b: {d}, c: {d}}) == []
    assert len(circles({a: {b}, b: {c}, c: {a}, d: {a}})) == 1
    assert len(circles({a: {b}, b: {a}, c: {d}, d: {c}})) == 2
    path = PurePosixPath("deepnmf_jax/core/checks.py")
    hidden = "if TYPE_CHECKING:\n  from deepnmf_jax.core import updates\ndef f():\n  from .patches import per_axis"
    assert {file.stem for file in arrows(path, hidden).values()} == {"updates", "patches"}


def test_a_long_function_is_seen() -> None:
    path = PurePosixPath("a.py")
    assert not list(long_functions(path, "def f():\n" + "  x\n" * (LONGEST_FUNCTION - 1)))
    assert list(long_functions(path, "class A:\n def f():\n" + "  x\n" * LONGEST_FUNCTION)) == ["a.py: f has 81 lines"]


@pytest.mark.parametrize(
    ("path", "line", "library"),
    [
        ("deepnmf_jax/core/inference.py", "from flax import linen", "flax"),
        ("deepnmf_jax/core/inference.py", "import pathlib", "pathlib"),
        ("deepnmf_jax/core/inference.py", "import chex", "chex"),
        ("deepnmf_jax/decomposition/nmf.py", "import flax.struct", "flax"),
        ("deepnmf_jax/models/network.py", "import optax", "optax"),
        ("deepnmf_jax/training/loop.py", "import tensorflow_datasets as tfds", "tensorflow_datasets"),
        ("deepnmf_jax/training/loop.py", "import matplotlib.pyplot", "matplotlib"),
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
        ("deepnmf_jax/sklearn/nmf.py", "from sklearn.base import BaseEstimator"),
    ],
)
def test_a_library_in_its_place_is_not_reported(path: str, line: str) -> None:
    assert misplaced_libraries(PurePosixPath(path), line) == []
