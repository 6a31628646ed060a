"""Settings of all tests: float64 to be had, products in full precision, where the golden files are."""

import os
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.programs import Programs

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_default_matmul_precision", "highest")

GOLDEN = Path(os.environ.get("DEEPNMF_GOLDEN", Path(__file__).parent / "golden"))


def golden_files(pattern: str) -> list[Path]:
    """Files of the golden folder (`DEEPNMF_GOLDEN`, else tests/golden) whose names match the pattern."""
    return sorted(GOLDEN.glob(pattern))


def load_golden(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return Programs(tmp_path_factory)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for fixture, pattern in (("layer_file", "layer_*.npz"), ("network_file", "net_*.npz")):
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, golden_files(pattern), ids=lambda path: path.stem)
