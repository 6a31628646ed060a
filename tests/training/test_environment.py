"""What a result says about where it comes from, and what a run says of a package that it does without."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import deepnmf_jax
from deepnmf_jax.training import environment as training_environment
from deepnmf_jax.training.environment import changes, environment, git_commit, installed, same_bits
from tests.programs import Programs


def test_a_package_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with caplog.at_level(logging.INFO, "deepnmf_jax"):
        assert not installed("tensorboardX", "TensorBoard files")
        assert installed("numpy", "numbers")
    (message,) = caplog.messages
    assert message.startswith("no TensorBoard files: ") and "tensorboardX" in message


def hold_memory() -> None:
    """Prints by how much 256 MB, held for a moment, have raised the most that was held."""
    before = environment()["peak_memory"]
    np.ones(2**28, np.uint8)
    print(environment()["peak_memory"] - before)


class TestEnvironment:
    def test_facts(self) -> None:
        facts = environment()
        assert facts["versions"]["jax"] == jax.__version__
        assert facts["versions"]["numpy"] == np.__version__
        assert facts["versions"]["deepnmf_jax"] == deepnmf_jax.__version__
        assert facts["versions"]["python"] == sys.version.split()[0]
        more = environment("pytest", "no-such-package")["versions"]
        assert more == facts["versions"] | {"pytest": pytest.__version__, "no-such-package": None}
        assert facts["cpu"]
        assert (facts["device"], facts["device_count"]) == (jax.devices()[0].device_kind, jax.device_count())
        assert facts["date"].endswith("+00:00")
        assert json.loads(json.dumps(facts)) == facts
        assert (facts["x64"], facts["jit"]) == (True, True) and "xla_flags" in facts

    def test_what_the_same_bits_need(self, monkeypatch: pytest.MonkeyPatch) -> None:
        before = same_bits()
        assert changes(before, same_bits()) == changes({}, before) == ""
        assert before.keys() >= {"cpu_count", "process_count", "device", "x64", "xla_flags", "jit", "jax"}
        monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
        jax.config.update("jax_enable_x64", False)
        try:
            found = changes(before | {"new": 1}, same_bits())
        finally:
            jax.config.update("jax_enable_x64", True)
        flags = before["xla_flags"]
        assert found.split("; ")[0] == "x64: True then, False now"
        assert f"xla_flags: {flags!r} then, '--xla_cpu_enable_fast_math=true' now" in found
        assert found.endswith("new: 1 then, None now")

    @pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be bound to cores here")
    def test_cores_are_those_the_process_may_use(self) -> None:
        before = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, {min(before)})
            assert environment()["cpu_count"] == 1
        finally:
            os.sched_setaffinity(0, before)
        assert environment()["cpu_count"] == len(before)

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="not every system tells")
    def test_memory_is_the_most_that_was_held(self, programs: Programs) -> None:
        assert 2**27 < int(programs.call(hold_memory).end(0).stdout) < 2**29

    def test_a_copy_without_its_git_is_told_its_commit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DEEPNMF_COMMIT", "abc")
        assert environment()["commit"] == "abc"
        monkeypatch.delenv("DEEPNMF_COMMIT")
        assert environment()["commit"] == git_commit(Path(training_environment.__file__).parent)


class TestGitCommit:
    @pytest.fixture
    def checkout(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        if shutil.which("git") is None:
            pytest.skip("git is not installed")
        # Neither the user's settings nor a repository around the temporary folder matter.
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
        for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
            monkeypatch.delenv(name, raising=False)
        folder = tmp_path / "checkout"
        (folder / "package").mkdir(parents=True)
        (folder / "package" / "a.py").write_text("a = 1\n")
        self.git(folder, "init", "--quiet")
        return folder

    def git(self, folder: Path, *arguments: str) -> str:
        who = ["-c", "user.name=n", "-c", "user.email=e@x"]
        command = ["git", *who, "-C", str(folder), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, folder: Path) -> str:
        self.git(folder, "add", "package")
        self.git(folder, "commit", "--quiet", "-m", "m")
        return self.git(folder, "rev-parse", "HEAD")

    def test_clean_then_changed(self, checkout: Path) -> None:
        commit = self.commit(checkout)
        assert git_commit(checkout / "package") == commit
        (checkout / "results").write_text("untracked")
        assert git_commit(checkout / "package") == commit
        (checkout / "package" / "a.py").write_text("a = 2\n")
        assert git_commit(checkout / "package") == commit + "+changes"

    def test_changes_of_words_and_records_do_not_count(self, checkout: Path) -> None:
        (checkout / "package" / "record.json").write_text("{}")
        commit = self.commit(checkout)
        (checkout / "package" / "record.json").write_text("[]")
        assert git_commit(checkout / "package") == commit

    def test_none_where_no_commit_tracks_the_folder(self, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert git_commit(checkout / "package") is None
        self.commit(checkout)
        (checkout / "installed").mkdir()
        assert git_commit(checkout / "installed") is None
        assert git_commit(checkout.parent) is None
        monkeypatch.setenv("PATH", "")
        assert git_commit(checkout / "package") is None
