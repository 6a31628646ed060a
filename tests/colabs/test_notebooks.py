"""The notebooks run, show what their text says, and what is stored in the files is fit to be published.

python -m tests.colabs.test_notebooks executes all as they are and stores the outputs (some minutes); with names
behind it ("quickstart", "dictionary_learning", "paper") only these.
"""

import ast
import base64
import copy
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from configs import quickstart
from docs.draw import shrink

ROOT = Path(__file__).resolve().parents[2]
COLABS = ROOT / "colabs"
PATH, CONCEPTS = COLABS / "quickstart.ipynb", COLABS / "dictionary_learning.ipynb"
PAPER = COLABS / "paper.ipynb"
REPOSITORY = "https://example.org/deepnmf_jax"
# A name without a slash would be looked for in the package index.
INSTALLATION = "python -m pip install --quiet --requirement deepnmf_jax/requirements.txt"
LARGEST_FILE = 600_000
PNG = b"\x89PNG\r\n\x1a\n"

# What the notebook found, taken from its variables after its last cell.
FACTS = """
print(json.dumps({
    "python": sys.prefix,
    "results": results,
    "pictures": sorted(path.name for path in (Path(workdir) / "pictures").glob("*.png")),
    "divergences": divergences,
    "bounds": bounds,
    "accuracy": accuracy,
    "deviations": deviations,
    "cosines": {kind: dict(zip(iterations, values)) for kind, values in cosines.items()},
    "ratios": {kind: dict(zip(iterations, values)) for kind, values in ratios.items()},
}))
"""


def execute(notebook: nbformat.NotebookNode) -> None:
    """Runs all cells in the notebook's own folder, in a kernel of this Python, and stores the outputs."""
    metadata = copy.deepcopy(notebook.metadata)
    folder = {"metadata": {"path": str(COLABS)}}
    NotebookClient(notebook, timeout=1200, kernel_name="python3", record_timing=False, resources=folder).execute()
    # The kernel writes the version of its Python there, which is nobody's business.
    notebook.metadata = metadata


def outputs_of(notebook: nbformat.NotebookNode, cell_id: str | None = None) -> list[nbformat.NotebookNode]:
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell_id in (None, cell.id)]
    assert cells, f"there is no code cell {cell_id}"
    return [output for cell in cells for output in cell.outputs]


def text_of(notebook: nbformat.NotebookNode, cell_id: str | None = None) -> str:
    """All that is printed, and the text beside pictures."""
    outputs = outputs_of(notebook, cell_id)
    return "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs)


def pictures_of(notebook: nbformat.NotebookNode) -> list[bytes]:
    found = [output.get("data", {}).get("image/png") for output in outputs_of(notebook)]
    return [base64.b64decode(picture) for picture in found if picture]


def shrink_pictures(notebook: nbformat.NotebookNode) -> None:
    """Gives the stored pictures the palette of those of the documentation."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        for output in outputs_of(notebook):
            if "image/png" in output.get("data", {}):
                path.write_bytes(base64.b64decode(output.data["image/png"]))
                shrink(path)
                output.data["image/png"] = base64.b64encode(path.read_bytes()).decode()


@pytest.fixture(scope="module", params=[PATH, CONCEPTS, PAPER], ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture(scope="module")
def stored(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def by_iterations(values: dict[str, float]) -> dict[int, float]:
    return {int(n): value for n, value in sorted(values.items(), key=lambda item: int(item[0]))}


def check_training(executed: nbformat.NotebookNode, facts: dict[str, Any]) -> None:
    results = facts["results"]
    assert results["epochs"] == 1
    assert results["steps"] == results["dataset"]["train_images"] // results["config"]["batch_size"]
    assert results["test_accuracy"] > 0.8
    assert f"{100 * results['test_accuracy']:.1f} % of {results['dataset']['test_images']:,}" in text_of(executed)
    assert facts["pictures"] == ["confusion_matrix.png", "learning_curves.png", "parts.png"]
    assert len(re.findall(r"^epoch \d+/", text_of(executed, "train"), flags=re.MULTILINE)) == 1


def check_reconstruction(facts: dict[str, Any]) -> None:
    divergences, bounds = by_iterations(facts["divergences"]), by_iterations(facts["bounds"])
    values = list(divergences.values())
    assert values == sorted(values, reverse=True)
    best = values[-1]
    assert all(divergences[n] - best <= bounds[n] for n in divergences)
    assert bounds[500] < bounds[20] < 0.2 * bounds[0]


def check_gradients(facts: dict[str, Any]) -> None:
    assert facts["deviations"].keys() == {"x", "w"}
    assert max(facts["deviations"].values()) < 1e-5
    cosines = {kind: by_iterations(values) for kind, values in facts["cosines"].items()}
    ratios = {kind: by_iterations(values) for kind, values in facts["ratios"].items()}
    assert cosines["approximate"][5] > cosines["approximate"][20] > 0.9
    assert cosines["approximate"][20] > cosines["approximate"][80]
    assert ratios["approximate"][5] > ratios["approximate"][20] > ratios["approximate"][80]
    assert 0.05 < ratios["approximate"][20] < 0.2
    assert cosines["implicit"][5] < cosines["approximate"][5]
    assert cosines["implicit"][80] > max(0.97, cosines["approximate"][80])
    assert ratios["implicit"][5] > 3
    assert 0.8 < ratios["implicit"][80] < 1.25


def check_stored_is_of_today(stored: nbformat.NotebookNode, executed: nbformat.NotebookNode) -> None:
    mend = "the stored outputs are of an older version: python -m tests.colabs.test_notebooks"
    for cell_id in ("config", "images"):
        assert text_of(stored, cell_id) == text_of(executed, cell_id), mend
    last_epoch = re.findall(r"^epoch (\d+)/", text_of(stored, "train"), flags=re.MULTILINE)[-1]
    assert int(last_epoch) == quickstart.get_config().num_epochs, mend


def run_shortened(
    path: Path, facts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str = "", **parameters: Any
) -> nbformat.NotebookNode:
    """The notebook after one epoch of training instead of all, with a last cell that prints the facts.

    `before` is code that runs behind the cell of the parameters.
    """
    notebook = nbformat.read(path, as_version=4)
    (place,) = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    parameters |= {"num_epochs": 1, "workdir": str(tmp_path / "run")}
    lines = [*(f"{name} = {value!r}" for name, value in parameters.items()), before]
    shorter = nbformat.v4.new_code_cell("\n".join(lines))
    notebook.cells.insert(place + 1, shorter)
    notebook.cells.append(nbformat.v4.new_code_cell(facts, id="facts"))
    # Neither a kernel called python3 in the user's home nor the user's settings take part, or are changed.
    for name in ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        folder = tmp_path / name.lower()
        folder.mkdir()
        monkeypatch.setenv(name, str(folder))
    execute(notebook)
    return notebook


@pytest.mark.slow
def test_the_quick_start_finds_what_its_text_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # One test, because the workers of pytest-xdist would execute the notebook once each.
    stored = nbformat.read(PATH, as_version=4)
    executed = run_shortened(PATH, FACTS, tmp_path, monkeypatch)
    facts = json.loads(text_of(executed, "facts"))
    assert Path(facts["python"]).samefile(sys.prefix)
    assert [output.text for output in outputs_of(executed) if output.get("name") == "stderr"] == []
    assert len(pictures_of(executed)) == len(pictures_of(stored))
    check_training(executed, facts)
    check_reconstruction(facts)
    assert facts["accuracy"] > 0.85
    check_gradients(facts)
    check_stored_is_of_today(stored, executed)


def test_the_stored_outputs_are_complete(path: Path, stored: nbformat.NotebookNode) -> None:
    nbformat.validate(stored)
    counts = [cell.execution_count for cell in stored.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    kinds = {(output.output_type, output.get("name")) for output in outputs_of(stored)}
    assert not {kind for kind in kinds if kind[0] == "error" or kind[1] == "stderr"}
    pictures = pictures_of(stored)
    assert len(pictures) >= 4
    assert all(picture.startswith(PNG) and len(picture) > 1000 for picture in pictures)
    assert path.stat().st_size < LARGEST_FILE


def test_the_stored_outputs_tell_nothing_of_the_machine(stored: nbformat.NotebookNode) -> None:
    assert re.findall(r"(?:/(?:home|root|tmp|usr|opt|Users|work|var|mnt)\b|[A-Z]:\\)\S*", text_of(stored)) == []
    assert stored.metadata["language_info"] == {"name": "python"}
    assert [cell.id for cell in stored.cells if "execution" in cell.metadata] == []


def test_colab_finds_what_it_needs(stored: nbformat.NotebookNode) -> None:
    assert stored.metadata["kernelspec"]["name"] == "python3"
    assert stored.metadata["accelerator"] == "GPU"
    assert stored.metadata["colab"]["gpuType"] == "T4"
    source = "\n".join(cell.source for cell in stored.cells)
    assert re.findall(r"[\w\]]\s*(?:==|~=|<=?)\s*\d+\.\d", source) == []  # a pinned version


def run_setup(
    stored: nbformat.NotebookNode, folder: Path, *, lacking: str = "", old: str = "", repository: str = ""
) -> subprocess.CompletedProcess[str]:
    """Runs the set-up cell in `folder` with a git and a pip that only print their arguments, then the first path."""
    (cell,) = [cell for cell in stored.cells if cell.id == "setup"]
    assert cell.source.count('REPOSITORY = ""') == 1
    source = cell.source.replace('REPOSITORY = ""', f"REPOSITORY = {repository!r}")
    programs = folder / "programs"
    programs.mkdir()
    clone = "mkdir -p deepnmf_jax/configs && touch deepnmf_jax/configs/quickstart.py"
    clone += f" && cp {ROOT / 'requirements.txt'} deepnmf_jax"
    for name, action in (("git", clone), ("python", "true")):
        (programs / name).write_text(f'#!/bin/sh\necho {name} "$@"\n{action}\n', encoding="utf-8")
        (programs / name).chmod(0o755)
    script = f"""
import importlib.metadata, sys
version = importlib.metadata.version
def version_of(name):
    if name == {lacking!r}:
        raise importlib.metadata.PackageNotFoundError(name)
    return "0.1" if name == {old!r} else version(name)
importlib.metadata.version = version_of
sys.executable = {str(programs / "python")!r}
exec({source!r}, {{}})
print(sys.path[0])
"""
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def printed_by_setup(stored: nbformat.NotebookNode, folder: Path, **arguments: str) -> list[str]:
    done = run_setup(stored, folder, **arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_setup_clones_and_installs_where_nothing_is(stored: nbformat.NotebookNode, tmp_path: Path) -> None:
    clone, install, first = printed_by_setup(stored, tmp_path, lacking="optax", repository=REPOSITORY)
    assert clone == f"git clone --quiet --depth=1 {REPOSITORY} deepnmf_jax"
    assert install == INSTALLATION
    assert Path(first) == tmp_path / "deepnmf_jax"


def test_setup_says_what_to_do_outside_a_clone(stored: nbformat.NotebookNode, tmp_path: Path) -> None:
    done = run_setup(stored, tmp_path)
    assert done.returncode == 1 and not done.stdout
    assert "open the notebook from the folder colabs/" in done.stderr and "set REPOSITORY" in done.stderr


@pytest.mark.parametrize("place", [".", "colabs"])
def test_setup_does_nothing_in_a_repository_with_all_packages(
    stored: nbformat.NotebookNode, tmp_path: Path, place: str
) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "quickstart.py").touch()
    shutil.copy(ROOT / "requirements.txt", tmp_path)
    (tmp_path / place).mkdir(exist_ok=True)
    (first,) = printed_by_setup(stored, tmp_path / place)
    assert Path(first) == tmp_path


@pytest.mark.parametrize("missing", [{"lacking": "orbax-checkpoint"}, {"lacking": "mlxtend"}, {"old": "flax"}])
def test_setup_installs_what_a_clone_of_an_earlier_session_lacks(
    stored: nbformat.NotebookNode, tmp_path: Path, missing: dict[str, str]
) -> None:
    (tmp_path / "deepnmf_jax" / "configs").mkdir(parents=True)
    (tmp_path / "deepnmf_jax" / "configs" / "quickstart.py").touch()
    shutil.copy(ROOT / "requirements.txt", tmp_path / "deepnmf_jax")
    install, first = printed_by_setup(stored, tmp_path, **missing)
    assert install == INSTALLATION
    assert Path(first) == tmp_path / "deepnmf_jax"


def test_setup_shows_why_a_clone_failed(stored: nbformat.NotebookNode, tmp_path: Path) -> None:
    (cell,) = [cell for cell in stored.cells if cell.id == "setup"]
    source = cell.source.replace('REPOSITORY = ""', f"REPOSITORY = {str(tmp_path / 'nowhere')!r}")
    done = subprocess.run([sys.executable, "-c", source], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "git clone" in done.stderr and "does not exist" in done.stderr


def test_setup_needs_nothing_that_a_kernel_lacks(stored: nbformat.NotebookNode) -> None:
    """ipykernel brings packaging; all else comes with Python."""
    (cell,) = [cell for cell in stored.cells if cell.id == "setup"]
    imported = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {name for node in imported for name in [getattr(node, "module", None), *(a.name for a in node.names)]}
    roots = {name.split(".")[0] for name in names if name and name[0].islower()}
    assert "packaging" in roots and roots - sys.stdlib_module_names <= {"packaging", "version"}


if __name__ == "__main__":
    for name in sys.argv[1:] or [PATH.stem, CONCEPTS.stem, PAPER.stem]:
        opened = nbformat.read(COLABS / f"{name}.ipynb", as_version=4)
        execute(opened)
        shrink_pictures(opened)
        nbformat.write(opened, COLABS / f"{name}.ipynb")
