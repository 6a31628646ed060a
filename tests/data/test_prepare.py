import json
from pathlib import Path
from typing import ClassVar

import pytest

from deepnmf_jax.data import prepare as prepare_module
from deepnmf_jax.data.prepare import main, prepare
from deepnmf_jax.data.tfds import prepared_versions, resolve_data_dir


class StubBuilder:
    """Stands in for a TFDS builder: writes what TFDS writes last, instead of downloading."""

    calls: ClassVar[list[dict[str, str]]] = []

    def __init__(self, name: str, data_dir: str, file_format: str) -> None:
        self.data_dir = str(Path(data_dir) / name / "3.0.2")
        self.file_format = file_format
        self.calls.append({"name": name, "data_dir": data_dir, "file_format": file_format})

    def download_and_prepare(self) -> None:
        write_info(Path(self.data_dir), self.file_format)


def write_info(folder: Path, file_format: str | None) -> None:
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text(json.dumps({"fileFormat": file_format} if file_format else {}))


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> type[StubBuilder]:
    monkeypatch.setattr(StubBuilder, "calls", [])
    monkeypatch.setattr(prepare_module, "_tfds_builder", lambda: StubBuilder)
    return StubBuilder


def test_a_set_is_downloaded_once_and_as_array_record(tmp_path, builder, capsys):
    path = prepare("cifar10", tmp_path)
    assert path == tmp_path / "cifar10" / "3.0.2"
    assert builder.calls == [{"name": "cifar10", "data_dir": str(tmp_path), "file_format": "array_record"}]
    assert f"is prepared in {path}" in capsys.readouterr().out

    assert prepare("cifar10", tmp_path) == path
    assert len(builder.calls) == 1
    assert f"already prepared in {path}" in capsys.readouterr().out


def test_a_set_that_lies_there_as_tfrecord_is_not_touched(tmp_path, builder):
    write_info(tmp_path / "mnist" / "3.0.1", "tfrecord")
    with pytest.raises(FileExistsError, match="holds mnist as tfrecord"):
        prepare("mnist", tmp_path)
    assert builder.calls == []


def test_an_unknown_name_is_refused_with_the_list(tmp_path, builder, capsys):
    with pytest.raises(ValueError, match="'imagenet'; cifar10, cifar100, fashion_mnist, mnist"):
        prepare("imagenet", tmp_path)
    assert builder.calls == []
    with pytest.raises(SystemExit) as stopped:
        main(["imagenet"])
    assert stopped.value.code == 2
    assert "cifar100" in capsys.readouterr().err


def test_the_command_line_reaches_the_builder(tmp_path, builder):
    assert main(["fashion_mnist", f"--data_dir={tmp_path}"]) == 0
    assert builder.calls[0]["name"] == "fashion_mnist"
    assert builder.calls[0]["data_dir"] == str(tmp_path)


def test_a_failed_download_is_a_message_and_a_status(tmp_path, builder, monkeypatch, capsys):
    def fail(self: StubBuilder) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(builder, "download_and_prepare", fail)
    assert main(["mnist", f"--data_dir={tmp_path}"]) == 1
    assert "mnist could not be prepared: no route to host" in capsys.readouterr().err


def test_without_tensorflow_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorflow", None)
    with pytest.raises(ImportError, match="make data DATASET"):
        prepare("mnist", tmp_path)


def test_versions_are_found_newest_first_and_cut_off_ones_are_not(tmp_path):
    for version, file_format in (("3.0.2", "array_record"), ("3.0.10", None), ("2.9.9", "riegeli")):
        write_info(tmp_path / "mnist" / version, file_format)
    write_info(tmp_path / "mnist" / "incomplete.AB12_3.1.0", "array_record")
    found = [(folder.name, kind) for folder, kind in prepared_versions("mnist", tmp_path).items()]
    assert found == [("3.0.10", "tfrecord"), ("3.0.2", "array_record"), ("2.9.9", "riegeli")]
    assert prepared_versions("cifar10", tmp_path) == {}


def test_the_folder_is_the_argument_then_the_environment_then_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    assert resolve_data_dir() == tmp_path / "tensorflow_datasets"
    monkeypatch.setenv("TFDS_DATA_DIR", "/somewhere")
    assert resolve_data_dir() == Path("/somewhere")
    assert resolve_data_dir("~/mine") == tmp_path / "mine"


@pytest.mark.parametrize("text", ["", "[]", '{"fileFormat"'])
def test_a_damaged_description_of_a_set_is_named(tmp_path, text):
    (tmp_path / "cifar10" / "3.0.2").mkdir(parents=True)
    (tmp_path / "cifar10" / "3.0.2" / "dataset_info.json").write_text(text)
    with pytest.raises(ValueError, match=r"dataset_info.json is damaged .*; remove .*3.0.2 and prepare the set anew"):
        prepared_versions("cifar10", tmp_path)
