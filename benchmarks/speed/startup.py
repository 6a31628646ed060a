"""How long until the first training step, at the first start and with the compiled programs on disk?

python -m benchmarks.speed.startup
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, arguments, write
from deepnmf_jax.experiments.tables import table
from deepnmf_jax.programs import run


def first_step(cache: Path, settings: Sequence[str]) -> float:
    """Seconds from the start of main.py to the checkpoint after its first step, in a new workdir."""
    with tempfile.TemporaryDirectory() as workdir:
        started = time.perf_counter()
        command = [sys.executable, "main.py", "--config=configs/quickstart.py", f"--workdir={workdir}/run"]
        command += [f"--compilation_cache={cache}", "--config.save_every_steps=1", *settings]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while not (Path(workdir) / "run" / "checkpoints" / "latest" / "1").exists():
                if process.poll() is not None:
                    raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
                time.sleep(0.02)
            return time.perf_counter() - started
        finally:
            process.kill()
            process.wait()


def startup_table(result: Mapping[str, Any]) -> str:
    """Seconds to the first training step."""
    rows = [(name, ", ".join(f"{v:.1f}" for v in s)) for name, s in result["samples"].items()]
    return table(rows, ("start", "s to the first step"))


def main() -> None:
    """Measures, prints the table, writes startup.json."""
    args = arguments(main.__doc__ or "")
    samples: dict[str, list[float]] = {"first": [], "second": []}
    settings = ["--config.model.num_iters=2", "--config.model.width=0.25"] if args.quick else []
    for _ in range(1 if args.quick else 3):
        with tempfile.TemporaryDirectory() as cache:
            samples["first"].append(first_step(Path(cache), settings))
            samples["second"].append(first_step(Path(cache), settings))
    first, second = min(samples["first"]), min(samples["second"])
    result = {"samples": samples, "ratios": {"second start / first": second / first}}
    print(startup_table(result))
    write("startup", result, args.out)


if __name__ == "__main__":
    run(main)
