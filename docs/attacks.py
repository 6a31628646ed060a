"""The records of the attacks and of growth, and their tables in docs/develop/attacks.md, which docs/pages.py writes."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepnmf_jax.experiments.tables import ROOT, as_json, table
from deepnmf_jax.files import write_atomically

FOLDER = ROOT / "docs" / "results" / "attacks"
ATTACKS, GROWTH = FOLDER / "attacks.json", FOLDER / "growth.json"
WORDS = ("right", "refused", "wrong")
# The epoch by which a run holds what it needs.
SETTLED = 50


def source(command: str) -> dict[str, Any]:
    """Where numbers are from."""
    from deepnmf_jax.training.environment import environment

    found = environment()
    kept = {key: found[key] for key in ("versions", "commit", "cpu", "cpu_count")}
    return {"command": command, "date": time.strftime("%Y-%m-%d", time.gmtime()), **kept}


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Keeps a record."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, as_json(record))


def read(path: Path) -> dict[str, Any]:
    """A record that was kept."""
    return dict(json.loads(path.read_text()))


def provenance(record: Mapping[str, Any]) -> str:
    """The command, the day, the machine."""
    machine = f"{record['cpu']}, {record['cpu_count']} cores shared with other work, jax {record['versions']['jax']}"
    return f"`{record['command']}`, {record['date']}, {machine}"


def attacks_table(record: Mapping[str, Any]) -> str:
    """Verdicts by kind of attack, and where the kills struck."""
    kinds = record["kinds"]
    together = {word: sum(row[word] for row in kinds.values()) for word in WORDS}
    rows = [
        (kind, sum(row.values()), *(row[word] for word in WORDS))
        for kind, row in (*kinds.items(), ("together", together))
    ]
    struck = ", ".join(f"{place.replace(':', '.')} {times}" for place, times in record["struck"].items())
    where = f"\n\nWhere the kills struck, and how often: {struck}." if struck else ""
    return f"{provenance(record)}:\n\n{table(rows, ('attack', 'tried', *WORDS))}{where}"


NAMES = {
    "fits": "`NMF.fit`",
    "other fits": "`fit` of the other estimators",
    "codes": "`encode` and `decode`",
    "batches": "`partial_fit`",
    "choose_k": "`choose_k`",
    "infer": "`infer`",
    "layers": "`NMFConv` outside of jit",
    "epochs": "epochs of training",
}


def add_growth(found: Mapping[str, Mapping[str, Any]], command: str) -> None:
    """Keeps what was found of each kind in place of what was there."""
    record = read(GROWTH) if GROWTH.exists() else {}
    kinds = {**record.get("kinds", {}), **found}
    write(GROWTH, {**source(command), "kinds": kinds})


def growth_table(record: Mapping[str, Any]) -> str:
    """Of each kind the shapes and the most memory; of the epochs, in a sentence, how both went on from epoch 50."""
    rows = []
    for kind, name in NAMES.items():
        found = record["kinds"][kind]
        seconds = found["seconds"] / found["shapes"]
        rows.append((name, *(found[key] for key in ("shapes", "megabytes", "mappings", "given_up")), f"{seconds:.2g}"))
    head = ("what", "shapes", "most memory (MB)", "most mappings", "given up", "seconds each")
    first, *later = (point for point in record["kinds"]["epochs"]["course"] if point[0] >= SETTLED)
    most, mappings = (max(point[i] for point in later) for i in (1, 2))
    grown = (
        f"The run held {first[1]} MB and {first[2]} mappings after epoch {first[0]}, and at most {most} MB "
        f"({100 * (most / first[1] - 1):.1f} % more) and {mappings} mappings until epoch {later[-1][0]}."
    )
    return f"{provenance(record)}:\n\n{table(rows, head)}\n\n{grown}"
