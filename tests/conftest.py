"""Settings of all tests: float64 to be had, products in full precision, where the golden files are."""

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.compilation import compile_as, environment_to_compile_as
from tests.programs import Programs

jax.config.update("jax_enable_x64", True)
# A shell starts programs in the background with Ctrl-C ignored, and they hand it on to the programs of the tests.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
jax.config.update("jax_default_matmul_precision", "highest")
# Where in Python each operation comes from is written into every program: a twentieth of the time of the tests.
jax.config.update("jax_traceback_in_locations_limit", 0)

# Tracing makes many small objects that stay: at Python's own rhythm the collector takes up to a tenth of the time.
gc.set_threshold(100_000, 20, 100)

# Tests whose programs are not compiled "quick" (tests/compilation.py).
# test_main.py holds runs against one that a user starts, which must have the same bits.
USUALLY_COMPILED = ("test_golden_networks.py", "test_main.py")
# Fits of many sweeps, epochs of training, evaluation of many images.
PLAINLY_COMPILED = (
    "test_quality.py",
    "test_consensus.py",
    "test_dn2mfgl.py",
    "test_golden.py",
    "test_notebooks.py",
    "test_paper_notebook.py",
    "test_dictionary.py",
    "test_publish.py",
)
GOLDEN = Path(os.environ.get("DEEPNMF_GOLDEN", Path(__file__).parent / "golden"))


def golden_files(pattern: str) -> list[Path]:
    """Files of the golden folder (`DEEPNMF_GOLDEN`, else tests/golden) whose names match the pattern."""
    return sorted(GOLDEN.glob(pattern))


def load_golden(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module", autouse=True)
def compilation(request: pytest.FixtureRequest) -> Iterator[str]:
    """How the programs of a file are compiled."""
    name = request.path.name
    kind = "usual" if name in USUALLY_COMPILED else "plain" if name in PLAINLY_COMPILED else "quick"
    compile_as(kind)
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in environment_to_compile_as(kind).items():
            patch.setenv(variable, value)
        yield kind
    # Compiled programs are kept for good: those of under half of the quick tests took 3.6 GB and 16,000 of the 65,530
    # memory maps that Linux gives a process by default.
    jax.clear_caches()


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory, compilation: str) -> Programs:
    # Of what a tiny run computes there is too little for optimisations to pay.
    return Programs(tmp_path_factory, "usual" if compilation == "usual" else "quick")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for fixture, pattern in (("layer_file", "layer_*.npz"), ("network_file", "net_*.npz")):
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, golden_files(pattern), ids=lambda path: path.stem)
