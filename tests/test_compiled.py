"""Compiled programs are given up before they fill the memory, never while something is traced, and change no result."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepnmf_jax import NMF, NMFDense, compiled, infer
from deepnmf_jax.decomposition import codes
from tests.test_threads import assert_same, of_eight_threads

A = np.random.default_rng(0).random((7, 4), np.float32)
MODEL = NMF(2, max_iter=2, tol=0)


def bound(monkeypatch: pytest.MonkeyPatch, **limits: int) -> compiled.Bound:
    """A bound in place of the usual one."""
    new = compiled.Bound(**{"look_every": 1, **limits})
    monkeypatch.setattr(compiled, "BOUND", new)
    return new


def compile_two(i: int) -> None:
    """Two programs, of shapes that nothing else has."""
    jnp.sin(np.zeros(1000 + i, np.float32)), jnp.cos(np.zeros(2000 + i, np.float32))


def fitted() -> Any:
    return MODEL.fit(A), MODEL.encode(A[:5])


def decoded() -> Any:
    if not MODEL.fitted:
        MODEL.fit(A)
    return MODEL.decode(A[:, :2])


def inferred() -> Any:
    return infer(jnp.full((3, 4), 0.25), jnp.full((2, 4), 0.25), num_iters=2)


def layer() -> Any:
    return NMFDense(2, num_iters=2).apply({"params": {"u": jnp.ones((2, 4))}}, jnp.ones((3, 4)))


@pytest.mark.parametrize("compute", [pytest.param(fitted, marks=pytest.mark.slow), decoded, inferred, layer])
def test_a_computation_gives_up_what_is_too_much(monkeypatch: pytest.MonkeyPatch, compute: Callable[[], Any]) -> None:
    right = compute()
    tight = bound(monkeypatch, programs=2)
    compile_two(0)
    assert tight.compiled >= 2
    assert_same(compute(), right)
    assert tight.times > 0


def test_whoever_is_far_from_the_bound_keeps_all(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = bound(monkeypatch)
    layer()
    compile_two(0)
    count = wide.compiled
    layer()
    assert (wide.times, wide.compiled) == (0, count)
    assert compiled.Bound().programs >= 200


def test_nothing_is_given_up_inside_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    tight = bound(monkeypatch, programs=1)
    for transformed in (jax.jit, jax.grad, jax.vmap):

        def traced(x: jax.Array) -> jax.Array:
            with jax.ensure_compile_time_eval():
                assert compiled.is_tracing()
            compiled.keep_bounded()
            return jnp.sum(x)

        compile_two(1)
        given_up = tight.times
        transformed(traced)(jnp.ones(3) if transformed is not jax.grad else 1.0)
        assert tight.times == given_up
        assert not compiled.is_tracing()
        compiled.keep_bounded()
        assert tight.times == given_up + 1


def test_mappings_count_beside_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were there before do not count again, or each look would find too many."""
    tight = bound(monkeypatch, most=100)
    for before, now, given_up in (
        (0, 90, 0),
        (0, 101, 1),
        (30_000, 30_090, 0),
        (30_000, 30_101, 1),
        (65_500, 65_520, 1),
    ):
        monkeypatch.setattr(compiled, "mappings", lambda now=now: now)
        monkeypatch.setattr(compiled, "most_mappings", lambda: 65_530)
        tight.floor, tight.times, tight.compiled = before, 0, tight.next_look
        tight.keep()
        assert tight.times == given_up
        if given_up:
            assert tight.floor == now


def test_programs_count_where_mappings_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "mappings", lambda: None)
    tight = bound(monkeypatch, programs=3)
    for compiled_by_then, given_up in ((2, 0), (3, 1)):
        tight.compiled = tight.next_look = compiled_by_then
        tight.keep()
        assert tight.times == given_up


@pytest.mark.slow
def test_eight_threads_get_the_same_while_programs_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(i: int) -> Any:
        a = np.random.default_rng(i).random((7 + i % 2, 4), np.float32)
        model = NMF(2, max_iter=5, tol=0)
        return [(*model.fit(a), model.encode(a[:5])) for _ in range(2)]

    right = [fit(i) for i in range(8)]
    # Given up in the midst of it, now by one thread and now by another.
    tight = bound(monkeypatch, programs=3)
    for i in range(8):
        compile_two(10 + i)
    for found, expected in zip(of_eight_threads(fit), right, strict=True):
        assert_same(found, expected)
    assert tight.times > 1


def test_codes_are_compiled_once_by_a_fit_and_encode() -> None:
    """The last solve of a fit and `encode` share a program."""
    rng = np.random.default_rng(0)
    data = rng.random((13, 5), np.float32)
    estimator = NMF(3, max_iter=4, tol=0)
    estimator.fit(data)
    count = codes._compiled_search._cache_size()
    estimator.encode(data)
    estimator.encode(rng.random((13, 5), np.float32))
    assert codes._compiled_search._cache_size() == count
