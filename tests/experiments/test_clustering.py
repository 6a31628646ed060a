"""The comparison of clusterings and its studies end to end, small: what they write, and that it is of the codes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")

from configs.clustering import dn2mfgl, studies
from deepnmf_jax import experiments
from deepnmf_jax.experiments import clustering, clustering_pictures, clustering_studies
from deepnmf_jax.experiments.tables import ROOT
from deepnmf_jax.training.locks import locked

SMALL = {"num_seeds": 1, "num_kmeans": 2, "max_iter": 5, "hidden": 12, "num_samples": 60}


def small(module: object = dn2mfgl, **changes: object) -> object:
    config = module.get_config()  # type: ignore[attr-defined]
    config.update(SMALL | changes)
    return config


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one set of three classes far apart."""
    folder = tmp_path_factory.mktemp("blobs")
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(3), 12)
    np.savez(folder / "jaffe.npz", x=np.eye(3).repeat(4, axis=1)[y] + 0.2 * rng.random((36, 12)), y=y)
    return folder


@pytest.mark.slow
def test_main_runs_it_from_the_config(tmp_path: Path) -> None:
    flags = [f"--config.{name}={value}" for name, value in SMALL.items()]
    command = [sys.executable, "main.py", "--config=configs/clustering/dn2mfgl.py", f"--workdir={tmp_path}", *flags]
    ended = subprocess.run([*command, "--config.methods=k-means"], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["config"]["num_samples"] == 60 and found["device"] and found["date"] and found["versions"]["jax"]
    assert set(found["sets"]["digits"]["methods"]) == {"k-means"}


def test_other_modes_and_experiments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--mode=summary.*no network"):
        experiments.run(small(), "summary", "")
    with pytest.raises(ValueError, match="'forgery' is unknown; use one of 'accuracy', 'clustering'"):
        experiments.run(small(experiment="forgery"), "train", str(tmp_path))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*no lower bound")
def test_run(blobs: Path, tmp_path: Path) -> None:
    record = clustering.run(small(faces=str(blobs), digits=False), str(tmp_path))
    assert json.loads((tmp_path / "results.json").read_text()) == record
    assert record["config"]["faces"] == ""
    methods = record["sets"]["jaffe"]["methods"]
    assert methods.keys() == clustering.METHODS.keys()
    assert methods["k-means"]["acc_mean"] == methods["two-layer Dn2MFGL"]["acc_mean"] == 1
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert len(lines) == 4 + len(clustering.METHODS) and "jaffe" in lines[2]
    pictures = {f"jaffe_{name}.png" for name in ("codes", "layer1", "layer2")}
    assert {path.name for path in tmp_path.glob("*.png")} == pictures
    with np.load(tmp_path / "jaffe.npz") as file:
        codes, classes = file["codes"], file["classes"]
    assert codes.shape == (36, 3) and clustering.scores.accuracy(classes, np.argmax(codes, axis=1)) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_studies(blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few variants of each study; the tables are those of their records."""
    few = {
        "rule": ("rule", "2 of 5 left out", "balance 2 t"),
        "ablation": ("rule", "rule's alpha * 10", "beta = 1e-4 alpha, nu = 0", "three layers (p, 2c, c)"),
        "noise": ("rule; sample; 0", "rule; sample; 0.2"),
    }
    chosen = {
        study: (sets, {name: measurements[name] for name in few[study]})
        for study, (sets, measurements) in clustering_studies.STUDIES.items()
    }
    monkeypatch.setattr(clustering_studies, "STUDIES", chosen)
    monkeypatch.setattr(clustering_studies, "RECORDS", tmp_path)
    experiments.run(small(studies, faces=str(blobs), digits=False), "train", str(tmp_path))
    rule, ablation, noise = (
        json.loads((tmp_path / f"{study}.json").read_text())["sets"]["jaffe"]["methods"] for study in few
    )
    details = {name: found["details"][0] for name, found in rule.items()}
    assert details["2 of 5 left out"]["n_neighbors"] == details["rule"]["n_neighbors"] - 1 == 3
    assert details["balance 2 t"]["balance"] == pytest.approx(2 * details["rule"]["balance"])
    assert details["balance 2 t"]["alpha"] == pytest.approx(4 * details["rule"]["alpha"], rel=1e-3)
    assert ablation["rule"]["acc"] == rule["rule"]["acc"]
    assert ablation["rule's alpha * 10"]["details"][0]["alpha"] == pytest.approx(10 * details["rule"]["alpha"])
    assert "no lower bound" in ablation["beta = 1e-4 alpha, nu = 0"]["refused"]
    assert noise["rule; sample; 0"]["acc"] == [1] and noise["rule; sample; 0.2"]["error_mean"] > 0
    for study, names in few.items():
        table = clustering_studies.TABLES[study]()
        assert table.startswith("1 seeds from 0; ") and len(table.splitlines()) == 4 + len(names)
    assert "| beta = 1e-4 alpha, nu = 0 | refused |" in clustering_studies.TABLES["ablation"]()


def test_bad_settings(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="methods = 'PCA' is unknown; use one of 'k-means'"):
        clustering.run(small(methods="PCA"), str(tmp_path))
    with pytest.raises(ValueError, match="no set"):
        clustering.run(small(digits=False), str(tmp_path))
    np.savez(tmp_path / "z.npz", z=np.ones(3))
    with pytest.raises(ValueError, match="needs x"):
        clustering.run(small(faces=str(tmp_path / "z.npz")), str(tmp_path))
    with pytest.raises(ValueError, match="n_neighbors = 0, but it must be a whole number of at least 1"):
        clustering.run(small(n_neighbors=0), str(tmp_path))
    with pytest.raises(ValueError, match="n_neighbors = 60, but digits has 60 samples"):
        clustering.run(small(n_neighbors=60), str(tmp_path))
    (tmp_path / "torn.npz").write_bytes((tmp_path / "z.npz").read_bytes()[:100])
    for arrays, message in (
        (None, r"torn.npz cannot be read as an .npz file"),
        ({"x": -np.ones((9, 4)), "y": np.arange(9)}, r"torn.npz: x \(float64\) must be finite numbers of at least 0"),
        ({"x": np.ones((9, 4)), "y": np.arange(8)}, r"torn.npz: x has the shape \(9, 4\) and y \(8,\)"),
        ({"x": np.ones((9, 4)), "y": np.ones(9)}, r"9 samples of torn are of one class"),
    ):
        if arrays:
            np.savez(tmp_path / "torn.npz", **arrays)
        with pytest.raises(ValueError, match=message):
            clustering.run(small(faces=str(tmp_path / "torn.npz")), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="studies = 'terms' is unknown"):
        clustering_studies.run(small(studies, studies="rule,terms"), str(tmp_path))
    np.savez(tmp_path / "other.npz", x=np.ones((9, 4)), y=np.arange(9))
    with pytest.raises(ValueError, match="'noise' is of the sets digits, jaffe; there are other"):
        config = small(studies, studies="noise", digits=False, faces=str(tmp_path / "other.npz"))
        clustering_studies.run(config, str(tmp_path))


@pytest.mark.parametrize("module", [dn2mfgl, studies])
def test_a_folder_in_use(module: object, tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(OSError, match="in use by process"):
        experiments.run(small(module), "train", str(tmp_path))


@pytest.mark.slow
def test_a_class_is_told_by_colour_marker_number_and_legend() -> None:
    rng = np.random.default_rng(0)
    classes = np.arange(60) % 12
    axes = (figure := clustering_pictures.draw_codes(rng.random((60, 4)), classes)).axes[0]
    looks = {(tuple(dots.get_facecolor()[0]), dots.get_paths()[0].vertices.tobytes()) for dots in axes.collections}
    assert len(looks) == 12 and sum(len(dots.get_offsets()) for dots in axes.collections) == 60
    names = [str(i) for i in range(12)]
    assert [text.get_text() for text in axes.texts] == names
    assert [text.get_text() for text in figure.legends[0].get_texts()] == names


def test_image_shapes() -> None:
    assert clustering_pictures.image_shape(1024) == (32, 32)
    assert clustering_pictures.image_shape(644) == (28, 23)
    assert clustering_pictures.image_shape(7) == (7, 1)


def test_sets_have_unit_length() -> None:
    x, y = clustering.read_sets(small())["digits"]
    assert x.shape == (60, 64) and y.shape == (60,)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, rtol=1e-6)
