"""The notebook of concepts runs, and what it shows is what its text says."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import nbformat
import numpy as np
import pytest

from deepnmf_jax.data.tfds import prepared_versions, resolve_data_dir
from deepnmf_jax.models import Network
from tests.colabs.test_notebooks import CONCEPTS, outputs_of, pictures_of, run_shortened, text_of

# What the notebook found, taken from its variables after its last cell.
FACTS = """
import json

window = images[top[0, 0], 4 * where[0, 0, 0] :, 4 * where[0, 0, 1] :][:16, :16]
j = int(by_sobol[5].argmax())
more, less = (np.asarray(head(maps[some[50:60]] * (1 + by * np.eye(12)[j])))[:, 5] for by in (1e-2, -1e-2))
by_strength = float((more - less).mean() / 0.02)
print(json.dumps({
    "same": same,
    "gradients": [float(by_gradient[5, j]), by_strength, float(np.abs(by_gradient).max())],
    "sobol": [float(by_sobol.min()), float(by_sobol.max(axis=1).min())],
    "users of what matters": bool(
        (np.sort(strength[members[1], matters[1]])[::-1][:4] == strength[chosen[1], matters[1]]).all()
    ),
    "seeds": alike.tolist(),
    "stability": [found.stability for found in agreed.results],
    "python": sys.prefix,
    "errors": [error, test_error, face_error, network_error],
    "converged": [nmf.converged_, of_faces.converged_, network_nmf.converged_],
    "codes are those of encode": bool(np.allclose(nmf.encode(A), Z, rtol=1e-3, atol=1e-5 * Z.max())),
    "users are the largest": all((np.sort(Z[:, j])[::-1][:8] == Z[users[j], j]).all() for j in range(len(D))),
    "places are the largest": all(
        (maps[top[j], where[j, :, 0], where[j, :, 1], j] == np.sort(maps[..., j].max(axis=(1, 2)))[::-1][:8]).all()
        for j in range(len(patterns))
    ),
    "the patch is there": bool((patches[0, 0] == window).all()),
    "negative": int((Z < 0).sum() + (D < 0).sum() + (maps < 0).sum()),
    "alike": [float(np.corrcoef(patches[j].reshape(8, -1)).mean()) for j in range(len(patches))],
    "by class": float(by_class.max()),
    "saved": (Path(workdir) / "concepts.npz").is_file(),
    "accuracy": results["test_accuracy"],
}))
"""

# A network of half the units is trained and explained in half the time.
SMALLER = """
from configs import quickstart

usual = quickstart.get_config


def smaller():
    config = usual()
    config.model.width = 0.5
    return config


quickstart.get_config = smaller
"""


def check(facts: dict[str, Any]) -> None:
    error, test_error, face_error, network_error = facts["errors"]
    assert error < 0.47 and abs(test_error - error) < 0.02
    assert face_error < 0.3 and network_error < 0.85
    assert all(facts["converged"]) and facts["negative"] == 0
    assert facts["codes are those of encode"] and facts["users are the largest"]
    assert facts["places are the largest"] and facts["the patch is there"] and facts["saved"]
    # Patches of one concept are alike; of patches taken at random the mean correlation is near 0.2.
    assert np.median(facts["alike"]) > 0.3
    assert facts["by class"] > 1.5 and facts["accuracy"] > 0.7
    check_importance(facts)


def check_importance(facts: dict[str, Any]) -> None:
    assert facts["same"] > 0.7 and facts["users of what matters"]
    gradient, by_strength, largest = facts["gradients"]
    assert abs(gradient - by_strength) < 0.05 * largest + 0.05 * abs(gradient)
    least, most = facts["sobol"]
    assert least >= 0 and most > 2 / 12  # above what even shares would be
    assert all(0.5 < cosine <= 1 + 1e-9 for row in facts["seeds"] for cosine in row)
    assert all(-1 <= stability <= 1 for stability in facts["stability"])


@pytest.fixture
def faces(tmp_path: Path) -> str:
    """ORL from the folder DEEPNMF_FACES, else images of the same format."""
    path = tmp_path / "faces.npz"
    source = Path(os.environ.get("DEEPNMF_FACES", "")) / "orl.npz"
    rng = np.random.default_rng(0)
    if "DEEPNMF_FACES" in os.environ and source.is_file():
        with np.load(source, allow_pickle=False) as file:
            x = file["x"].reshape(-1, 32, 32)
    else:
        parts = rng.random((60, 5)) @ rng.random((5, 144)) / 5
        # Without noise a fit would go on for long: the objective falls on, relative to itself, towards rounding.
        x = (255 * np.clip(parts + 0.1 * rng.random(parts.shape), 0, 1)).astype(np.uint8).reshape(60, 12, 12)
    np.savez(path, x=x)
    return str(path)


@pytest.mark.slow
def test_it_runs_and_finds_what_its_text_says(faces: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = nbformat.read(CONCEPTS, as_version=4)
    executed = run_shortened(CONCEPTS, FACTS, tmp_path, monkeypatch, SMALLER, faces=faces)
    facts = json.loads(text_of(executed, "facts"))
    assert Path(facts["python"]).samefile(sys.prefix)
    assert [output.text for output in outputs_of(executed) if output.get("name") == "stderr"] == []
    assert len(pictures_of(executed)) == len(pictures_of(stored)) + 1
    check(facts)


@pytest.mark.slow
def test_it_explains_a_network_of_the_package(faces: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not prepared_versions("cifar10", resolve_data_dir()):
        pytest.skip("CIFAR-10 is not on this machine")
    executed = run_shortened(CONCEPTS, FACTS, tmp_path, monkeypatch, faces=faces, pretrained="cnmf_1x1")
    facts = json.loads(text_of(executed, "facts"))
    assert facts["places are the largest"] and facts["the patch is there"] and facts["accuracy"] > 0.79
    # Twelve concepts of 64 channels are few for photographs; by chance it would be 0.1.
    assert facts["same"] > 0.3


def test_no_faces_are_stored() -> None:
    stored = nbformat.read(CONCEPTS, as_version=4)
    assert not [output for output in outputs_of(stored, "faces") if "image/png" in output.get("data", {})]


@pytest.mark.slow
def test_a_position_of_the_second_block_sees_the_window_that_is_shown() -> None:
    """Pixels that change the block's output at one position, by finite changes of single pixels."""
    model = Network(num_iters=2)
    rng = np.random.default_rng(0)
    image = rng.random((1, 24, 24, 1)).astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), image)

    @jax.jit
    def at(images: jax.Array) -> jax.Array:
        _, found = model.apply(variables, images, capture_intermediates=True, mutable=["intermediates"])
        return found["intermediates"]["block2"]["__call__"][0][:, 1, 2]

    # Evaluation takes each image for itself: all changed images in one batch.
    changed = jnp.asarray(np.repeat(image, 24 * 24, axis=0)).reshape(24, 24, 24, 24, 1)
    rows, columns = np.mgrid[:24, :24]
    changed = changed.at[rows, columns, rows, columns].add(0.5 * (changed[rows, columns, rows, columns] < 0.5) - 0.25)
    seen = np.abs(at(changed.reshape(-1, 24, 24, 1)) - at(jnp.asarray(image))).max(axis=1).reshape(24, 24) > 1e-7
    assert not seen[:4].any() and not seen[20:].any() and not seen[:, :8].any()
    assert seen[4:20, 8:24].mean() > 0.9
