"""The reference of the site: tables made from the files that say it (settings, flags, make), and no name left out.

A page of docs/api says where a table goes by a comment, `<!-- table: settings -->`.
"""

import ast
import io
import logging
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# As mkdocs names it; the tests read this file where mkdocs is not installed.
log = logging.getLogger("mkdocs.plugins.reference")

MARK = re.compile(r"^<!-- table: (\w+) -->$", re.MULTILINE)
# Modules all of whose public names have an entry; where a module has no `__all__`, its classes and functions.
PUBLIC = tuple(
    f"deepnmf_jax{room}" for room in ("", ".layers", ".models", ".nnx", ".training", ".decomposition", ".sklearn")
)


def public_names(root: Path) -> Iterator[str]:
    """Full names of all that users may import, in the files' order."""
    for module in PUBLIC:
        path = root / module.replace(".", "/")
        tree = ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text("utf-8"))
        listed = [node.value for node in tree.body if isinstance(node, ast.Assign) and _names(node) == ["__all__"]]
        if listed:
            names = ast.literal_eval(listed[0])
        else:
            names = [node.name for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
        yield from (f"{module}.{name}" for name in names if not name.startswith("_") or name == "__version__")


def _names(node: ast.Assign) -> list[str]:
    return [target.id for target in node.targets if isinstance(target, ast.Name)]


def settings(root: Path) -> str:
    """Every key of configs/base.py with its value and its comment there, one list a group.

    Raises:
        ValueError: a key without a comment.
    """
    base = Commented((root / "configs/base.py").read_text("utf-8"))
    (config,) = [
        node.value for node in base.tree.body if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "BASE"
    ]
    assert isinstance(config, ast.Dict)
    parts = []
    for group, about, rows in _groups(base, config, "", ""):
        parts += [f"## {f'`{group}`' if group else 'The run'}", f"{about}." if about else ""]
        parts.append("\n".join(f"- **`{name}`** (`{value}`) – {text}" for name, value, text in rows))
    return "\n\n".join(part for part in parts if part)


def _groups(base: "Commented", node: ast.Dict, group: str, about: str) -> Iterator[tuple[str, str, list[Any]]]:
    """Name, comment and rows (name, value, comment) of a dictionary, then of those within it."""
    rows, inner = [], []
    keys = [(ast.literal_eval(key), key, value) for key, value in zip(node.keys, node.values, strict=True) if key]
    ends = [key.lineno for _, key, _ in keys[1:]] + [node.end_lineno or 0]
    for (name, key, value), end in zip(keys, ends, strict=True):
        full = f"{group}.{name}" if group else name
        if isinstance(value, ast.Dict) and value.keys[0] and value.keys[0].lineno > key.lineno:
            inner.append((value, full, base.comment(key.lineno, key.lineno + 1)))
        elif text := base.comment(key.lineno, end):
            rows.append((full, ast.get_source_segment(base.source, value), text))
        else:
            raise ValueError(f"configs/base.py: {full} has no comment, and so no meaning in the reference")
    yield group, about, rows
    for value, full, text in inner:
        yield from _groups(base, value, full, text)


class Commented:
    """A source and its comments by line."""

    def __init__(self, source: str) -> None:
        self.source, self.tree = source, ast.parse(source)
        tokens = [t for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type == tokenize.COMMENT]
        self._comments = {token.start[0]: token.string.removeprefix("#").strip() for token in tokens}
        self._alone = {token.start[0] for token in tokens if token.line.lstrip().startswith("#")}

    def comment(self, line: int, end: int) -> str:
        """Of what begins at a line and ends before another: beside it and below it, or else above it."""
        found = [self._comments[i] for i in range(line, end) if i in self._comments]
        beside = [i for i in range(line, end) if i in self._comments and i not in self._alone]
        if beside:
            return " ".join(found)
        above: list[str] = []
        while line - 1 in self._alone:
            line -= 1
            above.insert(0, self._comments[line])
        return " ".join(above)


def flags(root: Path) -> str:
    """The flags of main.py and of `deepnmf-jax`."""
    rows = []
    for node in ast.walk(ast.parse((root / "deepnmf_jax/command_line.py").read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr.startswith("DEFINE_"):
            name, default, *rest = [ast.literal_eval(argument) for argument in node.args]
            choices = f" One of {', '.join(f'`{choice}`' for choice in rest[0])}." if len(rest) > 1 else ""
            value = f" (`{default}`)" if default else ""
            rows.append(f"- **`--{name}`**{value} – {rest[-1]}{choices}")
    return "\n".join(rows)


def targets(root: Path) -> str:
    """What make does, as `make help` says it."""
    found = re.findall(r"^([a-z-]+):.*?## (.*)$", (root / "Makefile").read_text("utf-8"), re.MULTILINE)
    rows = [f"| `make {name}` | {text.replace('|', '&#124;')} |" for name, text in found]
    return "\n".join(["| command | what it does |", "| --- | --- |", *rows])


TABLES = {"settings": settings, "flags": flags, "targets": targets}


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Put the tables where the page asks for them."""
    root = Path(config.config_file_path).parent
    return MARK.sub(lambda found: TABLES[found[1]](root), markdown)


def on_env(env: Any, config: Any, **_: Any) -> None:
    """All pages have been read: every public name must have been among their entries."""
    entries = config.plugins["autorefs"]
    for name in public_names(Path(config.config_file_path).parent):
        try:
            entries.get_item_url(name)
        except KeyError:
            log.warning(f"{name} is public, but no page of docs/api has an entry for it (::: {name})")
