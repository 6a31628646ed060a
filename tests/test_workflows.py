"""The workflows of continuous integration: what they call is there, and a release needs no password."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TEXTS = {path.stem: path.read_text(encoding="utf-8") for path in FILES}


def jobs(name: str) -> dict[str, Any]:
    found = yaml.safe_load(TEXTS[name])["jobs"]
    assert isinstance(found, dict)
    return found


def steps(job: dict[str, Any]) -> str:
    return "\n".join(step.get("run", step.get("uses", "")) for step in job["steps"])


def test_there_are_tests_the_site_and_a_release() -> None:
    assert set(TEXTS) == {"tests", "docs", "release"}


@pytest.mark.parametrize("name", TEXTS)
def test_what_is_called_is_there(name: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for job in jobs(name).values():
        for target in re.findall(r"^make ([\w-]+)", steps(job), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
        for program in re.findall(r"^(\.\S+)", steps(job), re.MULTILINE):
            assert (ROOT / program).is_file(), program
        assert job.get("timeout-minutes") or job.get("if"), "a job that hangs runs for six hours"


def test_the_oldest_python_is_tried_with_the_lock_and_newer_ones_without() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest = project["requires-python"].removeprefix(">=")
    found = jobs("tests")
    pythons = found["newest"]["strategy"]["matrix"]["python"]
    assert pythons[0] == oldest and len(pythons) > 2 and all(isinstance(version, str) for version in pythons)
    assert f'python-version: "{oldest}"' in TEXTS["tests"] and "make test-oldest" in steps(found["oldest"])
    assert "make test-newest PYTHON=python" in steps(found["newest"])


def test_a_release_is_the_tag_built_checked_and_published_without_a_password() -> None:
    found = jobs("release")
    built, published = steps(found["build"]), found["publish"]
    assert "python -m build" in built and "twine check --strict dist/*" in built
    assert "GITHUB_REF_NAME#v" in built
    assert published["permissions"] == {"id-token": "write"} and published["needs"] == ["tests", "build"]
    assert not [name for name, text in TEXTS.items() if "secrets." in text or "password" in text.split("\n", 1)[1]]


def test_actionlint_finds_nothing() -> None:
    if shutil.which("actionlint") is None:
        pytest.skip("actionlint is not installed")
    done = subprocess.run(["actionlint", *map(str, FILES)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
