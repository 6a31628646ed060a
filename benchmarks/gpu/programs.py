"""What measure.py compares: the layers and the step by XLA, by the kernel and in PyTorch; agreement; limits."""

import importlib.util
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.harness import Sampler, Worker, in_turns, short, timed
from benchmarks.layers import LAYERS, NUM_ITERS, Layer, backward_of, problem
from benchmarks.speed.programs.training import TINY, compile_train_step, repeated_step
from deepnmf_jax import infer

# Differences of the largest entry above which nothing is timed. Sums over thousands of rows in another order differ by
# some 1e-6 in float32.
TOLERANCES = {"full": 1e-4, "tf32": 5e-3, "bfloat16": 5e-2}
# Seconds of one sample on a GPU, and how many samples there are.
SAMPLE, ROUNDS = 0.03, 7


def variants(on_gpu: bool) -> dict[str, dict[str, str]]:
    """The ways of inference to compare, as settings of `infer` and of the network. XLA in float32 is the reference."""
    kernel = {"implementation": "pallas" if on_gpu else "interpret"}
    found = {"XLA": {"products": "full"}, "kernel": {"products": "full", **kernel}}
    if on_gpu:
        found |= {f"kernel, {products}": {"products": products, **kernel} for products in ("tf32", "bfloat16")}
        found["XLA, tf32"] = {"products": "tf32"}
    return found


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


def layer_program(layer: Layer, batch: int, direction: str, settings: Mapping[str, Any], on_gpu: bool) -> Sampler:
    """A layer's inference, or its approximate gradient when the inference is done."""
    x, w, g = problem(layer, batch, None if on_gpu else 5)
    forward = partial(infer, num_iters=NUM_ITERS if on_gpu else 2, **settings)
    run = partial(jax.jit(forward), x, w) if direction == "forward" else backward_of(forward, x, w, g)
    return timed(run, SAMPLE if on_gpu else 0)


def step_program(batch: int, on_gpu: bool, steps: int = 1, precision: str = "float32", **settings: Any) -> Sampler:
    """The training step of CNMF+1x1 with augmentation and Adam; seconds of one step of `steps` in a program."""
    tiny = {} if on_gpu else TINY
    with jax.default_matmul_precision(precision):
        compiled, arguments = compile_train_step(batch, steps=steps, **settings, **tiny)
    sample = timed(repeated_step(compiled, *arguments), SAMPLE if on_gpu else 0)
    return lambda: sample() / steps


class TorchPort:
    """The PyTorch port's programs, in a process of their own that is started when first needed, and again if it died.

    Raises:
        RuntimeError: from `build` and the samplers; torch is missing, or what the process says.
    """

    def __init__(self, on_gpu: bool):
        self.on_gpu = on_gpu
        self.worker: Worker | None = None

    def build(self, name: str, seconds: float, repeat: int, **spec: Any) -> Sampler:
        """The sampler of a program of speed/programs/training.py, which must be ready within so many seconds."""
        if importlib.util.find_spec("torch") is None:
            raise RuntimeError("torch is not installed")
        if self.worker is None or self.worker.process.poll() is not None:
            self.worker = Worker({})
        ask, repeat = self.worker.ask, repeat if self.on_gpu else 1
        spec |= {"device": "cuda" if self.on_gpu else "cpu", "repeat": repeat}
        ask(json.dumps({"do": "build", "name": name, "limit": int(max(seconds, 1)), "spec": spec}))
        return lambda: float(ask(json.dumps({"do": "run", "name": name}))) / repeat

    def clear(self) -> None:
        """Frees the memory of all programs."""
        if self.worker is not None:
            self.worker.ask(json.dumps({"do": "clear"}))

    def close(self) -> None:
        """Ends the process."""
        if self.worker is not None:
            self.worker.stop()


def ceilings(on_gpu: bool) -> dict[str, Any]:
    """What the device does at most: seconds and size of a large copy and of large products; and of a small program."""
    side, length = (8192, 2**28) if on_gpu else (64, 2**10)
    a, copied = jnp.ones((side, side)), jnp.ones(length)
    found: dict[str, Any] = {"bytes": 8 * length, "operations": 2 * side**3}
    seconds = SAMPLE if on_gpu else 0
    programs: dict[str, Sampler] = {}
    for name, precision in (("product full", "float32"), ("product tf32", "tensorfloat32")):
        with jax.default_matmul_precision(precision):
            compiled = jax.jit(jnp.matmul).lower(a, a).compile()
        programs[name] = timed(partial(compiled, a, a), seconds)
    programs["copy"] = timed(partial(jax.jit(lambda x: x * 1.5), copied), seconds)
    programs["small program"] = timed(partial(jax.jit(lambda x: x + 1), jnp.ones(8)), seconds)
    return {**found, "samples": in_turns(programs, ROUNDS)}
