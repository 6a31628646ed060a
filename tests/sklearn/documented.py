"""What docs/migrating.md says of scikit-learn's tests and checks that fail: the tests hold it to what fails."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "migrating.md"


def failures(heading: str) -> dict[str, str]:
    """Names (patterns) in the first column of the table under a heading of the page, with the reason beside them."""
    section = PAGE.read_text(encoding="utf-8").split(f"### {heading}\n")[1].split("\n#")[0]
    rows = re.findall(r"^\| (`.+?) \| (.+) \|$", section, re.MULTILINE)
    return {name: reason for names, reason in rows for name in re.findall(r"`(\S+?)`", names)}
