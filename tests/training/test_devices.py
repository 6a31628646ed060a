"""The result depends neither on the number of devices and processes nor on how a batch is split."""

import dataclasses
import json
import re
from functools import partial
from pathlib import Path
from signal import SIGTERM
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from configs import base
from deepnmf_jax.data.augmentation import Augmentation, augment
from deepnmf_jax.data.sampling import epoch_order
from deepnmf_jax.models import Network
from deepnmf_jax.training import devices as devices_of_training
from deepnmf_jax.training.devices import data_mesh, place, replicated, split_last_axis
from deepnmf_jax.training.losses import cross_entropy_and_mse
from deepnmf_jax.training.optimizers import create_optimizer, create_plateau
from deepnmf_jax.training.state import TrainState, create_state
from deepnmf_jax.training.steps import make_train_step, several_steps
from tests.programs import NUM_TRAIN, Programs, free_port, metrics, results, stop_at

NUM_STEPS, BATCH_SIZE, NUM_IMAGES, CLASSES, CROP = 20, 48, 96, 10, 16
OPTIMIZER = base.get_config().optimizer
OPTIMIZER.learning_rate.nmf, OPTIMIZER.schedule = 0.01, "constant"
AUGMENTATION = Augmentation(crop=CROP, flip=True, brightness=0.5, contrast=0.1, saturation=0.1, hue=0.15)


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
    # A pooled block, one of the whole map, and one that has a single place.
    model = Network(num_classes=CLASSES, num_iters=4, features=(8, 16), kernels=(5, 0, 1))
    optimizer, mesh = create_optimizer(OPTIMIZER, NUM_STEPS), data_mesh(BATCH_SIZE)
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


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    # Its gradient is 0 up to rounding, which Adam makes steps of (MATH 7).
    drifting = "['block1']['mix']['bias']"
    assert drifting in expected
    for name in expected.keys() - {drifting, "devices"}:
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


def augment_on_all_devices() -> None:
    """Prints by how much one device and all of them differ."""
    images = images_and_labels()[0][:16]
    shared = place(images, NamedSharding(data_mesh(16), PartitionSpec("data")))
    step = jax.jit(augment, static_argnums=2)
    report: dict[str, float] = {"devices": len(jax.devices())}
    for per in ("image", "batch"):
        many, one = (
            step(jax.random.key(3), x, dataclasses.replace(AUGMENTATION, per=per))
            for x in (shared, jax.device_put(images, jax.devices()[0]))
        )
        report[per] = float(np.abs(np.asarray(many) - np.asarray(one)).max())
        report[f"{per} shards"] = len(many.sharding.device_set)
    print(json.dumps(report))


@pytest.mark.slow
def test_eight_devices_augment_as_one_does(programs: Programs) -> None:
    report = json.loads(programs.call(augment_on_all_devices, **devices(8)).end(0).stdout)
    assert report["devices"] == report["image shards"] == 8
    assert report["image"] < 1e-6 and report["batch"] < 1e-6


def _fail() -> None:
    devices_of_training._FAREWELL = 1
    stop_at("loop:Training._after_step", 1, OSError("a cable"))


@pytest.mark.slow
class TestSeveralProcesses:
    def test_a_run(self, programs: Programs, tmp_path: Path) -> None:
        """Two processes are interrupted, by a signal to one of them, then one fails, then they go through: as one."""
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
        failed, other = run_two(1, _fail)[::-1]
        assert "process 1 of 2: OSError: a cable; the last checkpoint is" in failed
        assert "process 0 of 2: what the processes compute together failed" in other
        for printed in run_two(0, None):
            assert "going on at step 4 of 8" in printed
        programs.run(f"--workdir={whole}", *flags)
        (line,), (straight,) = metrics(workdir), metrics(whole)
        assert line == pytest.approx(straight, rel=1e-4)
        found = results(workdir)
        assert (found["process_count"], found["device_count"]) == (2, 2)
        assert found["test_loss"] == pytest.approx(results(whole)["test_loss"], rel=1e-4)
        # Only the first process writes: one file for each start.
        assert len(list((workdir / "tensorboard").iterdir())) == 3


@pytest.mark.slow
@pytest.mark.parametrize("statistics", ["running", "batch"])
def test_a_batch_that_the_devices_do_not_divide(programs: Programs, tmp_path: Path, statistics: str) -> None:
    flags = ["--config.batch_size=12", "--config.num_epochs=1", "--config.model.layer=conv"]
    flags.append(f"--config.model.batch_statistics={statistics}")
    ended = programs.run(f"--workdir={tmp_path / 'run'}", *flags, **devices(8))
    assert re.search(r"batch_size = 12: 6 of 8 devices", ended.stderr)
    found = results(tmp_path / "run")
    assert found["device_count"] == 8 and found["steps"] == NUM_TRAIN // 12
    # 22 test images: batches of 12 and of 10, which six devices do not divide.
    alone = programs.evaluate(tmp_path / "run", *flags)
    assert alone["test_loss"] == pytest.approx(found["test_loss"], rel=1e-5)
    assert alone["test_accuracy"] == found["test_accuracy"]


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
