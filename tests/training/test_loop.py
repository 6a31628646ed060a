"""The loop compiles its programs in the first epoch, and nothing after it; the rates are those of the schedule."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from configs import quickstart
from deepnmf_jax.training import loop
from deepnmf_jax.training.interruption import Interrupted, Interruption
from deepnmf_jax.training.optimizers import learning_rates
from tests.programs import NUM_STEPS, STEPS_PER_EPOCH, TWO_BLOCKS, metrics, write_images

COMPILED: list[str] = []


def _listen(event: str, duration: float, **_: Any) -> None:
    if event.endswith("/backend_compile_duration"):
        COMPILED.append(event)


jax.monitoring.register_event_duration_secs_listener(_listen)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"num_seeds": 2, "steps_per_call": 3}], ids=["one", "several"])
def test_nothing_is_compiled_after_the_first_epoch(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through steps, validation, saves, the fall of the rates and the end that they bring; and after a resume."""
    config = quickstart.get_config()
    settings = TWO_BLOCKS | {"model.layer": "conv", "model.mixing": False} | changes
    settings |= {"num_epochs": 7, "optimizer.plateau.smallest_rate": 0.01}
    config.update_from_flattened_dict({"dataset": str(write_images(tmp_path / "images.npz")), **settings})
    counts: list[int] = []
    epoch = loop.Training.epoch

    def counted(training: loop.Training) -> None:
        epoch(training)
        counts.append(len(COMPILED))

    def in_the_third(interruption: Interruption) -> str | None:
        return "SIGTERM" if len(counts) == 2 else None

    monkeypatch.setattr(loop.Training, "epoch", counted)
    before = len(COMPILED)
    with monkeypatch.context() as patch, pytest.raises(Interrupted) as stopped:
        patch.setattr(Interruption, "requested_anywhere", in_the_third)
        loop.train_and_evaluate(config, tmp_path / "run")
    assert 2 * STEPS_PER_EPOCH < stopped.value.step < NUM_STEPS
    assert before < counts[0] == counts[1], "the second epoch has compiled something"
    counts.clear()
    results = loop.train_and_evaluate(config, tmp_path / "run")
    assert 3 < results["epochs"] < 7, "the rates were to end the training"
    assert len(counts) == results["epochs"] - 2 and len(set(counts)) == 1, counts


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["constant", "one_cycle"])
def test_the_plateau_rule_is_of_its_own_schedule(schedule: str, tmp_path: Path) -> None:
    """Whose patience here would end with the first epoch, as no loss falls by nine tenths."""
    config = quickstart.get_config()
    settings = TWO_BLOCKS | {"model.layer": "conv", "model.mixing": False, "num_epochs": 3}
    settings |= {"optimizer.schedule": schedule, "optimizer.plateau.patience": 0, "optimizer.plateau.threshold": 0.9}
    config.update_from_flattened_dict({"dataset": str(write_images(tmp_path / "images.npz")), **settings})
    loop.train_and_evaluate(config, tmp_path / "run")
    for record in metrics(tmp_path / "run"):
        expected = learning_rates(config.optimizer, 3 * STEPS_PER_EPOCH, record["step"] - 1, np.float32(1))
        for name, rate in expected.items():
            assert record[name] == pytest.approx(float(rate), rel=1e-6)
