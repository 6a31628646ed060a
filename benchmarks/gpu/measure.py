"""How fast are the layers and the training step on a GPU: XLA, the fused kernel and PyTorch, against its two limits?

python -m benchmarks.gpu.measure --out=gpu_results --minutes=9

First the kernel is held against XLA; it is timed only where they agree. Then the device's limits are measured, then
the layers of CNMF+1x1 and its training step, the most telling first. Every comparison is written when it is made, and
a later call with the same device, versions and commit goes on with what is missing. Without a GPU the same code runs
at tiny sizes, the kernel under Pallas's interpreter, and reports no speed.
"""

import argparse
import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax

from benchmarks.gpu.programs import ROUNDS, TorchPort, agreement, ceilings, layer_program, step_program, variants
from benchmarks.gpu.tables import report
from benchmarks.harness import Sampler, in_turns, machine, provenance, short
from benchmarks.layers import LAYERS, Layer
from deepnmf_jax.experiments.tables import as_json
from deepnmf_jax.files import write_atomically
from deepnmf_jax.programs import home, run

STEPS_PER_CALL = 20
# Seconds that a PyTorch program may take to compile; with fewer left, nothing new is begun.
LONGEST_START, LEAST = 120, 15
NO_TIME = "no time left"

Builders = Mapping[str, Callable[[], Sampler]]


class Measurements:
    """The file of results, the time there is, and the ways of inference to compare."""

    def __init__(self, path: Path, facts: Mapping[str, Any], minutes: float, on_gpu: bool):
        self.path, self.on_gpu = path, on_gpu
        self.deadline = time.monotonic() + 60 * minutes
        self.result: dict[str, Any] = {"machine": dict(facts), "agreement": {}, "items": {}, "missing": []}
        self.ways = variants(on_gpu)
        self.port = TorchPort(on_gpu)
        with contextlib.suppress(OSError, ValueError, KeyError):
            before = json.loads(path.read_text())
            if all(before["machine"][key] == facts[key] for key in ("device", "versions", "commit")):
                self.result["items"] = before["items"]

    @property
    def left(self) -> float:
        """Seconds."""
        return self.deadline - time.monotonic()

    def write(self) -> None:
        """Writes the JSON file and the tables beside it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, as_json(self.result, digits=6))
        where = f"{provenance('gpu.measure', self.result['machine'])}; every sample in {self.path.name}."
        write_atomically(self.path.with_suffix(".md"), f"{where}\n\n{report(self.result)}\n")

    def compare(self, key: str, builders: Builders) -> None:
        """Samples of programs that are compared, unless they are there already or there is no time.

        One that fails to start, out of memory say, is kept with its reason, and the others are measured. What there
        was no time for is measured by the next call.
        """
        if key in self.result["items"]:
            return
        programs: dict[str, Sampler] = {}
        failed: dict[str, str] = {}
        for name, build in builders.items():
            if self.left < LEAST:
                failed[name] = NO_TIME
                continue
            try:
                programs[name] = build()
            except Exception as error:
                failed[name] = short(error)
        samples = in_turns(programs, ROUNDS, failed)
        with contextlib.suppress(RuntimeError, OSError):
            self.port.clear()
        if NO_TIME in failed.values():
            self.result["missing"].append(key)
            return
        if not self.on_gpu:  # they have run, which is all that there is to say
            samples = {name: [] for name in samples}
        self.result["items"][key] = {"samples": samples, "failed": failed}
        print(f"{key}: {', '.join(samples)}" + "".join(f"; {n}: {why}" for n, why in failed.items()), flush=True)
        self.write()

    def torch(self, name: str, repeat: int, **spec: Any) -> Callable[[], Sampler]:
        """Builds a program of the PyTorch port."""
        return lambda: self.port.build(name, min(self.left, LONGEST_START), repeat, **spec)

    def layers(self, batch: int, chosen: Sequence[Layer]) -> None:
        """Inference and gradient of layers at one batch size."""
        for layer in chosen:
            rows = batch * layer.positions if self.on_gpu else 5
            port = {"program": "port_layer", "rows": rows, "n": layer.n, "k": layer.k}
            for direction in ("forward", "backward"):
                # The gradient is one program, whatever has made h.
                ways = self.agreeing([layer]) if direction == "forward" else {"XLA": self.ways["XLA"]}
                builders: dict[str, Callable[[], Sampler]] = {
                    name: partial(layer_program, layer, batch, direction, way, self.on_gpu)
                    for name, way in ways.items()
                }
                builders["PyTorch, eager"] = self.torch("eager", 10, direction=direction, **port)
                self.compare(f"{layer.name}, batch {batch}, {direction}", builders)

    def steps(self, batch: int) -> None:
        """The whole training step at one batch size."""
        step, many = partial(step_program, batch, self.on_gpu), STEPS_PER_CALL if self.on_gpu else 2
        port = self.torch("eager", 5, program="port_step", batch=batch, layer="nmf")
        builders: dict[str, Callable[[], Sampler]] = {"PyTorch, eager": port}
        for name, way in self.agreeing(LAYERS).items():
            precision = "tensorfloat32" if way["products"] == "tf32" else "float32"
            builders[name] = partial(step, many, precision, **way)
        if self.on_gpu:
            builders["XLA, five seeds at once"] = partial(step, many, seeds=5)
            builders["CNN+1x1 in place of CNMF+1x1"] = partial(step, many, layer="conv")
        self.compare(f"step, batch {batch}", builders)

    def agreeing(self, chosen: Sequence[Layer]) -> dict[str, dict[str, str]]:
        """The ways of inference that agree with XLA's on all of these layers."""
        found = self.result["agreement"]
        return {
            name: way
            for name, way in self.ways.items()
            if name == "XLA" or all(found[f"{layer.name}, {name}"]["agrees"] for layer in chosen)
        }

    def all(self) -> None:
        """Everything, the most telling first."""
        self.result["agreement"] = agreement(self.ways, self.on_gpu)
        self.write()
        if "ceilings" not in self.result["items"]:
            found = ceilings(self.on_gpu)
            self.result["items"]["ceilings"] = found if self.on_gpu else {**found, "samples": {}}
        if not self.on_gpu:
            self.layers(1, LAYERS[:1])
            self.steps(2)
            return
        self.layers(512, LAYERS[:2])
        self.steps(50)
        self.steps(512)
        for batch in (50, 128, 2048):
            self.layers(batch, LAYERS[:2])
        self.steps(128)
        self.steps(2048)
        for batch in (50, 128, 512, 2048):
            self.layers(batch, LAYERS[2:])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 1 if a way of inference does not agree with XLA's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=home, default=Path("gpu_results"), help="folder of gpu.json and gpu.md")
    parser.add_argument("--minutes", type=float, default=60.0, help="after which nothing new is begun")
    parser.add_argument("--cache", type=home, help="folder of compiled programs")
    options = parser.parse_args(arguments)
    # PyTorch needs memory of its own beside ours.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if options.cache:
        jax.config.update("jax_compilation_cache_dir", str(options.cache.absolute()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    on_gpu = jax.default_backend() == "gpu"
    m = Measurements(options.out / "gpu.json", machine(), options.minutes, on_gpu)
    if not on_gpu:
        m.result["no speeds"] = f"this is {jax.devices()[0].device_kind}, not a GPU: tiny sizes, no speed is reported"
    with jax.default_matmul_precision("float32"), contextlib.closing(m.port):
        m.all()
    m.write()
    print("\n" + report(m.result))
    if m.result["missing"]:
        print(f"no time was left for {len(m.result['missing'])} comparisons; call again with the same --out")
    return 0 if m.agreeing(LAYERS) == m.ways else 1


if __name__ == "__main__":
    run(main)
