"""A process that builds and times programs of the PyTorch port: lines of JSON in, one line out for each.

{"do": "build", "name": ..., "spec": {...}, "limit": seconds}, {"do": "run", "name": ...}, {"do": "clear"}
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.speed.programs.training import PROGRAMS


def too_long(*_: Any) -> None:
    """What the alarm does."""
    raise TimeoutError("it was not ready in time")


def answer(order: dict[str, Any], programs: dict[str, Callable[[], None]]) -> str:
    """Does what a line asks; "ready", or the seconds of one run."""
    if order["do"] == "run":
        start = time.perf_counter()
        programs[order["name"]]()
        return str(time.perf_counter() - start)
    if order["do"] == "clear":
        programs.clear()
        if torch := sys.modules.get("torch"):
            torch.cuda.empty_cache()
        return "ready"
    signal.alarm(order["limit"])
    try:
        run = PROGRAMS[order["spec"].pop("program")](**order["spec"])
        for _ in range(2):
            run()
    finally:
        signal.alarm(0)
    programs[order["name"]] = run
    return "ready"


def main() -> None:
    """Says "ready", then answers each line; what fails answers with its reason."""
    signal.signal(signal.SIGALRM, too_long)
    # Nobody reads what a compiler says in passing, and a full pipe would stop it.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    programs: dict[str, Callable[[], None]] = {}
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            print(answer(json.loads(line), programs), flush=True)
        except Exception as error:
            print("failed:", " ".join(f"{type(error).__name__}: {error}".split())[-300:], flush=True)


if __name__ == "__main__":
    main()
