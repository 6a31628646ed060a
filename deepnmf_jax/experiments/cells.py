"""An experiment as a list of cells: each measured once, stored as it is done, and kept when the run is stopped.

A cell is the smallest part of an experiment that is not begun again after a kill: one network, one level, one seed. The
workdir gets results.json, with where its numbers are from, and after the last cell NAME.md, NAME.png and NAME.pdf.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from deepnmf_jax.experiments.tables import ROOT, as_json, cores, rounded
from deepnmf_jax.experiments.trials import settings_of
from deepnmf_jax.files import write_atomically
from deepnmf_jax.plotting import save
from deepnmf_jax.training.environment import environment
from deepnmf_jax.training.locks import locked, make_workdir
from deepnmf_jax.training.records import flatten

# Of the committed records, a folder an experiment.
FOLDER = ROOT / "docs" / "results"
# More than two machines agree in.
DIGITS = 6
# Where things lie on a machine says nothing of the result.
PLACES = ("data_dir",)
_log = logging.getLogger(__name__)

Record = dict[str, Any]


class Cell(NamedTuple):
    """name: in the record, one of its kind; measure: gives what JSON holds; cost: about, relative to other cells."""

    name: str
    measure: Callable[[], Any]
    cost: float = 1.0


def run_cells(
    config: Any,
    workdir: str | Path,
    cells: Sequence[Cell],
    table: Callable[[Record], str],
    draw: Callable[[Record], Figure],
    selecting: Sequence[str] = (),
) -> Record:
    """Measures the cells that the workdir does not have, in their order; writes the record, the table and the pictures.

    Args:
        config: of configs/experiments/NAME.py, its settings checked; `config.experiment` is NAME.
        workdir: folder, made if it is missing; locked meanwhile.
        cells: all that the config asks for.
        table: the record as Markdown.
        draw: the record as a picture.
        selecting: settings that only say which cells there are, such as a list of seeds. A later call may change them:
            it measures what is missing, and keeps the cells that it does not ask for.

    Returns:
        The record: "experiment", "command", "config", "seconds" in all, "cells" (what each gave, by name, floats with
        six digits), "seconds_of_cells", and what `environment()` says of the call that measured last.

    Raises:
        ValueError: two cells of one name, or a workdir that was measured with other settings.
        OSError: another process is using the workdir, or it cannot be written to.
    """
    names = [cell.name for cell in cells]
    if len(set(names)) < len(names):
        raise ValueError(f"two cells have one name: {sorted({n for n in names if names.count(n) > 1})}")
    workdir = make_workdir(workdir)
    with locked(workdir):
        path = workdir / "results.json"
        record = _record_of(config, path, selecting)
        missing = [cell for cell in cells if cell.name not in record["cells"]]
        _log.info("%d of %d cells are to be measured; files in %s", len(missing), len(cells), workdir)
        for cell, told in zip(missing, _progress(missing, len(cells)), strict=True):
            _log.info("%s", told)
            start = time.monotonic()
            result = cell.measure()
            seconds = time.monotonic() - start
            record["cells"][cell.name] = rounded(result, DIGITS)
            record["seconds_of_cells"][cell.name] = round(seconds, 1)
            record["seconds"] = round(record["seconds"] + seconds, 1)
            record |= environment()
            write_atomically(path, as_json(record))
        if not missing:  # a later call may ask for fewer cells
            write_atomically(path, as_json(record))
        name = config.experiment
        write_atomically(workdir / f"{name}.md", f"{table(record)}\n")
        figure = draw(record)
        for suffix in ("png", "pdf"):
            save(figure, workdir / f"{name}.{suffix}")
        _log.info("done; the table is %s, the picture %s", workdir / f"{name}.md", workdir / f"{name}.png")
    return record


def _record_of(config: Any, path: Path, selecting: Sequence[str]) -> Record:
    settings = json.loads(json.dumps({**config.to_dict(), **{place: "" for place in PLACES if place in config}}))
    record: Record = {"experiment": config.experiment, "seconds": 0.0, "cells": {}, "seconds_of_cells": {}}
    if path.exists():
        record = json.loads(path.read_text())
        was, now = ({k: v for k, v in s.items() if k not in selecting} for s in (record["config"], settings))
        if otherwise := sorted(key for key in was.keys() | now.keys() if was.get(key) != now.get(key)):
            told = "; ".join(f"{key} = {was.get(key)!r} there, {now.get(key)!r} now" for key in otherwise)
            raise ValueError(f"{path} was measured with other settings ({told}); choose another --workdir")
    return {**record, "command": command_of(settings), "config": settings}


def command_of(settings: Mapping[str, Any]) -> str:
    """The command line of an experiment with these settings, without its workdir and what is only of this machine."""
    file = f"configs/experiments/{settings['experiment']}"
    usual = settings_of(file.removeprefix("configs/"))
    changed = {key: value for key, value in flatten(dict(settings)).items() if value != usual.get(key)}
    flags = [f"--config.{key}={_as_flag(value)}" for key, value in sorted(changed.items()) if key not in PLACES]
    return " ".join(["python", "main.py", f"--config={file}.py", *flags])


def _as_flag(value: Any) -> str:
    # Flags want a tuple where JSON has a list.
    text = repr(_with_tuples(value)) if isinstance(value, list) else str(value)
    return f'"{text}"' if set(text) & set(" ()'") else text


def _with_tuples(value: Any) -> Any:
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def _progress(missing: Sequence[Cell], total: int) -> Any:
    """Before each missing cell: its number, its name and, after the first, about how long all that are left take."""
    start, whole, done = time.monotonic(), sum(cell.cost for cell in missing), 0.0
    for number, cell in enumerate(missing, start=total - len(missing) + 1):
        left = ""
        if done:
            minutes = (time.monotonic() - start) / done * (whole - done) / 60
            left = f"; about {minutes:.0f} min left" if minutes >= 1 else "; less than a minute left"
        yield f"{number} of {total}: {cell.name}{left}"
        done += cell.cost


def stored(experiment: str) -> Record | None:
    """The committed record of an experiment, docs/results/NAME/results.json; None: there is none yet."""
    path = FOLDER / experiment / "results.json"
    return json.loads(path.read_text()) if path.exists() else None


def source(record: Mapping[str, Any]) -> str:
    """Where the numbers of a record are from, in a line for the page that shows them."""
    on_cpu = record["device_backend"] == "cpu"
    device = f"{record['cpu']}, {cores(record['cpu_count'])}" if on_cpu else record["device"]
    return (
        f"`{record['command']}`; {record['seconds'] / 60:.0f} min on {device}; jax {record['versions']['jax']}; "
        f"{record['date'][:10]}"
    )


def on_page(experiment: str, write: Callable[[Record], str]) -> str:
    """What a page shows of an experiment: the source and the table of its committed record, or that there is none."""
    record = stored(experiment)
    return "Not run." if record is None else f"{source(record)}.\n\n{write(record)}"
