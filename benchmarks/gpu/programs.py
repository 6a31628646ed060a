"""What compare.py compares: the layers and the step by XLA, by the kernel and in PyTorch; agreement; limits."""

import importlib.util
import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.gpu.roofline import LAYERS, NUM_ITERS, Layer
from benchmarks.harness import Worker
from benchmarks.speed.programs.training import compile_train_step
from deepnmf_jax import infer
from deepnmf_jax.core.normalization import normalize_patches, normalize_weights

# Differences of the largest entry above which nothing is timed. Sums over thousands of rows in another order differ by
# some 1e-6 in float32.
TOLERANCES = {"full": 1e-4, "tf32": 5e-3, "bfloat16": 5e-2}
# Seconds of one sample on a GPU.
SAMPLE = 0.03

Sampler = Callable[[], float]


def variants(on_gpu: bool) -> dict[str, dict[str, str]]:
    """The ways of inference to compare, as settings of `infer` and of the network. XLA in float32 is the reference."""
    kernel = {"implementation": "pallas" if on_gpu else "interpret"}
    found = {"XLA": {"products": "full"}, "kernel": {"products": "full", **kernel}}
    if on_gpu:
        found |= {f"kernel, {products}": {"products": products, **kernel} for products in ("tf32", "bfloat16")}
        found["XLA, tf32"] = {"products": "tf32"}
    return found


def problem(layer: Layer, batch: int, rows: int | None = None) -> tuple[Any, Any, Any]:
    """x (rows, n) and w (k, n), rows summing to 1, and a cotangent (rows, k)."""
    rng = np.random.default_rng(0)
    rows = rows or batch * layer.positions
    x = normalize_patches(jnp.asarray(rng.random((rows, layer.n), np.float32)))
    w = normalize_weights(jnp.asarray(rng.random((layer.k, layer.n), np.float32)))
    return x, w, jnp.asarray(rng.standard_normal((rows, layer.k), np.float32))


def with_gradients(settings: Mapping[str, Any], num_iters: int) -> Callable[..., Any]:
    """(x, w, g) -> h and the gradients of x and w, compiled."""

    def run(x: Any, w: Any, g: Any) -> Any:
        h, pull = jax.vjp(partial(infer, num_iters=num_iters, **settings), x, w)
        return h, *pull(g)

    return jax.jit(run)


def agreement(ways: Mapping[str, Mapping[str, str]], on_gpu: bool) -> dict[str, dict[str, Any]]:
    """Largest difference of h and both gradients from XLA's in float32, over the largest entry, by layer and variant.

    What fails to compile or to run says why.
    """
    found: dict[str, dict[str, Any]] = {}
    for layer in LAYERS:
        # The interpreter takes seconds for rows that a GPU does not notice.
        x, w, g = problem(layer, 20, None if on_gpu else 5)
        num_iters = NUM_ITERS if on_gpu else 3
        expected = with_gradients(ways["XLA"], num_iters)(x, w, g)
        for name, settings in ways.items():
            if name == "XLA":
                continue
            entry: dict[str, Any] = {}
            try:
                arrays = with_gradients(settings, num_iters)(x, w, g)
                for what, a, b in zip(("h", "gradient of x", "gradient of w"), arrays, expected, strict=True):
                    entry[what] = float(abs(a - b).max() / abs(b).max())
                entry["agrees"] = max(entry.values()) <= TOLERANCES[settings["products"]]
            except Exception as error:
                entry = {"failed": short(error), "agrees": False}
            found[f"{layer.name}, {name}"] = entry
    return found


def sampler(run: Callable[[], Any], on_gpu: bool) -> Sampler:
    """Seconds of one run, the mean over so many runs in a row that the clock and the last wait do not count."""
    for _ in range(2):
        jax.block_until_ready(run())
    start = time.perf_counter()
    jax.block_until_ready(run())
    repeat = int(np.clip(SAMPLE / (time.perf_counter() - start), 1, 200)) if on_gpu else 1

    def sample() -> float:
        start = time.perf_counter()
        for _ in range(repeat):
            last = run()
        jax.block_until_ready(last)
        return (time.perf_counter() - start) / repeat

    return sample


def layer_program(layer: Layer, batch: int, direction: str, settings: Mapping[str, Any], on_gpu: bool) -> Sampler:
    """A layer's inference, or its approximate gradient when the inference is done."""
    x, w, g = problem(layer, batch, None if on_gpu else 5)
    forward = partial(infer, num_iters=NUM_ITERS if on_gpu else 2, **settings)
    if direction == "forward":
        return sampler(partial(jax.jit(forward), x, w), on_gpu)
    _, pull = jax.jit(partial(jax.vjp, forward))(x, w)
    return sampler(partial(jax.jit(lambda pull, g: pull(g)), pull, g), on_gpu)


def step_program(batch: int, on_gpu: bool, steps: int = 1, precision: str = "float32", **settings: Any) -> Sampler:
    """The training step of CNMF+1x1 with augmentation and Adam; seconds of one step of `steps` in a program."""
    tiny = {} if on_gpu else {"num_iters": 2, "width": 0.25, "side": 12}
    with jax.default_matmul_precision(precision):
        compiled, (state, *data) = compile_train_step(batch, steps=steps, **settings, **tiny)

    def run() -> Any:
        nonlocal state
        state = compiled(state, *data)
        return state.step

    sample = sampler(run, on_gpu)
    return lambda: sample() / steps


class TorchPort:
    """The PyTorch port's programs, in a process of their own that is started when first needed, and again if it died.

    Raises:
        RuntimeError: from `build` and the samplers; torch is missing, or what the process says.
    """

    def __init__(self, on_gpu: bool):
        self.on_gpu = on_gpu
        self._worker: Worker | None = None

    def build(self, name: str, seconds: float, repeat: int, **spec: Any) -> Sampler:
        """The sampler of a program of speed/programs/training.py, which must be ready within so many seconds."""
        if importlib.util.find_spec("torch") is None:
            raise RuntimeError("torch is not installed")
        if self._worker is None:
            self._worker = Worker({}, module="benchmarks.gpu.torch_program")
        repeat = repeat if self.on_gpu else 1
        spec |= {"device": "cuda" if self.on_gpu else "cpu", "repeat": repeat}
        self._ask({"do": "build", "name": name, "limit": int(max(seconds, 1)), "spec": spec})
        return lambda: float(self._ask({"do": "run", "name": name})) / repeat

    def clear(self) -> None:
        """Frees the memory of all programs."""
        if self._worker is not None:
            self._ask({"do": "clear"})

    def close(self) -> None:
        """Ends the process."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def _ask(self, order: Mapping[str, Any]) -> str:
        if self._worker is None:
            raise RuntimeError("the process of PyTorch has ended")
        answer = self._worker.ask(json.dumps(order))
        if not answer:
            self.close()
            raise RuntimeError("the process of PyTorch has ended")
        if answer.startswith("failed: "):
            raise RuntimeError(answer.removeprefix("failed: "))
        return answer


def ceilings(on_gpu: bool) -> dict[str, Any]:
    """What the device does at most: seconds and size of a large copy and of large products; and of a small program."""
    side, length = (8192, 2**28) if on_gpu else (64, 2**10)
    a, copied = jnp.ones((side, side)), jnp.ones(length)
    found: dict[str, Any] = {"bytes": 8 * length, "operations": 2 * side**3}
    programs: dict[str, Sampler] = {}
    for name, precision in (("product full", "float32"), ("product tf32", "tensorfloat32")):
        with jax.default_matmul_precision(precision):
            compiled = jax.jit(jnp.matmul).lower(a, a).compile()
        programs[name] = sampler(partial(compiled, a, a), on_gpu)
    programs["copy"] = sampler(partial(jax.jit(lambda x: x * 1.5), copied), on_gpu)
    programs["small program"] = sampler(partial(jax.jit(lambda x: x + 1), jnp.ones(8)), on_gpu)
    return {**found, "samples": in_turns(programs)[0]}


def in_turns(programs: Mapping[str, Sampler], rounds: int = 7) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Samples of each program, one after the other, so that what slows the device for a while slows all.

    Those that fail on the way are in the second result, with their reasons.
    """
    samples: dict[str, list[float]] = {name: [] for name in programs}
    failed: dict[str, str] = {}
    for _ in range(rounds):
        for name in list(samples):
            try:
                samples[name].append(programs[name]())
            except Exception as error:
                failed[name] = short(error)
                del samples[name]
    return samples, failed


def short(error: Exception) -> str:
    """A reason in one line."""
    text = f"{type(error).__name__}: {error}"
    if "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower():
        return "out of memory"
    return " ".join(text.split())[-300:]
