"""Notebooks of the site: a page of Markdown from the cells and their stored outputs; nothing is executed."""

import base64
from pathlib import Path
from typing import Any

import nbformat

FENCE = "~" * 6


def read(path: Path, name: str) -> tuple[str, dict[str, bytes]]:
    """The page of a notebook, and its pictures by file name; they begin with `name`.

    Raises:
        ValueError: an output of a kind that the page could not show.
    """
    pictures: dict[str, bytes] = {}
    parts: list[str] = []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(fenced(cell.source, "python"))
        parts += _texts_joined([_shown(output, name, pictures) for output in cell.outputs])
    return "\n\n".join(parts) + "\n", pictures


def _shown(output: Any, name: str, pictures: dict[str, bytes]) -> tuple[bool, str]:
    """Whether an output is text, and the text or the Markdown of the picture, which is added to `pictures`."""
    if output.output_type == "stream":
        return True, output.text
    if picture := output.get("data", {}).get("image/png"):
        file = f"{name}_{len(pictures) + 1}.png"
        pictures[file] = base64.b64decode(picture)
        return False, f"![Output of the cell above]({file})"
    if text := output.get("data", {}).get("text/plain"):
        return True, text
    raise ValueError(f"{name}: an output of type {output.output_type} with {list(output.get('data', {}))} has no page")


def _texts_joined(outputs: list[tuple[bool, str]]) -> list[str]:
    """A notebook stores what a cell prints in pieces; neighbouring ones become one block."""
    shown: list[str] = []
    text = ""
    for is_text, content in [*outputs, (False, "")]:
        if is_text:
            text += content
            continue
        shown += [fenced(text, "{.text .output}")] * bool(text) + [content] * bool(content)
        text = ""
    return shown


def fenced(code: str, language: str) -> str:
    """A block of code that may itself hold blocks of three backticks."""
    return f"{FENCE}{language}\n{code.rstrip()}\n{FENCE}"
