"""The wheel and the source package: what they hold, what a release uploads, what somebody with the wheel can do."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

import deepnmf_jax

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sources of a wheel, and the wheel, built without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("deepnmf_jax", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "main.py"):
        shutil.copy(ROOT / name, source)
    pip_offline("wheel", "--no-build-isolation", "--wheel-dir", str(folder), str(source))
    (wheel,) = folder.glob("*.whl")
    return source, wheel


@pytest.mark.slow
@pytest.mark.skipif(not (find_spec("build") and find_spec("twine")), reason="build or twine is not installed")
def test_what_a_release_uploads(built: tuple[Path, Path], tmp_path: Path) -> None:
    """The commands of .github/workflows/release.yml, without their network."""

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", *arguments]
        done = subprocess.run(command, cwd=built[0], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("build", "--no-isolation", f"--outdir={tmp_path}")
    uploaded = sorted(tmp_path.iterdir())
    version = deepnmf_jax.__version__
    assert [path.name for path in uploaded] == [
        f"deepnmf_jax-{version}-py3-none-any.whl",
        f"deepnmf_jax-{version}.tar.gz",
    ]
    assert run("twine", "check", "--strict", *map(str, uploaded)).count("PASSED") == 2


def pip_offline(*arguments: str, python: Path | None = None) -> None:
    elsewhere = ["--python", str(python)] if python else []
    command = [sys.executable, "-m", "pip", *elsewhere, arguments[0], "--no-deps", "--no-index", *arguments[1:]]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_wheel_holds_the_package_its_recipes_and_nothing_else(built: tuple[Path, Path]) -> None:
    source, wheel = built
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    packaged = {name for name in names if ".dist-info/" not in name}
    modules = {str(path.relative_to(source)) for path in (source / "deepnmf_jax").rglob("*") if path.is_file()}
    recipes = {f"deepnmf_jax/{path.relative_to(source)}" for path in (source / "configs").rglob("*.py")}
    assert packaged == modules | recipes and "deepnmf_jax/configs/fast/cnmf_1x1.py" in recipes
    assert "deepnmf_jax/py.typed" in packaged
    assert f"Version: {deepnmf_jax.__version__}\n" in metadata


@pytest.mark.slow
def test_the_source_package_holds_what_the_wheel_is_made_of(built: tuple[Path, Path], tmp_path: Path) -> None:
    """`python -m build` makes the wheel from it."""
    source, wheel = built
    program = f"from setuptools import build_meta; print(build_meta.build_sdist({str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (package,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(package) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"setup.py", "pyproject.toml", "configs/base.py", "configs/fast/cnmf_1x1.py", "README.md"} <= names
    assert {f"deepnmf_jax/pretrained/cnmf/{name}" for name in ("network.json", "variables.npz")} <= names
    if find_spec("twine"):
        checked = subprocess.run(
            [sys.executable, "-m", "twine", "check", "--strict", str(package), str(wheel)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert checked.returncode == 0, checked.stdout


# What somebody with the wheel alone may write.
OWN_CONFIG = """\
from configs.base import variant

get_config = variant({"dataset": "mnist5k", "augmentation.crop": 24, "model.width": 0.125})
"""


def empty_environment(folder: Path) -> Path:
    """The Python of a new environment. The dependencies are those of this one, without its editable package."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "dependencies.pth").write_text("".join(f"{path}\n" for path in paths))
    return folder / "bin" / "python"


@pytest.mark.slow
def test_whoever_installs_the_wheel_trains_evaluates_and_predicts(built: tuple[Path, Path], tmp_path: Path) -> None:
    """From an empty folder and an environment with nothing but the wheel and what it requires."""
    from PIL import Image

    from deepnmf_jax.data.datasets import load_dataset

    python, folder = empty_environment(tmp_path / "environment"), tmp_path / "empty"
    pip_offline("install", str(built[1]), python=python)
    folder.mkdir()
    (folder / "mine.py").write_text(OWN_CONFIG)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"JAX_PLATFORMS": "cpu", "HOME": str(tmp_path)}

    def run(*command: str, status: int = 0) -> str:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == status and "Traceback" not in done.stderr, done.stderr
        return done.stderr if status else done.stdout

    program = str(python.with_name("deepnmf-jax"))
    where = """
import deepnmf_jax, pathlib
from deepnmf_jax import programs
for name in programs.recipe_names():
    programs.read_recipe(name)
deepnmf_jax.load_pretrained("cnmf_1x1")
print(pathlib.Path(deepnmf_jax.__file__).parent, *deepnmf_jax.pretrained_names())
"""
    found, *networks = run(str(python), "-c", where).split()
    assert found.startswith(str(tmp_path / "environment")) and {"cnn", "cnmf", "cnn_1x1", "cnmf_1x1"} <= set(networks)
    assert run(str(python), "-m", "deepnmf_jax", "--version") == f"deepnmf-jax {deepnmf_jax.__version__}\n"
    assert "fast/cnmf_1x1" in run(program)
    assert "cifar10" in run(program, "data", "--help") and "--size" in run(program, "pack", "--help")
    assert "2,290" in run(program, "summary", "--config=mine.py").splitlines()[-1]
    assert "167,886" in run(program, "summary", "--config=cnmf_1x1").splitlines()[-1]
    # An experiment finds the recipes that it trains, and says what is missing.
    missing = run(program, "train", "--config=experiments/local_learning", "--workdir=runs/a", status=1)
    assert "the data set cifar10 is not there" in missing
    small = ("--config.num_epochs=1", "--config.model.width=0.125", "--config.model.num_iters=2")
    run(program, "train", "--config=quickstart", "--workdir=runs/quickstart", *small)
    results = json.loads((folder / "runs" / "quickstart" / "results.json").read_text())
    assert results["config"]["dataset"] == "mnist5k" and results["epochs"] == 1
    tested = json.loads(run(program, "evaluate", "--config=quickstart", *small, "--checkpoint=runs/quickstart"))
    assert tested["test_accuracy"] == results["test_accuracy"]
    Image.fromarray(load_dataset("mnist5k").test_images[0][..., 0]).save(folder / "digit.png")
    told = run(program, "predict", "--checkpoint=runs/quickstart", "digit.png")
    assert re.fullmatch(r"digit\.png: \d \d+\.\d%, \d \d+\.\d%, \d \d+\.\d%\n", told), told
    assert sorted(path.name for path in folder.iterdir()) == ["digit.png", "mine.py", "runs"]
