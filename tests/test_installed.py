"""`deepnmf-jax` without a wheel: its commands, recipes by name, what it says of mistakes; predictions."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepnmf_jax import __main__ as program
from deepnmf_jax import load_pretrained, programs
from deepnmf_jax.training import prediction
from tests.programs import ROOT

RECIPE = str(ROOT / "configs" / "cnmf_1x1.py")


@pytest.fixture(autouse=True)
def _as_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process of the tests keeps its own answer to Ctrl-C."""
    monkeypatch.setattr(programs, "start_process", lambda: None)


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    program.main(arguments)
    return capsys.readouterr().out


def test_help_names_every_command_and_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    told = answer(capsys)
    assert told == answer(capsys, "--help")
    assert all(f"\n  deepnmf-jax {command} " in told for command in program.COMMANDS)
    listed = " ".join(told.partition("Recipes:")[2].partition(".\n")[0].split())
    assert set(listed.split(", ")) == set(programs.recipe_names())
    assert max(map(len, told.splitlines())) <= 100
    for command, flags in program.MODES.items():
        told = answer(capsys, command, "--help")
        assert re.findall(r"^  --(\w+): .+", told, re.M) == list(flags)
        assert "deepnmf_jax." not in told and "--mode" not in told


def test_a_mode_of_main_is_told_the_commands() -> None:
    for given in (["--mode=summary"], ["--mode", "summary"], ["-mode=train"]):
        with pytest.raises(SystemExit, match=r"--mode is main\.py's; .* are train, evaluate, tune, summary"):
            program.main(["train", "--config=cnn", *given])


def test_an_unknown_command_is_told_the_known_ones() -> None:
    with pytest.raises(SystemExit, match="there is no command 'fly'; there are train, evaluate"):
        program.main(["fly"])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--config=cnmf_1x1"], [f"--config={RECIPE}"]),
        (["--config", "cnmf_1x1.py"], ["--config", RECIPE]),
        (["-config=configs/cnmf_1x1.py:more"], [f"-config={RECIPE}:more"]),
        (["--config=mine.py", "--workdir=cnmf_1x1"], ["--config=mine.py", "--workdir=cnmf_1x1"]),
        (["--config=cnmf_1", "--config.model.width=2"], ["--config=cnmf_1", "--config.model.width=2"]),
    ],
)
def test_a_recipe_is_found_by_its_name(
    given: list[str], expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert program._with_paths(given) == expected


def test_a_file_that_is_there_comes_before_a_recipe_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cnmf_1x1.py").touch()
    assert programs.recipe_path("cnmf_1x1.py") == "cnmf_1x1.py"


def test_mistakes_name_recipes_in_place_of_files() -> None:
    for flags, start in (([], "--config=NAME or --config=FILE says"), (["--config=x"], "there is no config x.")):
        told = programs.mistake(["deepnmf-jax", *flags], None, programs.INSTALLED)
        assert told.startswith(start) and ", fast/cnmf_1x1, " in told
        assert told.endswith("deepnmf-jax train --config=quickstart --workdir=runs/quickstart")


def test_pictures_of_any_size_and_kind_are_read_as_the_network_sees_them(tmp_path: Path) -> None:
    trained = load_pretrained("cnmf_1x1")
    whole = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(whole).save(tmp_path / "same.png")
    np.testing.assert_array_equal(prediction.read_image(tmp_path / "same.png", trained), trained.prepare(whole))
    for mode, size in (("L", (50, 20)), ("RGBA", (28, 90)), ("P", (7, 7))):
        Image.new(mode, size).save(tmp_path / "other.png")
        assert prediction.read_image(tmp_path / "other.png", trained).shape == (1, 28, 28, 3)
    grey = trained._replace(image_shape=(24, 24, 1), results={"config": {"dataset": "mnist5k"}})
    assert prediction.read_image(tmp_path / "same.png", grey).shape == (1, 24, 24, 1)
    own = trained._replace(image_shape=(40, 30, 3), results={"config": {"dataset": "mine.npz"}})
    assert prediction.read_image(tmp_path / "same.png", own).shape == (1, 40, 30, 3)
    # Cropped from twice its size, and a picture of a camera that was turned.
    own = own._replace(image_shape=(16, 16, 3), results={"whole_shape": (32, 32, 3)})
    np.testing.assert_allclose(prediction.read_image(tmp_path / "same.png", own)[0], whole[8:24, 8:24] / 255, rtol=1e-6)
    turned = Image.Exif()
    turned[274] = 3  # by 180 degrees
    Image.fromarray(whole[::-1, ::-1]).save(tmp_path / "turned.png", exif=turned)
    np.testing.assert_array_equal(
        prediction.read_image(tmp_path / "turned.png", trained), prediction.read_image(tmp_path / "same.png", trained)
    )


def test_what_is_no_picture_or_for_no_picture_is_told(tmp_path: Path) -> None:
    trained = load_pretrained("cnmf_1x1")
    with pytest.raises(FileNotFoundError, match="none.png"):
        prediction.read_image(tmp_path / "none.png", trained)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match="text.png cannot be read as a picture"):
        prediction.read_image(tmp_path / "text.png", trained)
    # A decompression bomb, by what it says of its size.
    header = b"P6 20000 20000 255\n"
    (tmp_path / "bomb.ppm").write_bytes(header)
    with pytest.raises(ValueError, match="bomb.ppm cannot be read as a picture: Image size"):
        prediction.read_image(tmp_path / "bomb.ppm", trained)
    spectral = trained._replace(image_shape=(12, 12, 4), results={"whole_shape": (12, 12, 4)})
    with pytest.raises(ValueError, match="images of 4 channels"):
        prediction.read_image(tmp_path / "text.png", spectral)


@pytest.mark.slow
def test_predictions_are_the_networks_probabilities(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, colour in zip(paths, ("navy", "olive"), strict=True):
        Image.new("RGB", (40, 40), colour).save(path)
    assert prediction.main([*map(str, paths), "--checkpoint=pretrained:cnmf_1x1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    trained = load_pretrained("cnmf_1x1")
    images = np.concatenate([prediction.read_image(path, trained) for path in paths])
    found = prediction.predict(trained, images)
    logits = np.asarray(trained.model.apply(trained.variables, images))
    for row, line, path, expected in zip(found, lines, paths, logits, strict=True):
        names, shares = zip(*row, strict=True)
        assert set(names) == set(trained.class_names) and list(shares) == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert names[0] == trained.class_names[int(expected.argmax())]
        assert line.startswith(f"{path}: {names[0]} {shares[0]:.1%}, ") and len(re.findall("%", line)) == 3


def test_a_folder_without_a_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="has no config.json; give the workdir of a run, or pretrained:NAME"):
        prediction.load_trained(str(tmp_path))
    with pytest.raises(ValueError, match="there is no pretrained network 'x'"):
        prediction.main(["a.png", "--checkpoint=pretrained:x"])
