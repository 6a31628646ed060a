"""Threads and processes of a program: each gets what one alone gets."""

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepnmf_jax import NMF, infer, load_pretrained, normalize_weights

ROOT = Path(__file__).resolve().parents[1]
THREADS = 8


def of_eight_threads(work: Callable[[int], Any]) -> list[Any]:
    """Results of work(0), work(1), ..., all begun at once."""
    start = threading.Barrier(THREADS)

    def wait_and_work(i: int) -> Any:
        start.wait(timeout=60)
        return work(i)

    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(wait_and_work, range(THREADS)))


def assert_same(a: Any, b: Any) -> None:
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(one, other)


def fit_and_encode(i: int) -> list[np.ndarray]:
    A = np.random.default_rng(i).random((40, 12)).astype(np.float32)
    model = NMF(3, max_iter=30, tol=0, random_state=i)
    return [*model.fit(A), model.encode(A[:7]), np.asarray(model.loss_history_)]


def inferred(i: int) -> jax.Array:
    x, u = (jnp.asarray(np.random.default_rng([i, j]).random(shape)) for j, shape in enumerate(((9, 12), (4, 12))))
    return infer(x / x.sum(1, keepdims=True), normalize_weights(u), num_iters=3 + i % 2)


def loaded(i: int) -> Any:
    return load_pretrained("cnmf").variables


@pytest.mark.parametrize("work", [pytest.param(fit_and_encode, marks=pytest.mark.slow), inferred, loaded])
def test_eight_threads_get_the_results_of_one(work: Callable[[int], Any]) -> None:
    # At once first: they compile, and load what is loaded when first used.
    found = of_eight_threads(work)
    for i, result in enumerate(found):
        assert_same(result, work(i))


@pytest.mark.slow
def test_one_estimator_encodes_in_eight_threads() -> None:
    A = np.random.default_rng(0).random((40, 12)).astype(np.float32)
    model = NMF(3, max_iter=30, tol=0)
    model.fit(A)
    found = of_eight_threads(lambda i: model.encode(A))
    expected = model.encode(A)
    for codes in found:
        np.testing.assert_array_equal(codes, expected)


SCRIPT = """
import jax.numpy as jnp
import joblib
from deepnmf_jax import infer

def codes(x, w):
    return infer(x, w, num_iters=3).tolist()

x, w = jnp.full((2, 3), 1 / 3), jnp.asarray([[0.5, 0.25, 0.25], [0.125, 0.375, 0.5]])
here = codes(x, w)  # JAX is in use before the process starts
(there,) = joblib.Parallel(n_jobs=2)([joblib.delayed(codes)(x, w)])
assert here == there, (here, there)
"""
FORK = """
import os, warnings
import jax.numpy as jnp
import deepnmf_jax
jnp.ones(3).block_until_ready()
with warnings.catch_warnings(record=True) as found:
    warnings.simplefilter("always")
    child = os.fork()
    if not child:
        os._exit(0)
os.waitpid(child, 0)
print(*(w.message for w in found))
"""


def python(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


@pytest.mark.slow
def test_a_process_of_joblib_gets_the_same() -> None:
    done = python(SCRIPT)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_jax_warns_of_a_fork_as_the_guide_says() -> None:
    quoted = "os.fork() is incompatible with multithreaded code, and JAX is multithreaded"
    assert quoted in python(FORK).stdout
    assert quoted in (ROOT / "docs" / "nmf.md").read_text(encoding="utf-8")
