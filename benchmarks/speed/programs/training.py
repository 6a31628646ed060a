"""The programs of training that are timed: one line in, one time out.

python -m benchmarks.speed.programs.training '{"program": ..., ...}'
"""

import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deepnmf_jax.training.devices import keep_freed_memory


def batch_of(size: int, side: int = 28) -> tuple[np.ndarray, np.ndarray]:
    """Images (size, side, side, 3) in [0, 1], smooth as photographs are, and labels: the same for all programs."""
    rng = np.random.default_rng(0)
    coarse = rng.random((size, side // 4 + 2, side // 4 + 2, 3))
    images = np.repeat(np.repeat(coarse, 4, 1), 4, 2)[:, :side, :side] * 0.8 + 0.2 * rng.random((size, side, side, 3))
    return images.astype(np.float32), rng.integers(0, 10, size).astype(np.int32)


def train_step(batch: int, side: int = 28, **model: Any) -> Callable[[], None]:
    """Our training step: augmentation, forward, backward, Adam. `model` are settings of `Network`, or of
    `compile_train_step`."""

    compiled, (state, *data) = compile_train_step(batch, side, **model)

    def run() -> None:
        nonlocal state
        state = compiled(state, *data)
        jax.block_until_ready(state)

    return run


def compile_train_step(
    batch: int, side: int = 28, steps: int = 1, seeds: int = 1, options: dict[str, Any] | None = None, **model: Any
) -> tuple[Any, tuple[Any, ...]]:
    """The compiled step of main.py with the settings of configs/base.py, and its arguments.

    `steps` are those of one program, `seeds` those trained at once, `options` are of XLA's compiler.
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
    return jax.jit(step, donate_argnums=0).lower(state, *data).compile(options), (state, *data)


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
    batch: int, layer: str, compiled: bool, threads: int = 0, device: str = "cpu", tf32: bool = False, repeat: int = 1
) -> Callable[[], None]:
    """The PyTorch port's training step, on a batch already augmented; on a GPU `repeat` steps and their end."""
    import torch

    from benchmarks.speed.programs.torch_port import Training

    if threads:
        torch.set_num_threads(threads)
    training = Training(layer, compiled=compiled, device=device)
    training.feed(*batch_of(batch))
    return _repeated(training.step, device, tf32, repeat)


def port_layer(
    rows: int, n: int, k: int, direction: str, compiled: bool, device: str = "cpu", tf32: bool = False, repeat: int = 1
) -> Callable[[], None]:
    """The port's inference alone, 20 iterations, forward or backward."""
    import torch

    from benchmarks.speed.programs.torch_port import ApproximateNMF, unit_rows

    x, w = (unit_rows(torch.rand(size, n, device=device)).requires_grad_() for size in (rows, k))

    def forward(x: Any, w: Any) -> Any:
        return ApproximateNMF.apply(x, w, 20)

    run = torch.compile(forward) if compiled else forward
    h = run(x, w)

    def once() -> None:
        if direction == "forward":
            with torch.no_grad():
                run(x, w)
        else:
            torch.autograd.grad(h, (x, w), h.detach(), retain_graph=True)

    return _repeated(once, device, tf32, repeat)


def _repeated(once: Callable[[], None], device: str, tf32: bool, repeat: int) -> Callable[[], None]:
    import torch

    torch.set_float32_matmul_precision("high" if tf32 else "highest")

    def run() -> None:
        for _ in range(repeat):
            once()
        if device != "cpu":
            torch.cuda.synchronize()

    return run


def port_inference(batch: int, layer: str, compiled: bool) -> Callable[[], None]:
    """The PyTorch port's forward, in evaluation."""
    from benchmarks.speed.programs.torch_port import Training

    training = Training(layer, compiled=compiled)
    training.feed(*batch_of(batch))
    return training.inference


def product(rows: int, inner: int, columns: int, dtype: str = "float32", repeat: int = 1) -> Callable[[], None]:
    """`repeat` products (rows, inner) x (inner, columns) with float32 sums, one after the other."""

    rng = np.random.default_rng(0)
    a, b = (jnp.asarray(rng.random(s), dtype) for s in ((rows, inner), (inner, columns)))
    multiply = partial(jnp.matmul, preferred_element_type=jnp.float32)

    def several(a: Any, b: Any) -> Any:
        def body(_: Any, carry: Any) -> Any:
            # What follows from the product before keeps the compiler from doing them at once, or only one of them.
            c = multiply(a, b + carry[0, 0].astype(b.dtype) * 0)
            return carry + c[:1, :1] * 1e-9

        return jax.lax.fori_loop(0, repeat, body, jnp.zeros((1, 1)))

    run = jax.jit(multiply if repeat == 1 else several)
    return lambda: jax.block_until_ready(run(a, b))


PROGRAMS = {f.__name__: f for f in (train_step, inference, data_alone, port_step, port_layer, port_inference, product)}


def main() -> None:
    """Builds the program, says "ready", then answers each line with the seconds of one run."""
    spec = json.loads(sys.argv[1])
    keep_freed_memory()
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", "~/.cache/deepnmf_jax")
    jax.config.update("jax_compilation_cache_dir", os.path.expanduser(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    run = PROGRAMS[spec.pop("program")](**spec)
    for _ in range(3):
        run()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        run()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
