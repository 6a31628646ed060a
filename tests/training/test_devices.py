"""The result depends neither on the number of devices and processes nor on how a batch is split."""

import functools
import itertools
import socket
from functools import partial
from pathlib import Path
from signal import SIGTERM
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from deepnmf_jax.data.augmentation import Augmentation
from deepnmf_jax.data.sampling import epoch_order
from deepnmf_jax.models import Network
from deepnmf_jax.training.devices import data_mesh, place, replicated, split_last_axis
from deepnmf_jax.training.evaluation import Evaluation, Evaluator
from deepnmf_jax.training.losses import cross_entropy_and_mse, training_loss
from deepnmf_jax.training.optimizers import create_optimizer, create_plateau
from deepnmf_jax.training.state import TrainState, create_state
from deepnmf_jax.training.steps import make_train_step, several_steps
from tests.programs import Programs, metrics, results, stop_at

NUM_STEPS, BATCH_SIZE, NUM_IMAGES, CLASSES, CROP = 20, 48, 96, 10, 16
OPTIMIZER = {
    "learning_rate": {"nmf": 0.01, "mixing": 0.001, "batch_norm": 0.001},
    "b1": 0.9,
    "b2": 0.999,
    "eps": 1e-8,
    "schedule": "constant",
    "plateau": {"factor": 0.1, "patience": 10, "threshold": 1e-4},
}
AUGMENTATION = Augmentation(crop=CROP, flip=True, brightness=0.5, contrast=0.1, saturation=0.1, hue=0.15)


def network(**settings: Any) -> Network:
    return Network(**{"num_classes": CLASSES, "num_iters": 4, "width": 0.25, **settings})


def images_and_labels() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.arange(NUM_IMAGES, dtype=np.int32) % CLASSES
    images = rng.integers(0, 200, (NUM_IMAGES, 18, 18, 3), np.uint8)
    images[np.arange(NUM_IMAGES), labels] += 50
    return images, labels


def initial_state(model: Network, optimizer: optax.GradientTransformation) -> TrainState:
    def create() -> TrainState:
        return create_state(jnp.uint32(0), model, (CROP, CROP, 3), optimizer, create_plateau(OPTIMIZER))

    created: TrainState = jax.device_get(jax.jit(create)())
    return created


def take_steps(result: Path, process: tuple[str, int, int] | None, at_once: int = 1) -> None:
    """Writes the parameters after 20 steps in float64, and losses and logits in float32, computed on all devices.

    The latter at the initial values: float32 gradients differ by their rounding, which Adam makes steps of. `at_once`
    steps are one program.
    """
    if process is not None:
        jax.distributed.initialize(*process)
    model, optimizer, mesh = network(), create_optimizer(OPTIMIZER, NUM_STEPS), data_mesh(BATCH_SIZE)
    everywhere, split = replicated(mesh), NamedSharding(mesh, PartitionSpec("data"))
    state = initial_state(model, optimizer)
    pixels, classes = images_and_labels()

    @partial(jax.jit, out_shardings=everywhere)
    def predict(images: Any, labels: Any) -> Any:
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        logits, _ = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return cross_entropy_and_mse(logits, labels), logits

    inputs = pixels[:BATCH_SIZE, :CROP, :CROP].astype(np.float32) / 255
    losses, logits = map(np.asarray, predict(*place((inputs, classes[:BATCH_SIZE]), split)))
    assert losses.dtype == logits.dtype == np.float32

    jax.config.update("jax_enable_x64", True)
    images, labels = place((pixels, classes), everywhere)
    state = place(jax.tree.map(lambda a: a.astype(np.float64) if a.dtype == np.float32 else a, state), everywhere)
    one = make_train_step(model, optimizer, AUGMENTATION)
    step = jax.jit(several_steps(one) if at_once > 1 else one, donate_argnums=0, out_shardings=everywhere)
    epochs = NUM_STEPS * BATCH_SIZE // NUM_IMAGES
    order = np.concatenate([epoch_order(0, epoch, NUM_IMAGES, BATCH_SIZE) for epoch in range(epochs)])
    for batch in order.reshape(-1, at_once, BATCH_SIZE) if at_once > 1 else order:
        state = step(state, images, labels, place(batch, split_last_axis(mesh, batch.ndim)))
    leaves = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(state.params)}
    assert all(leaf.dtype == np.float64 for leaf in leaves.values())
    written = {"devices": np.asarray(len(jax.devices())), "losses": losses, "logits": logits, **leaves}
    if jax.process_index() == 0:
        np.savez(result, **written)


def devices(count: int) -> dict[str, str]:
    return {"XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port: int = probe.getsockname()[1]
        return port


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    # Their gradient is 0 up to rounding, which Adam makes steps of (MATH 7).
    drifting = {f"['block{block}']['mix']['bias']" for block in (1, 2)}
    assert drifting < expected.keys()
    for name in expected.keys() - drifting - {"devices"}:
        tolerance = 1e-4 if name in ("losses", "logits") else 1e-9
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=tolerance, err_msg=name)


@pytest.fixture(scope="module")
def one_device(programs: Programs) -> dict[str, np.ndarray]:
    path = programs.folder / "one_device.npz"
    programs.call(partial(take_steps, path, None), **devices(1)).end(0)
    found = load(path)
    assert found["devices"] == 1
    return found


@pytest.mark.slow
class TestSameResult:
    def test_eight_devices(self, programs: Programs, tmp_path: Path, one_device: dict[str, np.ndarray]) -> None:
        """With five steps a program, too, against one on one device."""
        programs.call(partial(take_steps, tmp_path / "result.npz", None, at_once=5), **devices(8)).end(0)
        found = load(tmp_path / "result.npz")
        assert found["devices"] == 8
        assert_same(found, one_device)

    def test_two_processes(self, programs: Programs, tmp_path: Path, one_device: dict[str, np.ndarray]) -> None:
        path, address = tmp_path / "result.npz", f"localhost:{free_port()}"
        started = [programs.call(partial(take_steps, path, (address, 2, i)), **devices(1)) for i in range(2)]
        for program in started:
            program.end(0)
        found = load(path)
        assert found["devices"] == 2
        assert_same(found, one_device)


@pytest.mark.slow
class TestSeveralProcesses:
    def test_a_run(self, programs: Programs, tmp_path: Path) -> None:
        """Two processes are interrupted, by a signal to one of them, and started again: as one that goes through."""
        flags = ["--config.num_epochs=1", "--config.log_every_steps=2", "--config.model.layer=conv"]
        # Biases before a batch norm would drift apart (MATH 7).
        flags += ["--config.model.mixing=False", "--config.model.use_bias=False"]
        workdir, whole = tmp_path / "run", tmp_path / "whole"

        def run_two(status: int, change: Any) -> list[str]:
            address = f"--coordinator=localhost:{free_port()}"
            started = [
                programs.start(
                    f"--workdir={workdir}",
                    *(*flags, address, "--num_processes=2", f"--process_id={i}"),
                    change=change if i else None,
                    **devices(1),
                )
                for i in range(2)
            ]
            return [program.end(status).stderr for program in started]

        for printed in run_two(143, partial(stop_at, "loop:Training._after_step", 3, SIGTERM)):
            assert "SIGTERM: saved at step 4" in printed
        for printed in run_two(0, None):
            assert "going on at step 4 of 8" in printed
        programs.run(f"--workdir={whole}", *flags)
        (line,), (straight,) = metrics(workdir), metrics(whole)
        assert line == pytest.approx(straight, rel=1e-4)
        found = results(workdir)
        assert (found["process_count"], found["device_count"]) == (2, 2)
        assert found["test_loss"] == pytest.approx(results(whole)["test_loss"], rel=1e-4)
        # Only the first process writes: one file for each start.
        assert len(list((workdir / "tensorboard").iterdir())) == 2


class TestMesh:
    def test_all_devices_of_a_batch_that_they_divide(self, caplog: pytest.LogCaptureFixture) -> None:
        assert data_mesh(jax.device_count() * 3).size == jax.device_count()
        assert not caplog.records

    def test_largest_number_that_divides(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Device:
            process_index = 0

        monkeypatch.setattr(jax, "local_device_count", lambda: 8)
        monkeypatch.setattr(jax, "devices", lambda: [Device() for _ in range(8)])
        for batch_size, used in ((48, 8), (12, 6), (50, 5), (7, 7), (11, 1), (1, 1)):
            caplog.clear()
            assert data_mesh(batch_size).size == used
            expected = [f"batch_size = {batch_size}: {used} of 8 devices a process are used, as many as divide it"]
            assert [record.getMessage() for record in caplog.records] == (expected if used < 8 else [])

    def test_processes_must_divide_the_batch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(jax, "process_count", lambda: 3)
        with pytest.raises(ValueError, match="batch_size = 50 must be a multiple of the 3 processes"):
            data_mesh(50)


class TestSplitBatch:
    @pytest.mark.slow
    def test_losses_and_gradients_of_parts_add_up(self) -> None:
        """In evaluation mode, where images do not see each other; in float64."""
        model, rng = network(mixing=False), np.random.default_rng(1)
        images, labels = rng.random((8, CROP, CROP, 1)), np.arange(8) % CLASSES
        variables = jax.jit(model.init)(jax.random.key(0), images)
        variables = jax.tree.map(lambda a: a.astype(jnp.float64), variables)

        @jax.jit
        def loss_and_gradient(images: Any, labels: Any) -> Any:
            def loss(params: Any) -> Any:
                return training_loss(model.apply({**variables, "params": params}, images, train=False), labels)

            return jax.value_and_grad(loss)(variables["params"])

        halves = [loss_and_gradient(images[part], labels[part]) for part in (slice(0, 4), slice(4, 8))]
        whole = loss_and_gradient(images, labels)
        chex.assert_trees_all_close(jax.tree.map(jnp.add, *halves), whole, rtol=1e-10, atol=1e-14)

    def test_loss_is_a_sum(self) -> None:
        rng = np.random.default_rng(2)
        logits, labels = jnp.asarray(rng.normal(size=(7, CLASSES))), np.arange(7) % CLASSES
        for cut in (1, 3, 6):
            parts = training_loss(logits[:cut], labels[:cut]) + training_loss(logits[cut:], labels[cut:])
            np.testing.assert_allclose(parts, training_loss(logits, labels), rtol=1e-12)

    @pytest.mark.slow
    def test_evaluation(self) -> None:
        """In batches that divide 20 images, do not, or are larger."""
        model, mesh = network(layer="conv", mixing=False), data_mesh(1)
        images, labels = place(images_and_labels(), replicated(mesh))
        variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, CROP, CROP, 3), jnp.float32))
        subset = np.arange(3, 23, dtype=np.int32)

        def evaluate(batch_size: int, labels: Any) -> Evaluation:
            evaluator = Evaluator(model, crop=CROP, batch_size=batch_size, mesh=mesh, statistics="running")
            return evaluator(variables["params"], variables["batch_stats"], images, labels, subset)

        whole = evaluate(20, labels)
        # All right answers, so that one too many would show.
        right = labels.at[subset].set(whole.predictions.astype(np.int32))
        assert evaluate(20, right).accuracy == 1
        for batch_size in (7, 32):
            np.testing.assert_allclose(evaluate(batch_size, labels).loss, whole.loss, rtol=1e-6)
            found = evaluate(batch_size, right)
            assert found.accuracy == 1
            np.testing.assert_array_equal(found.predictions, whole.predictions)


@pytest.mark.slow
def test_a_training_step_compiles_once() -> None:
    model, optimizer = network(layer="conv", mixing=False), create_optimizer(OPTIMIZER, NUM_STEPS)
    mesh = data_mesh(8)
    everywhere = replicated(mesh)
    step = chex.assert_max_traces(make_train_step(model, optimizer, AUGMENTATION), n=1)
    jitted = jax.jit(step, donate_argnums=0, out_shardings=everywhere)
    state = place(initial_state(model, optimizer), everywhere)
    images, labels = place(images_and_labels(), everywhere)
    for batch in epoch_order(0, 0, NUM_IMAGES, 8)[:3]:
        state = jitted(state, images, labels, place(batch, split_last_axis(mesh, 1)))
    assert int(state.step) == 3


def _trace_once() -> None:
    from deepnmf_jax.training import loop

    make = loop.make_train_step

    def make_counted(*arguments: Any, **settings: Any) -> Any:
        step, traces = make(*arguments, **settings), itertools.count(1)

        @functools.wraps(step)
        def counted(*batch: Any) -> Any:
            assert next(traces) == 1, "the training step is compiled again"
            return step(*batch)

        return counted

    loop.make_train_step = make_counted


def _trace_once_and_stop() -> None:
    _trace_once()
    stop_at("loop:Training._after_step", 11, SIGTERM)


@pytest.mark.slow
def test_the_loop_compiles_its_step_once(programs: Programs, tmp_path: Path) -> None:
    """Through steps, epochs, the plateau rule and the change of place of its state; and after a resume."""
    programs.run(f"--workdir={tmp_path}", change=_trace_once_and_stop, status=143)
    programs.run(f"--workdir={tmp_path}", change=_trace_once)
    assert len(metrics(tmp_path)) == 3
