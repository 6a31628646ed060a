"""What a run leaves for its reader: results.json and pictures."""

import importlib.util
import logging
from dataclasses import fields
from pathlib import Path
from typing import Any

import jax
import numpy as np

from deepnmf_jax.core.normalization import normalize_weights
from deepnmf_jax.layers.fields import InferenceFields
from deepnmf_jax.models import Network, load_pretrained, pretrained_names
from deepnmf_jax.programs import home
from deepnmf_jax.training import checkpoints
from deepnmf_jax.training.devices import place, replicated
from deepnmf_jax.training.environment import environment, installed
from deepnmf_jax.training.evaluation import Evaluation
from deepnmf_jax.training.records import trained_config, write_results
from deepnmf_jax.training.setup import Run, cropped_shape, prepare, without_data
from deepnmf_jax.training.state import TrainState, count_parameters

# Fields of a network that say how the codes of the same weights are found: a trained one may be tested with others.
_CODING = {f.name for f in fields(InferenceFields)} | {"block_settings", "input_spikes", "batch_statistics"}
# Those that training alone looks at.
_OF_TRAINING = {"local_learning", "init_exponent", "batch_norm_momentum"}
# What --checkpoint starts with for a network of the package.
PRETRAINED = "pretrained:"

_log = logging.getLogger(__name__)


def report(run: Run, workdir: Path, state: TrainState, records: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Tests the best variables (and, for comparison, the last), writes results.json and the pictures, returns the
    results.

    Training itself never looks at the test set: only this function, after the last epoch, and `evaluate` do.
    """
    best = _test(run, state.best.params, state.best.batch_stats)
    last = _test(run, state.params, state.batch_stats)
    step = int(np.ravel(jax.device_get(state.step))[0])
    results: dict[str, Any] = {
        "test_accuracy": _by_seed(best.accuracy),
        "test_loss": _by_seed(best.loss),
        "test_accuracy_last": _by_seed(last.accuracy),
        "best_epoch": _by_seed(jax.device_get(state.best.epoch)),
        "epochs": step // run.steps_per_epoch,
        "steps": step,
        "parameters": count_parameters(run.template().params) // len(run.seeds),
        "seconds": seconds,
        "images_per_second": float(np.median([r["images_per_second"] for r in records])) if records else None,
        "seed": [int(s) for s in run.seeds] if len(run.seeds) > 1 else int(run.seeds[0]),
        "config": run.config.to_dict(),
        "dataset": _dataset(run),
        **environment(),
    }
    if len(run.split.validation):
        results["validation_accuracy"] = _by_seed(jax.device_get(state.best.accuracy))
    if len(run.seeds) > 1:
        results["test_accuracy_mean"] = float(best.accuracy.mean())
        results["test_accuracy_deviation"] = float(best.accuracy.std(ddof=1))
    if jax.process_index() == 0:
        write_results(workdir, results)
        accuracy = ", ".join(f"{100 * a:.2f} %" for a in np.ravel(best.accuracy))
        told = f"test accuracy {accuracy}; results in {workdir / 'results.json'}"
        if installed("matplotlib", "pictures"):
            _draw(run, workdir / "pictures", state, records, best)
            told += f", pictures in {workdir / 'pictures'}"
        _log.info("%s", told)
        if (workdir / "tensorboard").is_dir():
            # It shows the files, but is no part of what training needs.
            there = importlib.util.find_spec("tensorboard") is not None
            install = "" if there else "pip install tensorboard, then "
            _log.info("curves: %stensorboard --logdir=%s", install, workdir / "tensorboard")
    return results


def evaluate(config: Any, checkpoint: str) -> dict[str, Any]:
    """Test loss and accuracy of a checkpoint: a workdir (its best variables), the folder of one step, or
    "pretrained:NAME", a network of the package (`deepnmf_jax.load_pretrained`).

    The log says which variables of which folder are tested, and which damaged checkpoints were skipped for it.

    Raises:
        FileNotFoundError: no checkpoint there.
        OSError: all checkpoints there are damaged.
        ValueError: it was trained with a config of another network, or the name is unknown. How the network finds its
            codes (iterations, acceleration, spikes) and which statistics it takes may differ from the training. Of the
            folder of a step that lies alone, without its run's config.json, only the shapes are compared.
    """
    # Before the data are read: they may take long, or not be there.
    check_name(checkpoint)
    run = prepare(config)
    with jax.default_matmul_precision(run.config.matmul_precision):
        variables, step = variables_of(run, checkpoint)
        result = _test(run, *variables)
    return {
        "checkpoint": str(checkpoint),
        "step": step,
        "test_accuracy": _by_seed(result.accuracy),
        "test_loss": _by_seed(result.loss),
        "num_images": len(run.dataset.test_labels),
    }


def check_name(checkpoint: str) -> None:
    """ValueError for "pretrained:NAME" of a network that the package does not have."""
    name = checkpoint.removeprefix(PRETRAINED)
    if name != checkpoint and name not in pretrained_names():
        raise ValueError(f"there is no pretrained network {name!r}; there are {', '.join(pretrained_names())}")


def variables_of(run: Run, checkpoint: str) -> tuple[tuple[Any, Any], int]:
    """Parameters and batch statistics that `evaluate` would test, on the run's devices, and the step they are of.

    Raises:
        FileNotFoundError, OSError, ValueError: as `evaluate`.
    """
    name = checkpoint.removeprefix(PRETRAINED)
    return _of_the_package(name, run) if name != checkpoint else _of_a_run(home(checkpoint), run)


def _of_a_run(checkpoint: Path, run: Run) -> tuple[tuple[Any, Any], int]:
    restored = checkpoints.restore_path(checkpoint, _template(checkpoint, run))
    state: TrainState = place(restored.state, replicated(run.mesh))
    # A step of checkpoints/latest stands for itself; a workdir, or a step of checkpoints/best, for its best.
    itself = restored.folder == checkpoint.absolute() and restored.folder.parent.name == "latest"
    epoch = jax.device_get(state.best.epoch)
    if itself or not np.all(epoch > 0):
        _log.info("testing the variables of step %d, from %s", restored.step, restored.folder)
        return (state.params, state.batch_stats), restored.step
    _log.info("testing the best variables, of epoch %s, from %s", _by_seed(epoch), restored.folder)
    return (state.best.params, state.best.batch_stats), restored.step


def _template(checkpoint: Path, run: Run) -> TrainState:
    """Of the state that was saved there, which the run's network must fit."""
    workdir = next(
        (f for f in (checkpoint, *checkpoint.absolute().parents[2:3]) if (f / "config.json").is_file()), None
    )
    if workdir is None:  # a step's folder alone
        return run.template()
    config = trained_config(workdir)
    trained, template = without_data(config, run.image_shape, run.dataset.num_classes)
    seen = cropped_shape(config.augmentation.crop, run.dataset.train_images.shape[1:])
    _check_same(trained, seen, run, f"of {workdir}", "the flags of its training")
    if config.num_seeds != len(run.seeds):
        raise ValueError(f"{workdir} has {config.num_seeds} seeds, not {len(run.seeds)}; set num_seeds")
    return template


def _of_the_package(name: str, run: Run) -> tuple[tuple[Any, Any], int]:
    found = load_pretrained(name)
    config_file = f"--config={found.results.get('config_file', 'see its results.json')}"
    _check_same(found.model, found.image_shape, run, repr(name), config_file)
    variables = (found.variables["params"], found.variables.get("batch_stats", {}))
    return place(variables, replicated(run.mesh)), found.results["steps"]


def _check_same(trained: Network, image_shape: tuple[int, ...], run: Run, name: str, advice: str) -> None:
    """ValueError if the run's network is another than the trained one of that name."""
    given = run.model
    other = {f.name for f in fields(trained) if f.init and getattr(trained, f.name) != getattr(given, f.name)}
    if (wrong := other - _CODING - _OF_TRAINING) or image_shape != run.image_shape:
        differs = ", ".join(f"model.{n} = {getattr(given, n)!r}, then {getattr(trained, n)!r}" for n in sorted(wrong))
        differs = differs or f"images of {run.image_shape}, not {image_shape}"
        raise ValueError(f"the config does not describe the network {name} ({differs}); give {advice}")
    if trained.batch_statistics == "batch" != given.batch_statistics:
        raise ValueError(f"the network {name} has no running statistics; set model.batch_statistics = 'batch'")
    if other & _CODING:
        changes = ", ".join(f"{n} = {getattr(given, n)} (then {getattr(trained, n)})" for n in sorted(other & _CODING))
        _log.info("testing the network %s otherwise than it was trained: %s", name, changes)


def _test(run: Run, params: Any, batch_stats: Any) -> Evaluation:
    images, labels = place((run.dataset.test_images, run.dataset.test_labels), replicated(run.mesh))
    return run.evaluator(params, batch_stats, images, labels, np.arange(len(run.dataset.test_labels), dtype=np.int32))


def _by_seed(values: Any) -> float | list[float]:
    """A plain number for one seed, a list for several."""
    return np.asarray(values).tolist()


def _dataset(run: Run) -> dict[str, Any]:
    return {
        "name": run.dataset.name,
        "fingerprint": run.dataset.fingerprint,
        "train_images": len(run.split.train),
        "validation_images": len(run.split.validation),
        "test_images": len(run.dataset.test_labels),
        "image_shape": list(run.image_shape),
    }


def _draw(run: Run, folder: Path, state: TrainState, records: list[dict[str, Any]], test: Evaluation) -> None:
    from deepnmf_jax.training import pictures

    params = jax.device_get(state.best.params["block1"])
    several = len(run.seeds) > 1
    raw = params["nmf"]["u"] if run.model.layer == "nmf" else np.swapaxes(params["conv"]["kernel"], -1, -2)
    first = np.asarray(raw)[0] if several else np.asarray(raw)
    predictions = test.predictions[0] if several else test.predictions
    pictures.learning_curves(records, folder / "learning_curves.png")
    pictures.confusion_matrix(
        run.dataset.test_labels, predictions, run.dataset.class_names, folder / "confusion_matrix.png"
    )
    if run.model.layer == "nmf":
        first = np.asarray(normalize_weights(first))
    # A row of weights holds one group's channels of a kernel that may have been cut to the map.
    height, width = (min(run.model.kernels[0] or side, side) for side in run.image_shape[:2])
    rows = first.reshape(-1, first.shape[-1])
    patch_shape = (height, width, rows.shape[1] // (height * width))
    pictures.first_layer_parts(rows, patch_shape, folder / "parts.png")
