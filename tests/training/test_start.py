"""What a run computes before its first step, and between its epochs: each program traced and compiled once."""

from collections import Counter

import jax
import pytest

from configs import quickstart
from deepnmf_jax.training import evaluation, loop
from deepnmf_jax.training.loop import train_and_evaluate
from tests.programs import TWO_BLOCKS, write_images


@pytest.fixture
def traced(monkeypatch):
    """How often each function was traced."""
    counts: Counter[str] = Counter()

    def counting(module, name):
        make = getattr(module, name)

        def made(*arguments, **named):
            function = make(*arguments, **named)

            def counted(*arrays):
                counts[name] += 1
                return function(*arrays)

            return counted

        monkeypatch.setattr(module, name, made)

    counting(loop, "make_train_step")
    counting(evaluation, "make_eval_step")
    return counts


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"num_seeds": 2}, {"steps_per_call": 3}], ids=str)
def test_each_program_is_traced_once(traced, tmp_path, changes):
    """The step before its first call, for validation and for the test images of a shape one program."""
    config = quickstart.get_config()
    config.update_from_flattened_dict({**TWO_BLOCKS, **changes, "dataset": str(write_images(tmp_path / "images.npz"))})
    train_and_evaluate(config, tmp_path / "run")
    # Calls of several steps end with a shorter one.
    steps = 1 + (config.steps_per_call > 1)
    assert traced == {"make_train_step": steps, "make_eval_step": 1}


@pytest.mark.slow
def test_the_first_state_is_that_of_the_seed(tmp_path):
    """Compiled with few optimisations, it has the bits of one compiled with all."""
    config = quickstart.get_config()
    config.update_from_flattened_dict({**TWO_BLOCKS, "dataset": str(write_images(tmp_path / "images.npz"))})
    run = loop.prepare(config)
    options = {"xla_backend_optimization_level": 3}
    carefully = run.creation().compile(compiler_options=options)(run._seeds)
    for ours, expected in zip(jax.tree.leaves(run.initial_state()), jax.tree.leaves(carefully), strict=True):
        assert ours.dtype == expected.dtype and (ours == expected).all()
