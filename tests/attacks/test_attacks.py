"""The script of the attacks counts what it sees; the attacks themselves are `make attack`."""

import random
import shutil
from pathlib import Path

import pytest

from tests.attacks.__main__ import count, markdown
from tests.attacks.damages import DAMAGES
from tests.attacks.growth import judged, measure
from tests.attacks.laboratory import TookTooLongError, Verdict, judge


def test_verdicts() -> None:
    def fail(error: BaseException) -> bool:
        raise error

    for word, call in (
        ("right", lambda: True),
        ("wrong", lambda: False),
        ("refused", lambda: fail(ValueError("in words"))),
        ("refused", lambda: fail(OSError("in words"))),
        ("wrong", lambda: fail(TypeError("no words"))),
        ("wrong", lambda: fail(TookTooLongError())),
    ):
        assert judge("it", lambda: True, call).word == word
    # Another result is wrong although something else was refused.
    assert judge("it", lambda: fail(ValueError()), lambda: False).word == "wrong"


def test_what_is_wrong_is_said_and_counted() -> None:
    said: list[str] = []
    verdicts = [Verdict("right", "a"), Verdict("wrong", "b"), Verdict("refused", "c"), Verdict("right", "d")]
    table = count([("kills", verdicts), ("flips", verdicts[:1])], 60, said.append)
    assert table["kills"] == {"right": 2, "refused": 1, "wrong": 1}
    assert said[0] == "WRONG: kills: b"
    assert markdown(table, "command").splitlines()[-3:] == [
        "| kills | 4 | 2 | 1 | 1 |",
        "| flips | 1 | 1 | 0 | 0 |",
        "| together | 5 | 3 | 1 | 1 |",
    ]


def test_growth_is_measured_and_judged() -> None:
    found = measure("infer", 1, minutes=1)
    assert found.shapes == 1
    assert found.megabytes > 50
    assert judged("infer", found._replace(megabytes=900, mappings=20_000)).word == "right"
    for bad in (found._replace(megabytes=2000), found._replace(megabytes=900, mappings=60_000), "status -6"):
        assert judged("infer", bad).word == "wrong"


@pytest.mark.parametrize("name", DAMAGES)
def test_each_damage_damages(tmp_path: Path, name: str) -> None:
    """One place of a copy, and says which; the same one for the same seed."""
    base = Path(__file__).parents[1] / "training" / "old_workdir"

    def content(folder: Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    for seed in range(5):
        found = []
        for copy in (tmp_path / "one", tmp_path / "two"):
            shutil.copytree(base, copy)
            said = DAMAGES[name](copy, random.Random(seed))
            found.append((said, content(copy)))
            shutil.rmtree(copy)
        assert found[0] == found[1]
        said, damaged = found[0]
        before = content(base)
        differing = {name for name in before if damaged.get(name) != before[name]}
        assert all(name in said or said.partition(" ")[0] in name for name in differing)
        assert damaged.keys() <= before.keys()
        if name in ("flipped bytes", "lost files"):
            assert differing
