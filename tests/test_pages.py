"""The tables of README.md and of docs/ are those that docs/pages.py writes from the committed records."""

import subprocess
import sys
from pathlib import Path

import pytest

from deepnmf_jax.experiments.tables import render, table
from docs import pages

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("page", pages.pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_is_the_one_written_from_the_records(page: Path) -> None:
    assert render(page.read_text(), pages.TABLES) == page.read_text()


def test_no_two_tables_have_one_name() -> None:
    assert len(pages.TABLES) == sum(map(len, pages.SOURCES))


def test_parts_of_a_page_are_written_anew() -> None:
    page = "a\n<!-- one -->\nold\n<!-- end -->\nb `<!-- two -->`\n<!-- two -->\n<!-- end -->\nc"
    expected = "a\n<!-- one -->\n1\n<!-- end -->\nb `<!-- two -->`\n<!-- two -->\n2\n<!-- end -->\nc"
    assert render(page, {"one": lambda: "1", "two": lambda: "2"}) == expected
    assert table([("x", 1)], ("a", "b")) == "| a | b |\n| --- | --- |\n| x | 1 |"


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("<!-- three -->\n<!-- end -->", "there is no table three; there are one"),
        ("<!-- one -->\nnever ended", "parts begin with <!-- name --> and end"),
        ("<!-- one -->\n<!-- one -->\n<!-- end -->", "parts begin with"),
        ("<!-- end -->", "parts begin with"),
    ],
)
def test_a_part_that_cannot_be_written_is_an_error(page: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render(page, {"one": lambda: "1"})


def test_the_command_writes_the_pages_and_names_the_one_that_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- counts -->\n<!-- end -->\n")
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    monkeypatch.setattr(pages, "pages", lambda: [page])
    pages.main()
    assert page.read_text() == f"<!-- counts -->\n{pages.TABLES['counts']()}\n<!-- end -->\n"
    assert capsys.readouterr().out == "page.md is written anew\n"
    pages.main()
    assert capsys.readouterr().out == ""
    page.write_text("<!-- three -->\n<!-- end -->\n")
    with pytest.raises(SystemExit, match=r"page\.md: there is no table three"):
        pages.main()


@pytest.mark.slow
def test_the_command_finds_what_it_imports_from_anywhere(tmp_path: Path) -> None:
    read = f"import runpy; print(len(runpy.run_path({str(ROOT / 'docs' / 'pages.py')!r})['TABLES']))"
    done = subprocess.run([sys.executable, "-c", read], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == f"{len(pages.TABLES)}\n", done.stderr
