"""The script of the attacks counts what it sees; the attacks themselves are `make attack`."""

import random
import shutil
from pathlib import Path

import pytest

from docs import attacks as tables
from tests.attacks.__main__ import count
from tests.attacks.damages import DAMAGES
from tests.attacks.growth import judged, measure
from tests.attacks.kills import MOMENT, PLACES
from tests.attacks.laboratory import TookTooLongError, Verdict, judge
from tests.programs import found_at


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
    verdicts = [Verdict("right", "a", "x:y"), Verdict("wrong", "b"), Verdict("refused", "c"), Verdict("right", "d")]
    found = count([("kills", verdicts), ("flips", verdicts[:1])], 60, said.append)
    assert found["kinds"]["kills"] == {"right": 2, "refused": 1, "wrong": 1}
    assert said[0] == "WRONG: kills: b"
    assert tables.attacks_table({**tables.source("command"), **found}).splitlines()[-5:] == [
        "| kills | 4 | 2 | 1 | 1 |",
        "| flips | 1 | 1 | 0 | 0 |",
        "| together | 5 | 3 | 1 | 1 |",
        "",
        "Where the kills struck, and how often: x.y 2.",
    ]


@pytest.mark.parametrize("place", PLACES)
def test_places_of_kills_are_there(place: str) -> None:
    """A name that is gone would end each run that is to be killed there, before it is."""
    owner, name = found_at(place)
    assert callable(getattr(owner, name))


def test_the_committed_counts() -> None:
    """What is promised: every attack in its full number, kills in all phases, and nothing wrong."""
    record = tables.read(tables.ATTACKS)
    assert {kind: sum(row.values()) for kind, row in record["kinds"].items()} == {
        "kills": 100, "power cuts": 60, "flipped bytes": 200, "cuts": 40, "zero tails": 40, "lost files": 40,
        "lines": 20, "hostile files": 42,
    }  # fmt: skip
    assert record["struck"].keys() == {*PLACES, MOMENT}
    assert not any(row["wrong"] for row in record["kinds"].values())


def test_growth_is_measured_and_judged() -> None:
    found = measure("infer", 1, minutes=1)
    assert found.shapes == 1
    assert found.megabytes > 50
    assert judged("infer", found._replace(megabytes=900, mappings=20_000)).word == "right"
    for bad in (found._replace(megabytes=2000), found._replace(megabytes=900, mappings=60_000), "status -6"):
        assert judged("infer", bad).word == "wrong"
    for last, word in ((325, "right"), (340, "wrong")):
        run = found._replace(megabytes=340, course=[[1, 200, 700], [50, 320, 800], [100, last, 800]])
        assert judged("epochs", run).word == word


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
