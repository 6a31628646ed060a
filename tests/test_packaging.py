"""What the files around the code promise: dependencies, light import, one address, make's commands."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
LARGEST_FILE = 2 * 1024 * 1024


def requirements(*lists: list[str]) -> dict[str, Requirement]:
    """By normalized name, without references to this project's own extras."""
    parsed = [Requirement(line) for lines in lists for line in lines]
    return {canonicalize_name(r.name): r for r in parsed if r.name != PROJECT["name"]}


def lines_of(name: str) -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return [line for line in (raw.split("#")[0].strip() for raw in text.splitlines()) if line]


def pinned(name: str) -> dict[str, str]:
    """Versions of a file in which every line is `package==version`."""
    versions: dict[str, str] = {}
    for line in lines_of(name):
        package, equal, version = line.partition("==")
        assert equal and re.fullmatch(r"[\w.]+", version), f"{name}: {line!r} is not package==version"
        versions[canonicalize_name(package)] = version
    return versions


def lower_bound(requirement: Requirement) -> str:
    (specifier,) = requirement.specifier
    return specifier.version


def test_requirements_txt_repeats_the_dependencies() -> None:
    assert sorted(lines_of("requirements.txt")) == sorted(PROJECT["dependencies"])


def test_every_dependency_has_a_lower_bound_and_nothing_else() -> None:
    everything = requirements(PROJECT["dependencies"], *EXTRAS.values())
    bounds = {name: str(r.specifier) for name, r in everything.items()} | {"Python": PROJECT["requires-python"]}
    assert {name: bound for name, bound in bounds.items() if not re.fullmatch(r">=[\d.]+", bound)} == {}


def test_the_oldest_environment_holds_every_lower_bound() -> None:
    tried = requirements(PROJECT["dependencies"], EXTRAS["notebook"], EXTRAS["test"])
    oldest = pinned("requirements-oldest.txt")
    assert {name: oldest.get(name) for name in tried} == {name: lower_bound(r) for name, r in tried.items()}


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-newest.lock"])
def test_a_lock_pins_what_the_tests_need(lock: str) -> None:
    locked = pinned(lock)
    needed = requirements(PROJECT["dependencies"], EXTRAS["notebook"], EXTRAS["test"], EXTRAS["dev"], EXTRAS["docs"])
    versions = {name: locked.get(name, "0") for name in needed}
    assert {name: v for name, v in versions.items() if not needed[name].specifier.contains(v)} == {}


def test_import_is_light() -> None:
    script = """
import json, sys, time
import jax, flax.linen
start = time.perf_counter()
import deepnmf_jax
seconds = time.perf_counter() - start
first = {name.split(".")[0] for name in sys.modules}
from deepnmf_jax.data import make_pack, prepare
from deepnmf_jax.training import loop
second = {name.split(".")[0] for name in sys.modules}
print(json.dumps([seconds, sorted(first), sorted(second)]))
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, modules, for_training = json.loads(done.stdout)
    print(f"import deepnmf_jax: {seconds:.3f} s on top of jax and flax.linen")
    heavy = {"matplotlib", "mlxtend", "sklearn", "tensorboardX", "tensorflow", "tensorflow_datasets", "torch", "tqdm"}
    assert not (heavy | {"optax", "orbax"}) & set(modules)
    assert "deepnmf_jax" in modules
    # What a run may or may not have is loaded where it is used.
    assert not (heavy | {"PIL", "array_record"}) & set(for_training)
    assert {"optax", "orbax"} <= set(for_training)


def tracked_files() -> list[Path]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: no list of tracked files")
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


# Stands for the owner of the repository, who is not known yet; in two parts, because this file is looked at too.
PLACEHOLDER = "OWN" + "ER"
# What has to name the repository's address once there is one.
PLACES = (
    *("pyproject.toml", "CITATION.cff", "README.md", "mkdocs.yml"),
    *(f"colabs/{path.name}" for path in sorted((ROOT / "colabs").glob("*.ipynb"))),
)


def before_the_first_release() -> str:
    (section,) = re.findall(
        r"^## Before the first release\n(.*?)^## ", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.M | re.S
    )
    return section


def test_no_file_points_to_an_unknown_owner() -> None:
    holding = [path.name for path in tracked_files() if PLACEHOLDER.encode() in path.read_bytes()]
    assert holding == ["CONTRIBUTING.md"]
    whole = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert whole.count(PLACEHOLDER) == before_the_first_release().count(PLACEHOLDER)


def test_contributing_names_every_place_of_the_address() -> None:
    assert sorted(re.findall(r"^\| `([^`]+)` \|", before_the_first_release(), re.M)) == sorted(PLACES)


def test_the_address_is_set_in_all_places_or_in_none() -> None:
    address = re.compile(r"github(?:usercontent)?(?:\.com)?[/:]([^/\s\"'()]+)/deepnmf_jax")
    files = {place: ROOT / place for place in PLACES if (ROOT / place).exists()}
    owners = {place: sorted(set(address.findall(path.read_text(encoding="utf-8")))) for place, path in files.items()}
    assert len({tuple(found) for found in owners.values()}) == 1 and len(owners["pyproject.toml"]) <= 1, owners


def test_no_large_file_is_tracked() -> None:
    sizes = {str(path.relative_to(ROOT)): path.stat().st_size for path in tracked_files()}
    assert {name: size for name, size in sizes.items() if size > LARGEST_FILE} == {}


def test_the_paper_can_be_cited() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML reads CITATION.cff")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    paper, (preprint,) = citation["preferred-citation"], citation["references"]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert paper["title"] == (
        "Interleaving cortex-analog mixing improves deep non-negative matrix factorization networks"
    )
    assert (paper["journal"], paper["doi"]) == ("Frontiers in Computational Neuroscience", "10.3389/fncom.2025.1692418")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(said in readme for said in (paper["title"], paper["journal"], paper["doi"], preprint["title"]))
    authors = [f"{author['given-names']} {author['family-names']}" for author in paper["authors"]]
    assert authors == ["Mahbod Nouri", "David Rotermund", "Alberto Garcia-Ortiz", "Klaus R. Pawelzik"]
    assert paper["year"] == 2025


def make(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run make as a person would, whatever make may be running these tests."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    outer = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "CONFIG", "WORKDIR", "ARGS", "DATASET", "PYTHON"}
    clean = {name: value for name, value in os.environ.items() if name not in outer}
    return subprocess.run(["make", *arguments], cwd=cwd, env=clean, capture_output=True, text=True)


def fresh_copy(folder: Path) -> Path:
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "requirements-newest.lock"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "main.py --config=configs/quickstart.py --workdir=runs/quickstart"),
        (["CONFIG=configs/cnmf_1x1.py"], "main.py --config=configs/cnmf_1x1.py --workdir=runs/cnmf_1x1"),
        (["CONFIG=configs/fast/cnn.py"], "main.py --config=configs/fast/cnn.py --workdir=runs/fast/cnn"),
        (["WORKDIR=here", "ARGS=--config.seed=3"], "--workdir=here --config.seed=3"),
    ],
)
def test_make_train_runs_the_config_in_its_own_folder(tmp_path: Path, arguments: list[str], expected: str) -> None:
    done = make("--dry-run", "train", *arguments, cwd=fresh_copy(tmp_path))
    assert expected in done.stdout, done.stderr
    assert re.search(r"pip install .* -e \. ", done.stdout)  # and none of the extras


def test_make_alone_lists_the_targets() -> None:
    shown = re.findall(r"^  make ([a-z-]+) ", make().stdout, flags=re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (targets,) = re.findall(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)
    assert sorted(shown) == sorted(targets.split())


@pytest.mark.parametrize(
    ("broken_if", "expected"),
    [("version_info", "Python 3.11 or newer is needed"), ("ensurepip", "apt-get install python3-venv")],
)
def test_make_setup_says_what_the_machine_lacks(tmp_path: Path, broken_if: str, expected: str) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncase "$*" in *{broken_if}*) exit 1;; esac\nexit 0\n')
    python.chmod(0o755)
    done = make("setup", f"PYTHON={python}", cwd=fresh_copy(tmp_path))
    assert done.returncode != 0
    assert expected in done.stderr
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("target", ["data", "pack"])
def test_make_asks_which_data_set(tmp_path: Path, target: str) -> None:
    done = make(target, cwd=fresh_copy(tmp_path))
    assert done.returncode != 0
    assert f"make {target} DATASET=cifar10" in done.stderr
    assert not list(tmp_path.glob(".venv*"))
