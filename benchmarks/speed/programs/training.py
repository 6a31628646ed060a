"""The programs of training that are timed, in a process of their own: lines of JSON in, one line out for each.

python -m benchmarks.speed.programs.training '{"program": ..., ...}' builds a program and says "ready". Then
{"do": "run"}; and of further programs: {"do": "build", "name": ..., "spec": {...}, "limit": seconds},
{"do": "run", "name": ...}, {"do": "clear"}.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import short
from deepnmf_jax.training.devices import keep_freed_memory

# Settings with which a program runs soon, to see that it runs.
TINY: dict[str, Any] = {"num_iters": 2, "width": 0.25, "side": 12}


def batch_of(size: int, side: int = 28) -> tuple[np.ndarray, np.ndarray]:
    """Images (size, side, side, 3) in [0, 1], smooth as photographs are, and labels: the same for all programs."""
    rng = np.random.default_rng(0)
    coarse = rng.random((size, side // 4 + 2, side // 4 + 2, 3))
    images = np.repeat(np.repeat(coarse, 4, 1), 4, 2)[:, :side, :side] * 0.8 + 0.2 * rng.random((size, side, side, 3))
    return images.astype(np.float32), rng.integers(0, 10, size).astype(np.int32)


def train_step(batch: int, side: int = 28, **model: Any) -> Callable[[], None]:
    """Our training step: augmentation, forward, backward, Adam. `model` are settings of `Network`, or of
    `compile_train_step`."""
    compiled, arguments = compile_train_step(batch, side, **model)
    step = repeated_step(compiled, *arguments)
    return lambda: jax.block_until_ready(step())


def repeated_step(compiled: Any, state: Any, *data: Any) -> Callable[[], Any]:
    """One step after the other; each returns the number of steps so far, which is there when the step is done."""

    def run() -> Any:
        nonlocal state
        state = compiled(state, *data)
        return state.step

    return run


def compile_train_step(
    batch: int, side: int = 28, steps: int = 1, seeds: int = 1, **model: Any
) -> tuple[Any, tuple[Any, ...]]:
    """The compiled step of main.py with the settings of configs/base.py, and its arguments.

    `steps` are those of one program, `seeds` those trained at once.
    """

    from configs import base
    from deepnmf_jax.data.augmentation import Augmentation
    from deepnmf_jax.models import Network
    from deepnmf_jax.training.optimizers import create_optimizer, create_plateau
    from deepnmf_jax.training.state import create_state
    from deepnmf_jax.training.steps import make_train_step, several_steps

    config = base.get_config()
    network, optimizer = Network(**model), create_optimizer(config.optimizer, 1000)
    plateau = create_plateau(config.optimizer)
    step = make_train_step(network, optimizer, Augmentation(**{**config.augmentation, "crop": side}))
    seed, indices = np.uint32(0), jnp.arange(batch)

    def create(seed: Any) -> Any:
        return create_state(seed, network, (side, side, 3), optimizer, plateau)

    if seeds > 1:
        step, create = jax.vmap(step, in_axes=(0, None, None, 0)), jax.vmap(create)
        seed, indices = np.arange(seeds, dtype=np.uint32), jnp.tile(indices, (seeds, 1))
    if steps > 1:
        step, indices = several_steps(step), jnp.broadcast_to(indices, (steps, *indices.shape))
    images, labels = batch_of(batch, side + 4)
    data = (jnp.asarray(images * 255, jnp.uint8), jnp.asarray(labels), indices)
    state = jax.jit(create)(seed)
    return jax.jit(step, donate_argnums=0).lower(state, *data).compile(), (state, *data)


def inference(batch: int, **model: Any) -> Callable[[], None]:
    """Our network's forward, in evaluation."""

    from deepnmf_jax.models import Network

    network, images = Network(**model), batch_of(batch)[0]
    variables = jax.jit(network.init)(jax.random.key(0), images)
    forward = jax.jit(lambda v, x: network.apply(v, x, train=False))
    return lambda: jax.block_until_ready(forward(variables, images))


def data_alone(batch: int) -> Callable[[], None]:
    """Indexing and augmentation of a batch, without the network."""

    from configs import base
    from deepnmf_jax.data.augmentation import Augmentation, augment

    images, indices = jnp.asarray(batch_of(batch, 32)[0] * 255, jnp.uint8), jnp.arange(batch)
    settings = Augmentation(**base.get_config().augmentation)
    run = jax.jit(lambda key, images, indices: augment(key, images[indices], settings))
    return lambda: jax.block_until_ready(run(jax.random.key(0), images, indices))


def port_step(
    batch: int,
    layer: str,
    compiled: bool = False,
    threads: int = 0,
    device: str = "cpu",
    repeat: int = 1,
    authors: str = "",
) -> Callable[[], None]:
    """The PyTorch port's training step, on a batch already augmented; on a GPU `repeat` steps and their end.

    With `authors`, a clone of their code, its step instead.
    """
    import torch

    if threads:
        torch.set_num_threads(threads)
    training = _in_torch(layer, authors, compiled=compiled, device=device)
    training.feed(*batch_of(batch))
    return _repeated(training.step, device, repeat)


def _in_torch(layer: str, authors: str, **settings: Any) -> Any:
    from benchmarks.speed.programs import torch_port

    if not authors:
        return torch_port.Training(layer, **settings)
    from benchmarks.speed.programs.authors import Training

    return Training(authors, layer)


def port_layer(rows: int, n: int, k: int, direction: str, device: str = "cpu", repeat: int = 1) -> Callable[[], None]:
    """The port's inference alone, 20 iterations, forward or backward."""
    import torch

    from benchmarks.speed.programs.torch_port import ApproximateNMF, unit_rows

    x, w = (unit_rows(torch.rand(size, n, device=device)).requires_grad_() for size in (rows, k))
    h = ApproximateNMF.apply(x, w, 20)

    def once() -> None:
        if direction == "forward":
            with torch.no_grad():
                ApproximateNMF.apply(x, w, 20)
        else:
            torch.autograd.grad(h, (x, w), h.detach(), retain_graph=True)

    return _repeated(once, device, repeat)


def _repeated(once: Callable[[], None], device: str, repeat: int) -> Callable[[], None]:
    import torch

    def run() -> None:
        for _ in range(repeat):
            once()
        if device != "cpu":
            torch.cuda.synchronize()

    return run


def port_inference(batch: int, layer: str, authors: str = "") -> Callable[[], None]:
    """The PyTorch port's forward, in evaluation; with `authors`, a clone of their code, its forward instead."""
    training = _in_torch(layer, authors)
    training.feed(*batch_of(batch))
    return training.inference


def large_product(side: int = 2048) -> Callable[[], None]:
    """A product of two matrices of side x side: the rate that the machine has."""
    a, b = jnp.asarray(np.random.default_rng(0).random((2, side, side)), jnp.float32)
    multiply = jax.jit(jnp.matmul)
    return lambda: jax.block_until_ready(multiply(a, b))


PROGRAMS: dict[str, Callable[..., Callable[[], Any]]] = {
    f.__name__: f for f in (train_step, inference, data_alone, port_step, port_layer, port_inference, large_product)
}


def build(program: str, **spec: Any) -> Callable[[], Any]:
    """A program that has run three times."""
    run = PROGRAMS[program](**spec)
    for _ in range(3):
        run()
    return run


def too_long(*_: Any) -> None:
    """What the alarm does."""
    raise TimeoutError("it was not ready in time")


def answer(order: dict[str, Any], programs: dict[str, Callable[[], Any]]) -> str:
    """Does what a line asks; "ready", or the seconds of one run."""
    if order["do"] == "run":
        start = time.perf_counter()
        programs[order.get("name", "")]()
        return str(time.perf_counter() - start)
    if order["do"] == "clear":
        programs.clear()
        if torch := sys.modules.get("torch"):
            torch.cuda.empty_cache()
        return "ready"
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(order["limit"])
    try:
        programs[order["name"]] = build(**order["spec"])
    finally:
        signal.alarm(0)
    return "ready"


def main() -> None:
    """Builds the program of the command line, if it names one, then answers each line; what fails, with its reason."""
    spec = json.loads(sys.argv[1])
    programs: dict[str, Callable[[], Any]] = {}
    if spec:
        keep_freed_memory()
        cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", "~/.cache/deepnmf_jax")
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        programs[""] = build(**spec)
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            print(answer(json.loads(line), programs), flush=True)
        except Exception as error:
            print("failed:", short(error), flush=True)


if __name__ == "__main__":
    main()
