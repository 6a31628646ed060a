"""Tables in Markdown, and the pages that hold them."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def table(rows: Sequence[Sequence[Any]], head: Sequence[str]) -> str:
    """Rows as a Markdown table."""
    lines = [[str(c) for c in row] for row in (head, ["---"] * len(head), *rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def render(page: str, tables: Mapping[str, Callable[[], str]]) -> str:
    """The page with each part between `<!-- name -->` and `<!-- end -->` written anew."""

    def part(match: re.Match) -> str:
        return f"<!-- {match[1]} -->\n{tables[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- (\w+) -->\n.*?<!-- end -->", part, page, flags=re.DOTALL)
