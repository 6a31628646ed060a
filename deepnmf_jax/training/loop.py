"""Training from start to end: one loop, resumable at every step (paper, section 2.6)."""

import contextlib
import errno
import logging
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from deepnmf_jax.data.sampling import epoch_order
from deepnmf_jax.programs import home
from deepnmf_jax.training.checkpoints import Checkpoints
from deepnmf_jax.training.devices import place, replicated, split_last_axis
from deepnmf_jax.training.environment import changes, installed, same_bits
from deepnmf_jax.training.evaluation import Evaluation
from deepnmf_jax.training.interruption import Interrupted, Interruption
from deepnmf_jax.training.locks import check_free, locked, make_workdir
from deepnmf_jax.training.optimizers import learning_rates, rates_exhausted, update_plateau
from deepnmf_jax.training.progress import Progress
from deepnmf_jax.training.records import MetricsLog, describe_images, open_workdir
from deepnmf_jax.training.reports import report
from deepnmf_jax.training.setup import Run, prepare, summary_line
from deepnmf_jax.training.state import Best, Sums, TrainState
from deepnmf_jax.training.steps import make_train_step, several_steps
from deepnmf_jax.training.tensorboard import TensorBoard

_log = logging.getLogger(__name__)


def train_and_evaluate(config: Any, workdir: str | Path) -> dict[str, Any]:
    """Trains the network of a config to the end, going on where an earlier call stopped, and returns results.json.

    Args:
        config: see configs/base.py.
        workdir: gets config.json, images.json, metrics.jsonl, checkpoints/, tensorboard/, pictures/ and results.json;
            `~` is the home folder. While the run goes on, it is locked.

    Raises:
        Interrupted: on SIGTERM or SIGINT, after saving.
        FloatingPointError: the loss is no longer finite.
        ValueError, FileNotFoundError, OSError: settings, data or workdir that cannot be used; another run is using the
            workdir; or it can no longer be written to, and then the message names the last checkpoint.
    """
    workdir = home(workdir)
    check_free(workdir)
    run = prepare(config)
    make_workdir(workdir)
    with locked(workdir):
        open_workdir(workdir, {**run.config.to_dict(), "data_fingerprint": run.dataset.fingerprint})
        describe_images(workdir, run.dataset.train_images.shape[1:], run.dataset.class_names)
        _log.info("%s; files in %s", summary_line(run), workdir)
        with jax.default_matmul_precision(run.config.matmul_precision), Interruption() as interruption:
            with contextlib.closing(Training(run, workdir, interruption)) as training:
                training.to_the_end()
            _log.info("training is complete; testing and drawing")
            # All is saved; what is left can be stopped at any moment, and SIGTERM lets it come to its end.
            interruption.release(signal.SIGINT)
            try:
                records = training.log.records if training.log else []
                return report(run, workdir, training.state, records, training.seconds)
            except OSError as error:
                raise OSError(f"{_reason(error)}; training is complete, and {training.last_checkpoint()}") from error


class Training:
    """A run between two epochs: its state on the devices, its records on disk."""

    def __init__(self, run: Run, workdir: Path, interruption: Interruption):
        self.config, self.run, self.interruption, self.workdir = run.config, run, interruption, workdir
        self.checkpoints = Checkpoints(workdir)
        restored = self.checkpoints.restore(run.template())
        everywhere = replicated(run.mesh)
        self.images, self.labels = place((run.dataset.train_images, run.dataset.train_labels), everywhere)
        self.train_step = self._compiled_step()
        start, state, meta = restored[:3] if restored else (0, self._first_state(), {})
        self.checkpoints.discard_after(start)
        # The step of the newest checkpoint; 0: there is none.
        self.saved = start
        self.same_bits = same_bits()
        if restored:
            _log.info("going on at step %d of %d", start, run.num_steps)
            if otherwise := changes(meta.get("same_bits", {}), self.same_bits):
                _log.warning("what is left of this run will be equal to rounding, not to the bit (%s)", otherwise)
        self.seconds: float = meta.get("seconds", 0.0)
        self.unsaved_best = False
        # The first process of a run writes for all.
        writes = jax.process_index() == 0
        known: dict[str, Any] = {"saved": meta.get("records") if restored else "", "every": run.steps_per_epoch}
        self.log = MetricsLog(workdir / "metrics.jsonl", step=start, **known) if writes else None
        drawn = writes and installed("tensorboardX", "TensorBoard files")
        self.tensorboard = TensorBoard(workdir / "tensorboard", step=start) if drawn else None
        self.state: TrainState = place(jax.device_get(state), everywhere)
        self.compiled = False
        # Compiled once: called eagerly, the branch in the rule is compiled anew in each epoch, and kept.
        next_plateau = partial(update_plateau, run.plateau)
        self.next_plateau = jax.jit(jax.vmap(next_plateau) if len(run.seeds) > 1 else next_plateau)

    def to_the_end(self) -> None:
        """All epochs that are left.

        Raises:
            OSError: the workdir can no longer be written to; the message names the last checkpoint.
            Interrupted: a signal asked for it; all is saved.
        """
        try:
            while not self.finished():
                self.epoch()
        except OSError as error:
            raise OSError(f"{_reason(error)}; {self.last_checkpoint()}") from error
        if signal_name := self.interruption.requested_anywhere():
            raise Interrupted(signal_name, self.step)

    def last_checkpoint(self) -> str:
        """Where the run can go on from, in words."""
        folder = self.workdir / "checkpoints" / "latest" / str(self.saved)
        if not os.path.exists(self.workdir):
            return f"the folder {self.workdir} is gone, and its checkpoints with it"
        if not self.saved or not os.path.exists(folder):
            return "there is no checkpoint yet: when that is mended, the same command begins anew"
        return f"the last checkpoint is {folder}: when that is mended, the same command goes on from there"

    def close(self) -> None:
        """Closes the records; the state remains."""
        if self.tensorboard:
            self.tensorboard.close()

    def _first_state(self) -> TrainState:
        """The state before the first step.

        While XLA compiles its program, which Python does not wait for, the training step is traced: its first call
        finds that done.
        """
        creation, everywhere = self.run.creation(), replicated(self.run.mesh)
        with ThreadPoolExecutor(1) as pool:
            compiled = pool.submit(creation.compile)
            state = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), self.run.template()
            )
            order, sharding = self._order(0)
            indices = order[: self.config.steps_per_call] if self.config.steps_per_call > 1 else order[0]
            self.train_step.lower(state, self.images, self.labels, place(indices, sharding))
            compiled.result()
        return self.run.initial_state()

    def _compiled_step(self) -> jax.stages.Wrapped:
        run = self.run
        step = make_train_step(
            run.model,
            run.optimizer,
            run.augmentation,
            mse_weight=self.config.loss.mse_weight,
            steps_per_epoch=run.steps_per_epoch,
        )
        if len(run.seeds) > 1:
            step = jax.vmap(step, in_axes=(0, None, None, 0))
        if self.config.steps_per_call > 1:
            step = several_steps(step)
        return jax.jit(step, donate_argnums=0, out_shardings=replicated(run.mesh))

    @property
    def step(self) -> int:
        """Number of steps taken, the same for all seeds."""
        return int(np.ravel(jax.device_get(self.state.step))[0])

    def finished(self) -> bool:
        """Whether all epochs are done or the plateau rule has brought the rates to their end."""
        done = self.step >= self.run.num_steps
        return done or rates_exhausted(self.config.optimizer, jax.device_get(self.state.plateau.scale))

    def epoch(self) -> None:
        """The rest of an epoch: its steps, validation, plateau rule, best variables, metrics, checkpoint."""
        run, started, first = self.run, time.perf_counter(), self.step
        number = first // run.steps_per_epoch
        start, last = number * run.steps_per_epoch, (number + 1) * run.steps_per_epoch
        order, sharding = self._order(number)
        size = self.config.steps_per_call
        images = len(run.seeds) * self.config.batch_size
        bar = Progress(images * (last - first), f"epoch {number + 1}/{self.config.num_epochs}")
        # Where the clock of the speed starts: not before the step is compiled.
        clock, timed_from = started, first
        with contextlib.closing(bar) as progress:
            step = first
            if not self.compiled:
                progress.say("compiling the training step")
                if not progress.shown:
                    _log.info("compiling the training step")
            while step < last:
                # Calls of one size from the epoch's start, so that a resumed run has the same ones.
                end = min(step + size - (step - start) % size, last)
                indices = place(order[step - start : end - start] if size > 1 else order[step - start], sharding)
                self.state = self.train_step(self.state, self.images, self.labels, indices)
                if not self.compiled:
                    self.compiled = True
                    progress.start_clock()
                    if end < last:
                        clock, timed_from = time.perf_counter(), end
                self._after_step(end, end - step, images * (end - first), started, progress)
                step = end
            # The steps are only queued: without waiting, the speed would be that of the queue.
            jax.block_until_ready(self.state)
            speed = images * (last - timed_from) / (time.perf_counter() - clock)
            progress.say("validation")
            validation = self._validate(last)
        self._end_epoch(number + 1, last, started, speed, validation)

    def _order(self, number: int) -> tuple[np.ndarray, NamedSharding]:
        """Indices of the images of an epoch, (steps, batch) or (steps, seeds, batch), and how those of a call are
        split."""
        run = self.run
        orders = [epoch_order(int(s), number, len(run.split.train), self.config.batch_size) for s in run.seeds]
        order = run.split.train[orders[0] if len(orders) == 1 else np.stack(orders, axis=1)]
        return order, split_last_axis(run.mesh, order.ndim - (self.config.steps_per_call == 1))

    def _after_step(self, step: int, taken: int, images: int, started: float, progress: Progress) -> None:
        """What the host does after a call of `taken` steps that ended at `step`, the epoch's `images` being done."""

        def passed(every: int) -> bool:
            return bool(every) and step // every > (step - taken) // every

        every = self.config.log_every_steps
        # Looking at the sums waits for the device.
        if progress.shown and passed(every):
            loss, accuracy = _means(self.state.sums)
            progress.update(images - progress.done, loss.mean(), accuracy.mean())
        if step % self.run.steps_per_epoch == 0:  # saved after its validation
            return
        # Processes must agree on stopping, which costs a message between them.
        asked = jax.process_count() == 1 or passed(every)
        signal_name = self.interruption.requested_anywhere() if asked else None
        if signal_name or passed(self.config.save_every_steps):
            _check_finite(_means(self.state.sums)[0], step)
            self._save(step, self._meta(started))
        if signal_name:
            raise Interrupted(signal_name, step)

    def _validate(self, step: int) -> Evaluation | None:
        """What the validation images give; None where there are none."""
        _check_finite(_means(self.state.sums)[0], step)
        if not len(subset := self.run.split.validation):
            return None
        state = self.state
        validation = self.run.evaluator(state.params, state.batch_stats, self.images, self.labels, subset)
        _check_finite(validation.loss, step)
        return validation

    def _end_epoch(self, epoch: int, step: int, started: float, speed: float, validation: Evaluation | None) -> None:
        train_loss, train_accuracy = _means(self.state.sums)
        values = {"train_loss": train_loss, "train_accuracy": train_accuracy}
        if validation is not None:
            values |= {"validation_loss": validation.loss, "validation_accuracy": validation.accuracy}
        scale = np.asarray(jax.device_get(self.state.plateau.scale))
        rates = learning_rates(self.config.optimizer, self.run.num_steps, step - 1, scale)
        self.unsaved_best |= self._update_state(epoch, train_loss, validation)
        record: dict[str, Any] = {"epoch": epoch, "step": step}
        for name, value in {**values, **rates}.items():
            record[name] = float(np.mean(value))
            if np.ndim(value) and len(self.run.seeds) > 1:
                record[f"{name}_by_seed"] = [float(v) for v in value]
        meta = self._meta(started)
        record |= {"seconds": meta["seconds"], "images_per_second": speed}
        if self.log:
            self.log.append(record)
        if self.tensorboard:
            self.tensorboard.write(step, {k: v for k, v in record.items() if isinstance(v, float)})
        finished = self.finished()
        saved = finished or epoch % self.config.save_every_epochs == 0
        if saved:
            self._save(step, meta)
        self.seconds = meta["seconds"]
        _log.info("%s", _epoch_line(record, self.config.num_epochs))
        if (signal_name := self.interruption.requested_anywhere()) and not finished:
            if not saved:
                self._save(step, meta)
            raise Interrupted(signal_name, step)

    def _save(self, step: int, meta: dict[str, Any]) -> None:
        # Orbax would make the folders anew.
        if self.log and not os.path.exists(config := self.workdir / "config.json"):
            raise FileNotFoundError(errno.ENOENT, f"cannot save step {step}: {config} is no longer there")
        # With the lines so far, from which damaged ones of metrics.jsonl are mended.
        meta = {**meta, "same_bits": self.same_bits, "records": self.log.text if self.log else ""}
        self.checkpoints.save(step, jax.device_get(self.state), meta, best=self.unsaved_best)
        self.unsaved_best, self.saved = False, step

    def _update_state(self, epoch: int, train_loss: np.ndarray, validation: Evaluation | None) -> bool:
        """Best variables, and rates by the plateau rule if that is the schedule, after an epoch; whether any seed
        improved.

        Without validation images the last variables are the best.
        """
        state: TrainState = jax.device_get(self.state)
        plateau, optimizer = state.plateau, self.config.optimizer
        if optimizer.schedule == "plateau":
            watched = train_loss if validation is None or optimizer.plateau.loss == "train" else validation.loss
            plateau = self.next_plateau(plateau, jnp.asarray(watched, jnp.float32))
        accuracy = np.asarray(np.full_like(train_loss, -1) if validation is None else validation.accuracy, np.float32)
        better = np.asarray(accuracy > state.best.accuracy) | (validation is None)

        def choose(new: Any, old: Any) -> np.ndarray:
            return np.where(better.reshape(better.shape + (1,) * (np.ndim(new) - better.ndim)), new, old)

        candidate = Best(state.params, state.batch_stats, accuracy, np.full(better.shape, epoch, np.int32))
        best = jax.tree.map(choose, candidate, state.best)
        sums = jax.tree.map(np.zeros_like, state.sums)
        state = state._replace(plateau=jax.device_get(plateau), best=best, sums=sums)
        self.state = place(state, replicated(self.run.mesh))
        return bool(better.any())

    def _meta(self, started: float) -> dict[str, Any]:
        return {"seconds": self.seconds + time.perf_counter() - started}


def _reason(error: OSError) -> str:
    """What the system says; what the checkpoints say of older ones is said with their place."""
    return str(error.strerror or error).partition("; older ones")[0]


def _check_finite(loss: np.ndarray, step: int) -> None:
    """Stops a run before it saves what it can no longer learn from."""
    if not np.isfinite(loss).all():
        raise FloatingPointError(
            f"the loss is {loss} at step {step}; try smaller learning rates, in another workdir. "
            "The checkpoints saved before are intact"
        )


def _epoch_line(record: dict[str, Any], num_epochs: int) -> str:
    parts = [
        f"{name}: loss {record[f'{name}_loss']:.4f}, accuracy {100 * record[f'{name}_accuracy']:.2f} %"
        for name in ("train", "validation")
        if f"{name}_loss" in record
    ]
    return f"epoch {record['epoch']}/{num_epochs}; {'; '.join(parts)}; {record['images_per_second']:.0f} images/s"


def _means(sums: Sums) -> tuple[np.ndarray, np.ndarray]:
    loss, correct, count = (np.asarray(a, np.float64) for a in jax.device_get(sums))
    return loss / count, correct / count
