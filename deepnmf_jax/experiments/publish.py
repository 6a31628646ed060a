"""Puts a trained network into the package, for `deepnmf_jax.load_pretrained`.

python -m deepnmf_jax.experiments.publish runs/accuracy/cnmf_1x1-fast-seed0 cnmf_1x1 \\
    --config_file=configs/fast/cnmf_1x1.py
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import jax

from deepnmf_jax.experiments import run_records
from deepnmf_jax.experiments.tables import ROOT
from deepnmf_jax.models.pretrained import write_network
from deepnmf_jax.programs import home, run
from deepnmf_jax.training.devices import backend

SHELF = ROOT / "deepnmf_jax" / "pretrained"


def publish(workdir: Path, name: str, config_file: str, shelf: Path = SHELF, seed: int | None = None) -> Path:
    """The best variables (by validation) of a finished run, with its results -> the network's folder.

    Args:
        workdir: of the run.
        name: under which `load_pretrained` finds the network.
        config_file: the config of the run, for those who evaluate it.
        shelf: the folder of all networks.
        seed: which one, if the run trained several at once.

    Raises:
        FileNotFoundError: the run has not finished.
        ValueError: it trained several seeds at once, and not `seed`.
    """
    records = {record.results["seed"]: record for record in run_records.read(workdir)}
    if seed is None and len(records) > 1:
        raise ValueError(f"{workdir} trained the seeds {', '.join(map(str, records))} at once; say which: --seed")
    if seed is not None and seed not in records:
        raise ValueError(f"{workdir} did not train the seed {seed}, but {', '.join(map(str, records))}")
    record = records[next(iter(records)) if seed is None else seed]
    run, variables = run_records.trained(workdir)
    if len(records) > 1:
        variables = jax.tree.map(lambda leaf: leaf[list(records).index(seed)], variables)
    settings = record.results["config"]["model"]
    write_network(shelf / name, settings, run.dataset.num_classes, run.image_shape, variables)
    more = {"config_file": config_file, "class_names": list(run.dataset.class_names)}
    record._replace(results={**record.results, **more}).write_results(shelf / name)
    return shelf / name


def main(arguments: Sequence[str] | None = None) -> None:
    """Publishes one run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workdir", type=home)
    parser.add_argument("name")
    parser.add_argument("--config_file", required=True, help="the config of the run, for those who evaluate it")
    parser.add_argument("--seed", type=int, help="which one, if the run trained several at once")
    parser.add_argument("--shelf", type=home, default=SHELF, help="folder of the networks")
    options = parser.parse_args(arguments)
    backend()
    print(publish(options.workdir, options.name, options.config_file, options.shelf, options.seed))


if __name__ == "__main__":
    run(main)
