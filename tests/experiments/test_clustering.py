"""The comparison of clusterings end to end, small: what it writes, and that its scores are those of its codes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")

from configs.clustering import dn2mfgl
from deepnmf_jax import experiments
from deepnmf_jax.experiments import clustering, pictures

ROOT = Path(__file__).resolve().parents[2]


def small(**changes: object) -> object:
    config = dn2mfgl.get_config()
    config.update({"num_seeds": 1, "num_kmeans": 2, "max_iter": 5, "hidden": 12, "num_samples": 60} | changes)
    return config


@pytest.mark.slow
def test_main_runs_it_from_the_config(tmp_path: Path) -> None:
    config = "--config=configs/clustering/dn2mfgl.py"
    command = [
        sys.executable,
        "main.py",
        config,
        "--config.num_samples=60",
        "--config.methods=k-means,two-layer Dn2MFGL",
    ]
    small = [f"--config.{name}" for name in ("num_seeds=1", "num_kmeans=2", "max_iter=5", "hidden=12")]
    ended = subprocess.run([*command, *small, f"--workdir={tmp_path}"], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["config"]["num_samples"] == 60 and found["device"] and found["date"]
    assert set(found["sets"]["digits"]["methods"]) == {"k-means", "two-layer Dn2MFGL"}
    assert {path.name for path in tmp_path.glob("*.png")} == {"digits_codes.png", "digits_parts.png"}


def test_other_modes_and_experiments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--mode=summary.*no network"):
        experiments.run(small(), "summary", "")
    with pytest.raises(ValueError, match="'forgery' is unknown; use one of 'clustering'"):
        experiments.run(small(experiment="forgery"), "train", str(tmp_path))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*no lower bound")
def test_run(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(3), 12)
    x = np.eye(3).repeat(4, axis=1)[y] + 0.2 * rng.random((36, 12))
    np.savez(tmp_path / "blobs.npz", x=x, y=y)
    config = small(faces=str(tmp_path), digits=False)
    results = clustering.run(config, str(tmp_path / "out"))
    stored = json.loads((tmp_path / "out" / "results.json").read_text())
    assert stored["sets"]["blobs"]["methods"].keys() == clustering.METHODS.keys()
    assert results["sets"]["blobs"]["methods"]["k-means"]["acc_mean"] == 1
    assert results["sets"]["blobs"]["methods"]["two-layer Dn2MFGL"]["acc_mean"] == 1
    lines = (tmp_path / "out" / "table.md").read_text().splitlines()
    assert len(lines) == 4 + len(clustering.METHODS) and "blobs" in lines[2]
    for name in ("codes", "parts"):
        assert (tmp_path / "out" / f"blobs_{name}.png").read_bytes()[1:4] == b"PNG"


def test_bad_settings(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'PCA'"):
        clustering.run(small(methods="PCA"), str(tmp_path))
    with pytest.raises(ValueError, match="no set"):
        clustering.run(small(digits=False), str(tmp_path))
    np.savez(tmp_path / "z.npz", z=np.ones(3))
    with pytest.raises(ValueError, match="needs x"):
        clustering.run(small(faces=str(tmp_path / "z.npz")), str(tmp_path))


def test_image_shapes() -> None:
    assert pictures.image_shape(1024) == (32, 32)
    assert pictures.image_shape(644) == (28, 23)
    assert pictures.image_shape(7) == (7, 1)


def test_sets_have_unit_length() -> None:
    x, y = clustering.read_sets(small())["digits"]
    assert x.shape == (60, 64) and y.shape == (60,)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, rtol=1e-6)
