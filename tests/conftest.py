"""Settings of all tests: float64 to be had, products in full precision, where the golden files are."""

import os
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.programs import Programs

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_default_matmul_precision", "highest")

# Most of the time of the tests in these folders is compilation. What is compared with golden numbers, and fits
# of many sweeps, are compiled as a user's programs are.
QUICKLY_COMPILED = ("core", "layers", "models", "training", "data")
GOLDEN = Path(os.environ.get("DEEPNMF_GOLDEN", Path(__file__).parent / "golden"))


def golden_files(pattern: str) -> list[Path]:
    """Files of the golden folder (`DEEPNMF_GOLDEN`, else tests/golden) whose names match the pattern."""
    return sorted(GOLDEN.glob(pattern))


def load_golden(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module", autouse=True)
def compilation(request: pytest.FixtureRequest) -> Iterator[None]:
    path = request.path.relative_to(Path(__file__).parent)
    quickly = path.parts[0] in QUICKLY_COMPILED and not path.name.startswith("test_golden")
    jax.config.update("jax_disable_most_optimizations", quickly)
    yield
    # Compiled programs are kept for good: those of under half of the quick tests took 3.6 GB and 16,000 of the 65,530
    # memory maps that Linux gives a process by default.
    jax.clear_caches()


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return Programs(tmp_path_factory)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for fixture, pattern in (("layer_file", "layer_*.npz"), ("network_file", "net_*.npz")):
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, golden_files(pattern), ids=lambda path: path.stem)
