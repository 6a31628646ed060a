"""Records as JSON, tables in Markdown, and the pages that hold them. `python docs/pages.py` writes all pages."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
_MARK = re.compile(r"^<!-- (\w+) -->$", re.MULTILINE)

# A list in indented JSON that holds no other list or mapping.
_INNERMOST = re.compile(r"\[\s+([^\[\]{}]*?)\s+\]")


def as_json(record: Any, digits: int | None = None) -> str:
    """A record as indented JSON whose lists of numbers stand in one line each; floats with so many digits, or all.

    numpy's numbers are taken too.
    """
    text = json.dumps(rounded(record, digits) if digits else record, indent=1, default=float)
    return _INNERMOST.sub(lambda match: "[" + re.sub(r"\s*\n\s*", " ", match[1]) + "]", text) + "\n"


def rounded(record: Any, digits: int) -> Any:
    """A record as JSON holds it, its floats with so many digits."""
    text = json.dumps(record, default=float)
    return json.loads(text, parse_float=lambda number: float(f"{float(number):.{digits}g}"))


def table(rows: Sequence[Sequence[Any]], head: Sequence[str]) -> str:
    """Rows as a Markdown table."""
    lines = [[str(c) for c in row] for row in (head, ["---"] * len(head), *rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def mean_and_deviation(values: Sequence[float] | np.ndarray, digits: int = 1) -> str:
    """The mean of a sample and its deviation, "80.0 ± 0.3"; of one value that value."""
    mean = f"{np.mean(values):.{digits}f}"
    return f"{mean} ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else mean


def cores(count: int) -> str:
    """The number of cores in words: "1 core", "2 cores"."""
    return f"{count} core{'s' * (count != 1)}"


def loss_and_accuracy(epoch: Mapping[str, float]) -> str:
    """Of one epoch the loss on the training images and the accuracy on the validation images, for a cell of a table."""
    return f"{epoch['train_loss']:.3f}, {100 * epoch['validation_accuracy']:.1f} %"


def render(page: str, tables: Mapping[str, Callable[[], str]]) -> str:
    """The page with each part between the lines `<!-- name -->` and `<!-- end -->` written anew.

    Raises:
        ValueError: a name that no table has, or parts that do not begin with a name and end with "end" in turn.
    """
    marks = _MARK.findall(page)
    names = marks[::2]
    if marks != [mark for name in names for mark in (name, "end")] or "end" in names:
        raise ValueError(f"parts begin with <!-- name --> and end with <!-- end -->, but there are {', '.join(marks)}")
    if unknown := sorted(set(names) - tables.keys()):
        raise ValueError(f"there is no table {', '.join(unknown)}; there are {', '.join(sorted(tables))}")

    def part(match: re.Match) -> str:
        return f"<!-- {match[1]} -->\n{tables[match[1]]()}\n<!-- end -->"

    return re.sub(rf"{_MARK.pattern}\n.*?^<!-- end -->$", part, page, flags=re.DOTALL | re.MULTILINE)
