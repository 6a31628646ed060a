"""How main.py answers mistakes: a message with what was given and what is allowed, before anything is written."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.programs import (
    Finished,
    Programs,
    write_images,
)

WRONG_FLAGS = {
    "misspelt setting": (["--config.num_itters=5"], r"num_itters"),
    "misspelt nested setting": (["--config.model.num_itters=5"], r"num_itters.*num_iters"),
    "wrong type": (["--config.model.num_iters=many"], r"config.model.num_iters=many.*int"),
    "a whole group": (["--config.loss={'mse_weight': 0.1}"], r"loss is a group of.* --config.loss.mse_weight=\.\.\."),
    "a group in one": (["--config.optimizer.one_cycle={'warmup_share': 0.5}"], r"one_cycle.warmup_share=\.\.\."),
    "not whole": (["--config.model.num_iters=2.5"], r"config.model.num_iters=2.5.*int"),
    "mode": (["--mode=fly"], r"mode=fly.*train\|evaluate\|tune\|summary"),
    "flag": (["--fly"], r"fly"),
    "argument": (["fly"], r"unknown arguments: fly"),
    "data set": (["--config.dataset=cifar11"], r"unknown data set 'cifar11'.*cifar10.*mnist5k.*npz"),
    "no file": (["--config.dataset=/nowhere/images.npz"], r"no file /nowhere/images.npz"),
    "batch": (["--config.batch_size=65"], r"batch_size = 65.* 64 training images"),
    "batch of nothing": (["--config.batch_size=0"], r"batch_size = 0.*at least 1"),
    "evaluation batch": (["--config.eval_batch_size=0"], r"eval_batch_size = 0.*at least 1"),
    "all held out": (["--config.num_validation=80"], r"num_validation=80"),
    "epochs": (["--config.num_epochs=0"], r"num_epochs = 0.*at least 1"),
    "negative seed": (["--config.seed=-1"], r"seed = -1.*at least 0"),
    "huge seed": (["--config.seed=5000000000"], r"seed.*5000000000.*(less|below|most|between|smaller)"),
    "no seeds": (["--config.num_seeds=0"], r"num_seeds = 0.*at least 1"),
    "groups": (["--config.model.groups=(1,3)"], r"3 groups do not divide block 2, which has 8 input and 3 output"),
    "number of groups": (["--config.model.groups=(1,1,1)"], r"groups = .*1, 1, 1.*2 blocks"),
    "iterations": (["--config.model.num_iters=0"], r"num_iters = 0.*at least 1"),
    "epsilon": (["--config.model.epsilon=1.5"], r"epsilon = 1.5.*(0, 1\]|\(0, 1)"),
    "gradient": (["--config.model.gradient=steepest"], r"gradient = 'steepest'.*approximate.*unrolled.*implicit"),
    "layer": (["--config.model.layer=dense"], r"layer = 'dense'.*nmf.*conv"),
    "pooling": (["--config.model.pooling=mean"], r"pooling = 'mean'.*average"),
    "setting that is gone": (["--config.command_buffers=loops"], r"command_buffers"),
    "statistics": (["--config.model.batch_statistics=all"], r"batch_statistics = 'all'.*running.*batch"),
    "local learning": (["--config.model.local_learning=hebb"], r"local_learning = 'hebb'.*kl.*mse"),
    "crop": (["--config.augmentation.crop=13"], r"crop.*13.*12 ?x ?12"),
    "negative crop": (["--config.augmentation.crop=-1"], r"crop.*-1"),
    "brightness": (["--config.augmentation.brightness=-0.1"], r"brightness.*-0.1"),
    "per": (["--config.augmentation.per=pixel"], r"per = 'pixel'.*'image', 'batch'"),
    "schedule": (["--config.optimizer.schedule=cosine"], r"schedule = 'cosine'.*constant.*plateau.*one_cycle"),
    "rate": (["--config.optimizer.learning_rate.nmf=0.0"], r"learning_rate.nmf = 0.0.*above 0"),
    "watched loss": (["--config.optimizer.plateau.loss=test"], r"plateau.loss = 'test'.*'validation', 'train'"),
    "nothing to watch": (["--config.num_validation=0"], r"num_validation = 0.*plateau.loss = 'train'"),
}


def assert_refused(ended: Finished, message: str, workdir: Path) -> None:
    printed = ended.stdout + ended.stderr
    assert re.search(message, printed, re.DOTALL), printed
    assert "Traceback" not in printed, printed
    assert not workdir.exists()


class TestMistakes:
    """Each ends with status 1 and a message that says what was given and what is allowed; nothing is written."""

    @pytest.mark.parametrize("case", WRONG_FLAGS)
    def test_wrong_flag(self, programs: Programs, tmp_path: Path, case: str) -> None:
        flags, message = WRONG_FLAGS[case]
        ended = programs.run(f"--workdir={tmp_path / 'run'}", *flags, status=1)
        assert_refused(ended, message, tmp_path / "run")

    def test_started_by_hand(self, programs: Programs, tmp_path: Path) -> None:
        ended = programs.run_from_scratch(f"--workdir={tmp_path / 'run'}", "--config.model.epsilon=1.5")
        assert ended.status == 1
        assert ended.stderr.splitlines()[-1].startswith("ValueError: epsilon = 1.5")
        assert_refused(ended, "epsilon = 1.5", tmp_path / "run")

    @pytest.mark.parametrize(
        ("mode", "missing"), [("train", "--workdir"), ("evaluate", "--checkpoint"), ("tune", "--checkpoint")]
    )
    def test_missing_flag(self, programs: Programs, tmp_path: Path, mode: str, missing: str) -> None:
        ended = programs.run(f"--mode={mode}", status=1)
        assert_refused(ended, f"--mode={mode} needs {missing}", tmp_path / "run")

    def test_no_such_config(self, programs: Programs, tmp_path: Path) -> None:
        ended = programs.run(f"--workdir={tmp_path / 'run'}", config="configs/nothing.py", status=1)
        assert_refused(ended, "configs/nothing.py", tmp_path / "run")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"y_train": np.arange(80) % 3 - 1}, r"y_train.*integers 0 .. K-1, got -1"),
            ({"y_test": np.arange(22) % 4}, r"y_test.*labels 0 .. 2 for 3 classes, got 3"),
            ({"x_train": np.full((80, 12, 12, 1), 1.5)}, r"x_train.*\[0, 1\].*1.5"),
            ({"x_test": np.zeros((22, 12, 12, 3), np.uint8)}, r"differ in size.*\(12, 12, 1\) and \(12, 12, 3\)"),
            ({"x_train": np.zeros((80, 12), np.uint8)}, r"x_train.*\(N, H, W\).*\(80, 12\)"),
        ],
        ids=["negative label", "unknown label", "range", "sizes", "rank"],
    )
    def test_wrong_images(self, programs: Programs, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
        images = write_images(tmp_path / "images.npz", **changes)
        ended = programs.run(f"--workdir={tmp_path / 'run'}", f"--config.dataset={images}", status=1)
        assert_refused(ended, message, tmp_path / "run")

    def test_no_data_set(self, programs: Programs, tmp_path: Path) -> None:
        flags = ["--config.dataset=cifar10", f"--config.data_dir={tmp_path}"]
        ended = programs.run(f"--workdir={tmp_path / 'run'}", *flags, status=1)
        assert_refused(ended, r"cifar10 is not there: .*make data DATASET=cifar10.*TFDS_DATA_DIR", tmp_path / "run")

    def test_no_checkpoint(self, programs: Programs, tmp_path: Path) -> None:
        for checkpoint, message in ((tmp_path / "run", "does not exist"), (tmp_path, "holds no checkpoint")):
            ended = programs.run("--mode=evaluate", f"--checkpoint={checkpoint}", status=1)
            assert_refused(ended, f"{checkpoint} {message}; give a run's workdir", tmp_path / "run")

    def test_workdir_through_a_file(self, programs: Programs, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for workdir in (tmp_path / "file", tmp_path / "file" / "run"):
            ended = programs.run(f"--workdir={workdir}", status=1)
            assert_refused(ended, f"cannot write to the workdir {workdir}", tmp_path / "run")
        assert (tmp_path / "file").read_bytes() == b""


class TestDisk:
    @pytest.fixture
    def disk(self, tmp_path: Path) -> Any:
        """A file system of its own, because root may write to read-only folders."""
        folder = tmp_path / "disk"
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(folder)]
        if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("mounting a small disk is not permitted here")
        yield folder
        subprocess.run(["umount", "--lazy", str(folder)], check=True)

    @pytest.mark.slow
    def test_full(self, programs: Programs, disk: Path) -> None:
        """The run starts, and finds no room for a checkpoint."""
        ended = programs.run(f"--workdir={disk / 'run'}", status=1)
        message = (
            r"OSError: cannot write .*: No space left on device; there is no checkpoint yet: when that is mended, .*"
        )
        assert re.fullmatch(message, ended.stderr.splitlines()[-1]) and "Traceback" not in ended.stderr, ended.stderr

    def test_read_only(self, programs: Programs, disk: Path) -> None:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        ended = programs.run(f"--workdir={disk / 'run'}", status=1)
        assert_refused(ended, f"cannot write to the workdir {disk / 'run'}: Read-only file system", disk / "run")
