"""Which tests see JAX as users do: the estimators', with float64 switched off as it is by default."""

from collections.abc import Iterator

import jax
import numpy as np
import pytest

from deepnmf_jax.decomposition.io.arrays import with_precision

# What lies below the estimators is tested in float64, in which errors of a rule are not taken for rounding.
BY_DEFAULT = (
    "test_arguments.py",
    "test_bad_input.py",
    "test_damaged_files.py",
    "test_estimator.py",
    "test_kinds_of_arrays.py",
    "test_loaders_and_torch.py",
    "test_nmf.py",
    "test_overcomplete.py",
    "test_pickling.py",
    "test_relatives.py",
    "test_saved.py",
    "test_selection.py",
    "test_streaming.py",
)


@pytest.fixture(scope="module", autouse=True)
def precision(request: pytest.FixtureRequest, compilation: str) -> Iterator[None]:
    """JAX's default for the files of `BY_DEFAULT`: arrays of float64 become float32 unless an estimator prevents it."""
    before = jax.config.values["jax_enable_x64"]
    jax.config.update("jax_enable_x64", before and request.path.name not in BY_DEFAULT)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.fixture
def float64() -> Iterator[None]:
    """float64 in a test of a rule beside those of the estimators."""
    with with_precision(np.dtype("float64")):
        yield
