"""The documentation: its examples run, every public name has an entry and an example, and the site's hooks work."""

import ast
import builtins
import doctest
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from configs import base
from docs.hooks import notebooks, reference

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
REFERENCE = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "api").glob("*.md")}
ENTRY = re.compile(r"^::: (\S+)$", re.MULTILINE)
BLOCK = re.compile(r"^(?P<note><!-- not run: .+ -->\n+)?```(?P<kind>python|pycon)\n(?P<code>.*?)^```$", re.M | re.S)
NAMES = list(reference.public_names(ROOT))


def found(name: str) -> Any:
    """The object of a full name, imported as a user would."""
    module, _, rest = name.rpartition(".")
    return getattr(importlib.import_module(module), rest)


def blocks(kind: str) -> list[Any]:
    """Page, line and code of every block that is to be run."""
    cases = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in BLOCK.finditer(text):
            if block["kind"] == kind and not block["note"]:
                line = text.count("\n", 0, block.start("code")) + 1
                name = f"{page.relative_to(ROOT)}:{line}"
                cases.append(pytest.param(name, block["code"], id=name))
    return cases


def check_examples(text: str, name: str) -> None:
    """Runs what stands behind >>> and compares what it prints."""
    test = doctest.DocTestParser().get_doctest(text, {"__name__": "__main__"}, name, name, 0)
    report: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=report.append)
    assert result.attempted > 0
    assert result.failed == 0, "".join(report)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), blocks("python"))
def test_each_program_of_the_pages_runs_by_itself(
    name: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # some write files
    exec(compile(code, name, "exec"), {"__name__": "__main__"})


def unbound(code: str) -> set[str]:
    """Names that a program uses without importing or making them."""
    nodes = list(ast.walk(ast.parse(code)))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    bound = {node.id for node in names if not isinstance(node.ctx, ast.Load)} | set(dir(builtins))
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    bound |= {str(node.name) for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.ExceptHandler)}
    imported = [alias for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names]
    return {node.id for node in names} - bound - {alias.asname or alias.name.split(".")[0] for alias in imported}


def test_each_block_of_the_pages_imports_and_makes_what_it_uses() -> None:
    """Those that are not run, too, and without what a block before it, or another test, has left behind."""
    missing = {}
    for page in PAGES:
        for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
            examples = doctest.DocTestParser().get_examples(block["code"]) if block["kind"] == "pycon" else []
            names = unbound("".join(example.source for example in examples) or block["code"])
            if names:
                missing[f"{page.relative_to(ROOT)}: {block['code'][:60]}"] = names
    assert missing == {}
    assert unbound("import a.b\nfrom c import d\na.b(d, e, print)") == {"e"}


DOCSTRINGS = {name: text for name in NAMES if ">>>" in (text := found(name).__doc__ or "")}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "text"), [*blocks("pycon"), *DOCSTRINGS.items()])
def test_each_example_gives_what_it_says(name: str, text: str) -> None:
    check_examples(text, name)


@pytest.mark.parametrize("name", NAMES)
def test_each_public_name_has_an_entry_and_an_example(name: str) -> None:
    pages = [text for text in REFERENCE.values() if any(found(entry) is found(name) for entry in ENTRY.findall(text))]
    assert pages, f"no page of docs/api has an entry for it (::: {name})"
    examples = [block["code"] for text in pages for block in BLOCK.finditer(text) if block["kind"] == "pycon"]
    word = re.compile(rf"\b{re.escape(name.rpartition('.')[2])}\b")
    assert name in DOCSTRINGS or any(word.search(code) for code in examples), "neither its page nor it has an example"


def test_the_settings_of_the_reference_are_those_of_the_base() -> None:
    listed = re.findall(r"^- \*\*`([\w.]+)`\*\* \(`(.+?)`\) – \S", reference.settings(ROOT), re.MULTILINE)
    config = base.get_config()

    def value(name: str) -> Any:
        setting = config
        for part in name.split("."):
            setting = setting[part]
        return setting.to_dict() if hasattr(setting, "to_dict") else setting

    assert {name: ast.literal_eval(text) for name, text in listed} == {name: value(name) for name, _ in listed}
    covered = {name for name, _ in listed}
    leaves = [name for name in flat(config.to_dict()) if not {name, name.rpartition(".")[0]} & covered]
    assert leaves == []


def flat(settings: dict[str, Any], before: str = "") -> list[str]:
    names = []
    for name, value in settings.items():
        names += flat(value, f"{before}{name}.") if isinstance(value, dict) else [f"{before}{name}"]
    return names


def test_a_setting_without_a_comment_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    text = (ROOT / "configs" / "base.py").read_text(encoding="utf-8")
    (tmp_path / "configs" / "base.py").write_text(re.sub(r'("batch_size": \d+,) *#.*', r"\1", text))
    with pytest.raises(ValueError, match="batch_size has no comment"):
        reference.settings(tmp_path)


def test_the_flags_of_the_reference_are_those_of_the_program() -> None:
    from deepnmf_jax import command_line

    defined = {flag.name for flag in command_line.FLAGS.flags_by_module_dict()[command_line.__name__]}
    listed = re.findall(r"^- \*\*`--(\w+)`\*\*", reference.flags(ROOT), re.MULTILINE)
    assert set(listed) == {name for name in defined if not name.startswith("config")} | {"config"}


def test_the_commands_of_the_reference_are_those_of_make() -> None:
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert re.findall(r"`make ([\w-]+)`", reference.targets(ROOT)) and sorted(
        re.findall(r"^\| `make ([\w-]+)`", reference.targets(ROOT), re.MULTILINE)
    ) == sorted(phony.split())


def test_a_notebook_becomes_a_page_with_all_of_its_outputs() -> None:
    path = ROOT / "colabs" / "dictionary_learning.ipynb"
    notebook = nbformat.read(path, as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    page, pictures = notebooks.read(path, "concepts")
    shown = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(shown) == len(pictures) == page.count("![Output of the cell above](concepts_") > 0
    assert all(output.text.rstrip() in page for output in outputs if output.output_type == "stream")


def test_an_output_that_no_page_can_show_is_an_error(tmp_path: Path) -> None:
    cell = nbformat.v4.new_code_cell("1", outputs=[nbformat.v4.new_output("display_data", {"text/latex": "1"})])
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "odd.ipynb")
    with pytest.raises(ValueError, match="display_data with .'text/latex'. has no page"):
        notebooks.read(tmp_path / "odd.ipynb", "odd")


# The site, in small: the repository's own hooks and settings around two pages and a package of four names.
PACKAGE = '''"""A package."""

from deepnmf_jax.layers import Layer

__all__ = ["Layer"{more}]


def {function}(x: int) -> int:
    """Twice x.

    Args:
        {argument}: a number.
    """
    return 2 * x
'''
LAYERS = '"""Layers."""\n\n__all__ = ["Layer"]\n\n\nclass Layer:\n    """A layer, $h = x w$."""\n'
PAGE = """# A page

A formula, $R_s = \\sum_i h_i w_{{is}}$, a price of $5 and $6, and `$code$`.

$$
{formula}
$$

[The base](../configs/base.py), [a notebook](../colabs/small.ipynb), [below]({anchor}), [a folder](../configs).

{more}

## Entries {{#entries}}

::: deepnmf_jax.layers.Layer
::: deepnmf_jax.twice
"""
NOTEBOOK = """{"cells": [{"cell_type": "code", "execution_count": 1, "id": "a", "metadata": {}, "source": "print(1)",
"outputs": [{"name": "stdout", "output_type": "stream", "text": "1"}]}], "metadata": {}, "nbformat": 4,
"nbformat_minor": 5}"""


def build(root: Path, page: str, package: str) -> subprocess.CompletedProcess[str]:
    shutil.copytree(ROOT / "docs" / "hooks", root / "docs" / "hooks", ignore=shutil.ignore_patterns("__pycache__"))
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    start, end = settings.index("nav:\n"), settings.index("exclude_docs:")
    files = {
        "mkdocs.yml": settings[:start] + settings[end:],
        "docs/index.md": page,
        "docs/assets/site.css": "",
        "deepnmf_jax/__init__.py": package,
        "deepnmf_jax/layers.py": LAYERS,
        "colabs/small.ipynb": NOTEBOOK,
        "configs/base.py": '"""The base."""\n',
        "CONTRIBUTING.md": "# Contributing\n\n[The base](configs/base.py)\n",
        "CHANGELOG.md": "# Changes\n",
    }
    for module in ("models", "nnx", "training", "decomposition", "sklearn"):
        files[f"deepnmf_jax/{module}.py"] = ""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "mkdocs", "build"]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_a_page_of_the_site(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the extra docs builds the site")
    page = PAGE.format(formula=r"\frac{x_s}{R_s}", anchor="#entries", more="")
    done = build(tmp_path, page, PACKAGE.format(more="", function="twice", argument="x"))
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    site = tmp_path / "site"
    html = (site / "index.html").read_text(encoding="utf-8")
    assert html.count("<math") == 3 and '<math display="block"><mfrac>' in html  # one of them in a docstring
    assert "a price of $5 and $6" in html and "<code>$code$</code>" in html
    for link in ("source/configs/base.py.html", "notebooks/small.html", "source/configs.html"):
        assert f'href="{link}"' in html
    assert "<pre" in (site / "notebooks/small.html").read_text(encoding="utf-8")
    assert 'href="../source/configs/base.py.html"' in (site / "develop/contributing.html").read_text(encoding="utf-8")


FAULTS = {
    "[gone](gone.md)": "contains a link 'gone.md', but the target is not found",
    "[gone](../configs/gone.py)": "contains a link '../configs/gone.py', but the target",
    "![](assets/site.css)": "has no alt text",
    "![badge](https://example.org/badge.svg)": "is fetched from elsewhere",
    '<img src="gone.png" alt="a picture">': "gone.png leads to no file of the site",
}


@pytest.mark.slow
def test_what_is_wrong_stops_the_site(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the extra docs builds the site")
    page = PAGE.format(formula=r"\unheard", anchor="#nowhere", more="\n\n".join(FAULTS))
    done = build(tmp_path, page, PACKAGE.format(more=', "forgotten"', function="twice", argument="y"))
    assert done.returncode != 0
    output = " ".join((done.stdout + done.stderr).split())
    others = [
        'Unknown command "\\unheard"',
        "contains a link '#nowhere', but there is no such anchor",
        "deepnmf_jax.forgotten is public, but no page of docs/api has an entry for it",
        "Parameter 'y' does not appear in the function signature",
    ]
    assert [fault for fault in [*FAULTS.values(), *others] if fault not in output] == [], output
