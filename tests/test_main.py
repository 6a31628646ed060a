"""main.py as its users meet it: what a run leaves and what each mode prints."""

import json
import os
import re
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from deepnmf_jax import __version__
from deepnmf_jax.data.datasets import load_npz
from deepnmf_jax.training import prediction, reports
from deepnmf_jax.training.environment import git_commit
from deepnmf_jax.training.records import trained_config
from tests.programs import (
    NUM_CLASSES,
    NUM_EPOCHS,
    NUM_STEPS,
    NUM_TEST,
    NUM_TRAIN,
    NUM_VALIDATION,
    ROOT,
    STEPS_PER_EPOCH,
    TWO_BLOCKS,
    Programs,
    metrics,
    results,
    saved_state,
    stop_at,
    tensorboard_scalars,
)


@pytest.fixture(scope="module")
def workdir(programs: Programs) -> Path:
    """A finished run as a user starts it, on images of one's own and without TFDS, which they do not need."""
    without = programs.folder / "without"
    without.mkdir()
    (without / "tensorflow_datasets.py").write_text("raise ImportError('TFDS is not installed')\n")
    paths = os.pathsep.join(filter(None, [str(without), os.environ.get("PYTHONPATH")]))
    folder = programs.folder / "whole"
    ended = programs.run_from_scratch(f"--workdir={folder}", TFDS_DATA_DIR="", PYTHONPATH=paths)
    assert ended.status == 0, ended
    assert "Traceback" not in ended.stderr and "Warning" not in ended.stderr
    return folder


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.slow
class TestWholeRun:
    def test_metrics(self, workdir: Path) -> None:
        lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        assert [line["epoch"] for line in lines] == [1, 2, 3]
        assert [line["step"] for line in lines] == [8, 16, 24]
        rates = {"learning_rate_nmf", "learning_rate_mixing", "learning_rate_batch_norm"}
        losses = {"train_loss", "validation_loss", "train_accuracy", "validation_accuracy"}
        for line in lines:
            assert set(line) == {"epoch", "step", "seconds", "images_per_second"} | rates | losses
            assert line["images_per_second"] > 0
            for part, count in (("train", NUM_TRAIN), ("validation", NUM_VALIDATION)):
                right = line[f"{part}_accuracy"] * count
                assert 0 <= right <= count and right == pytest.approx(round(right))
        assert lines[-1]["train_loss"] < 0.8 * lines[0]["train_loss"]
        assert 0 < lines[0]["seconds"] < lines[1]["seconds"] < lines[2]["seconds"]
        # The plateau rule asks for half the loss each epoch; it acts after an epoch and shows in the next.
        assert [line["learning_rate_nmf"] for line in lines] == pytest.approx([0.1, 0.1, 0.05])

    def test_results(self, workdir: Path, programs: Programs) -> None:
        found = read_json(workdir / "results.json")
        lines = metrics(workdir)
        best = max(lines, key=lambda line: line["validation_accuracy"])
        assert found["best_epoch"] == best["epoch"]
        assert found["best_epoch"] < NUM_EPOCHS, "the test would not tell the best from the last"
        assert found["validation_accuracy"] == pytest.approx(best["validation_accuracy"])
        for name in ("test_accuracy", "test_accuracy_last"):
            right = found[name] * NUM_TEST
            assert 0.5 * NUM_TEST < right <= NUM_TEST and right == pytest.approx(round(right))
        assert (found["epochs"], found["steps"], found["seed"]) == (NUM_EPOCHS, NUM_STEPS, 6)
        last = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])
        assert found["seconds"] >= last["seconds"]
        assert found["images_per_second"] > 0
        assert found["versions"]["deepnmf_jax"] == __version__
        assert set(found["versions"]) >= {"python", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"}
        assert found["commit"] == git_commit(ROOT / "deepnmf_jax")
        assert found["device_backend"] == "cpu" and found["device"] and found["device_count"] >= 1
        assert found["dataset"] == {
            "name": str(programs.images),
            "fingerprint": load_npz(programs.images).fingerprint,
            "train_images": NUM_TRAIN,
            "validation_images": NUM_VALIDATION,
            "test_images": NUM_TEST,
            "image_shape": [10, 10, 1],
        }

    def test_parameter_count(self, workdir: Path) -> None:
        saved = saved_state(workdir)
        counts = [leaf.size for name, leaf in saved.items() if name.startswith("['params']")]
        assert read_json(workdir / "results.json")["parameters"] == sum(counts) > 0

    def test_config(self, workdir: Path, programs: Programs) -> None:
        config = read_json(workdir / "config.json")
        assert read_json(workdir / "results.json")["config"] == {
            k: v for k, v in config.items() if k != "data_fingerprint"
        }
        for name, value in TWO_BLOCKS.items():
            found = config
            for part in name.split("."):
                found = found[part]
            assert found == (list(value) if isinstance(value, tuple) else value)
        assert config["dataset"] == str(programs.images)

    def test_it_predicts_where_its_data_set_is_not(
        self, workdir: Path, programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from PIL import Image

        moved = shutil.copytree(workdir, tmp_path / "moved")
        with monkeypatch.context() as patch:
            patch.setattr(prediction, "prepare", lambda config: pytest.fail("it reads the data set"))
            found = prediction.load_trained(str(moved))
        # As of an older release, whose workdirs do not describe their images.
        (moved / "images.json").unlink()
        with_data = prediction.load_trained(str(moved))
        assert found[2:] == with_data[2:] and found.class_names == ("0", "1", "2")
        assert found.model == with_data.model
        assert jax.tree.all(jax.tree.map(np.array_equal, found.variables, with_data.variables))
        # Files of the test images, larger than what the network sees, are told as in the run's own test.
        with np.load(programs.images) as arrays:
            images, labels = arrays["x_test"], arrays["y_test"]
        assert images.shape[1:] == (12, 12, 1) and found.image_shape == (10, 10, 1)
        for number, image in enumerate(images):
            Image.fromarray(image[..., 0]).save(tmp_path / f"{number}.png")
        read = [prediction.read_image(tmp_path / f"{number}.png", found) for number in range(len(images))]
        told = [int(rows[0][0]) for rows in prediction.predict(found, np.concatenate(read))]
        assert np.mean(told == labels) == pytest.approx(read_json(workdir / "results.json")["test_accuracy"])
        (moved / "images.json").write_text('{"shape": [10, 10]}')
        with pytest.raises(OSError, match=r"images.json is damaged .*; delete it, and the run's data set is asked"):
            prediction.load_trained(str(moved))

    def test_pictures(self, workdir: Path) -> None:
        from PIL import Image

        assert {path.name for path in (workdir / "pictures").iterdir()} == {
            "learning_curves.png",
            "confusion_matrix.png",
            "parts.png",
        }
        for path in (workdir / "pictures").iterdir():
            with Image.open(path) as picture:
                assert picture.format == "PNG" and min(picture.size) > 50
                assert len(np.unique(np.asarray(picture.convert("L")))) > 10, f"{path} is nearly blank"

    def test_tensorboard_shows_the_metrics(self, workdir: Path) -> None:
        lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        shown = tensorboard_scalars(workdir)
        assert set(shown) == set(lines[0]) - {"epoch", "step"}
        for tag, points in shown.items():
            assert points == {line["step"]: float(np.float32(line[tag])) for line in lines}

    def test_the_same_again(self, workdir: Path, programs: Programs) -> None:
        """The same seed gives the same bits, with programs compiled anew or read from the cache."""
        again = programs.folder / "again"
        programs.run(f"--workdir={again}")
        assert metrics(again) == metrics(workdir)
        assert results(again) == results(workdir)
        first, second = saved_state(workdir), saved_state(again)
        assert first.keys() == second.keys()
        for name in first:
            assert first[name].tobytes() == second[name].tobytes(), name

    def test_starting_a_finished_run_again(self, workdir: Path, programs: Programs) -> None:
        before, state = (workdir / "metrics.jsonl").read_bytes(), saved_state(workdir)
        old = results(workdir)
        ended = programs.run(f"--workdir={workdir}")
        assert "images/s" not in ended.stderr
        assert (workdir / "metrics.jsonl").read_bytes() == before
        assert results(workdir) == old
        after = saved_state(workdir)
        assert all((after[name] == leaf).all() for name, leaf in state.items())

    def test_another_config_is_refused(self, workdir: Path, programs: Programs) -> None:
        before = (workdir / "config.json").read_bytes()
        ended = programs.run(f"--workdir={workdir}", "--config.seed=7", "--config.model.epsilon=0.5", status=1)
        assert "started with another config" in ended.stderr and "Traceback" not in ended.stderr
        assert re.search(r"seed: 6 in the workdir, 7 now", ended.stderr)
        assert re.search(r"model.epsilon: 1.0 in the workdir, 0.5 now", ended.stderr)
        assert ended.stderr.count(" in the workdir, ") == 2
        assert (workdir / "config.json").read_bytes() == before


@pytest.mark.slow
class TestEvaluate:
    def test_of_the_best_and_of_the_last(self, workdir: Path, programs: Programs) -> None:
        def contents() -> dict[Path, tuple[int, bytes]]:
            files = [path for path in workdir.rglob("*") if path.is_file()]
            return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

        before = contents()
        found = read_json(workdir / "results.json")
        best = programs.evaluate(workdir)
        assert best["test_accuracy"] == found["test_accuracy"]
        assert best["test_loss"] == found["test_loss"]
        assert best["step"] == STEPS_PER_EPOCH * found["best_epoch"]
        assert best["num_images"] == NUM_TEST
        last = programs.evaluate(workdir / "checkpoints" / "latest" / str(NUM_STEPS))
        assert last["test_accuracy"] == found["test_accuracy_last"]
        assert last["test_loss"] != best["test_loss"]
        assert last["step"] == NUM_STEPS
        assert contents() == before

    def test_of_a_run_without_a_finished_epoch(self, workdir: Path, programs: Programs, tmp_path: Path) -> None:
        """There is no best epoch yet: what it has learned so far counts, not the initial weights."""
        change = partial(stop_at, "loop:Training._after_step", 5, signal.SIGTERM)
        programs.run(f"--workdir={tmp_path / 'run'}", status=143, change=change)
        latest = programs.evaluate(tmp_path / "run" / "checkpoints" / "latest" / "5")
        ended = programs.run("--mode=evaluate", "--checkpoint=~/run", HOME=str(tmp_path))
        assert json.loads(ended.stdout)["test_loss"] == latest["test_loss"]

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (["--config.model.width=0.5"], r"\S+: float32\[8\] in the checkpoint, float32\[16\] expected"),
            (["--config.model.layer=conv"], r"block1/(conv|nmf)/\S+:? .*(missing|not in|absent|only)"),
        ],
    )
    def test_another_network_than_that_of_a_step_alone(
        self, workdir: Path, programs: Programs, tmp_path: Path, flags: list[str], message: str
    ) -> None:
        step = shutil.copytree(workdir / "checkpoints" / "latest" / str(NUM_STEPS), tmp_path / "step")
        ended = programs.run("--mode=evaluate", f"--checkpoint={step}", *flags, status=1)
        assert re.search(message, ended.stderr) and "Traceback" not in ended.stderr

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"model.width": 0.5}, r"model.width = 0.5, then 0.25"),
            ({"model.pooling": "max"}, r"model.pooling = 'max', then 'average'"),
            ({"model.logit_scale": 10.0}, r"model.logit_scale = 10.0, then 1.0"),
            ({"augmentation.crop": 9}, r"images of \(9, 9, 1\), not \(10, 10, 1\)"),
            ({"num_seeds": 2}, r"has 1 seeds, not 2"),
        ],
        ids=str,
    )
    def test_another_network(self, workdir: Path, changes: dict[str, Any], message: str) -> None:
        """Of other shapes or of the same: what it answers would be no measure of the run."""
        config = trained_config(workdir)
        config.update_from_flattened_dict(changes)
        for checkpoint in (workdir, workdir / "checkpoints" / "latest" / str(NUM_STEPS)):
            with pytest.raises(ValueError, match=message):
                reports.evaluate(config, str(checkpoint))

    def test_what_may_differ(self, workdir: Path) -> None:
        """Statistics, how codes are found, and what training alone looks at."""
        config = trained_config(workdir)
        before = reports.evaluate(config, str(workdir))
        config.model.init_exponent = 2.0
        assert reports.evaluate(config, str(workdir)) == before
        config.model.batch_statistics, config.model.num_iters = "batch", 3
        assert reports.evaluate(config, str(workdir))["test_loss"] != before["test_loss"]

    def test_all_checkpoints_damaged(self, workdir: Path, programs: Programs, tmp_path: Path) -> None:
        shutil.copytree(workdir, tmp_path / "run")
        for path in (tmp_path / "run" / "checkpoints").glob("*/*/state/d/*"):
            path.write_bytes(path.read_bytes()[:-10])
        for flags in (["--mode=evaluate", f"--checkpoint={tmp_path / 'run'}"], [f"--workdir={tmp_path / 'run'}"]):
            ended = programs.run(*flags, status=1)
            assert "all checkpoints in" in ended.stderr and "damaged" in ended.stderr
            assert "Traceback" not in ended.stderr


class TestTune:
    @pytest.mark.slow
    def test_a_run_is_tuned_and_tested_with_what_was_found(self, workdir: Path, programs: Programs) -> None:
        """That may be the plain iterations: what is faster is the machine's to say."""
        found = json.loads(programs.run("--mode=tune", f"--checkpoint={workdir}", "--tolerance=0.1").stdout)
        assert found["changed"] <= 0.1 and found["images"] > 0 and found["speed"] > 0
        assert len(found["block_settings"]) == 2
        assert programs.evaluate(workdir, found["flag"])["num_images"] == NUM_TEST


class TestSummary:
    def test_table_of_the_paper(self, programs: Programs, tmp_path: Path) -> None:
        """The network is described without its data."""
        folder = f"--config.data_dir={tmp_path / 'nothing'}"
        ended = programs.run("--mode=summary", folder, config="configs/cnmf_1x1.py", TFDS_DATA_DIR="")
        lines = ended.stdout.splitlines()
        assert re.search(r"^block1/nmf .*24 x 24 x 32 .* 2,400 ", ended.stdout, re.MULTILINE)
        assert re.search(r"^block4/mix .* 110 ", ended.stdout, re.MULTILINE)
        assert lines[-1].split()[:2] == ["total", "167,886"]

    def test_of_a_config_in_the_home_folder(self, programs: Programs, tmp_path: Path) -> None:
        shutil.copy(ROOT / "configs" / "quickstart.py", tmp_path / "mine.py")
        ended = programs.run("--mode=summary", config="~/mine.py", HOME=str(tmp_path))
        assert re.search(r"^block1/nmf .*20 x 20 x 32 ", ended.stdout, re.MULTILINE)

    def test_of_settings_block_by_block(self, programs: Programs) -> None:
        flag = "--config.model.block_settings=({'num_iters': 7, 'acceleration': 'multistep'}, {}, {}, {})"
        ended = programs.run("--mode=summary", flag, config="configs/cnmf_1x1.py")
        assert re.search(rf"^block1/nmf .* {4 * 576 * 2400 * 7:,}$", ended.stdout, re.MULTILINE)
        assert re.search(rf"^block2/nmf .* {4 * 64 * 51200 * 20:,}$", ended.stdout, re.MULTILINE)

    def test_of_ones_own_images(self, programs: Programs) -> None:
        ended = programs.run("--mode=summary", "--config.model.layer=conv", "--config.model.mixing=False")
        assert re.search(rf"^block2/conv .*1 x 1 x {NUM_CLASSES} ", ended.stdout, re.MULTILINE)
        assert "mix" not in ended.stdout
