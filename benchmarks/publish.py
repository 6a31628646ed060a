"""Puts a trained network into the package, for `deepnmf_jax.load_pretrained`.

python -m benchmarks.publish runs/accuracy/fast-cnmf_1x1-seed0 cnmf_1x1 --config_file=configs/fast/cnmf_1x1.py
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import ROOT

SHELF = ROOT / "deepnmf_jax" / "pretrained"


def publish(workdir: Path, name: str, config_file: str, shelf: Path = SHELF) -> Path:
    """The best variables (by validation) of a finished run, with its metrics and results -> the network's folder.

    Raises:
        FileNotFoundError: the run has not finished.
        ValueError: it trained several seeds at once.
    """
    import jax
    from ml_collections import ConfigDict

    from deepnmf_jax.models.pretrained import write_network
    from deepnmf_jax.training import checkpoints
    from deepnmf_jax.training.setup import prepare

    results = json.loads((workdir / "results.json").read_text())
    if isinstance(results["seed"], list):
        raise ValueError(f"{workdir} trained the seeds {results['seed']} at once; publish a run of one seed")
    run = prepare(ConfigDict(results["config"]))
    best = jax.device_get(checkpoints.restore_path(workdir, run.template()).state.best)
    variables = {"params": best.params, "batch_stats": best.batch_stats}
    folder = shelf / name
    write_network(folder, results["config"]["model"], run.dataset.num_classes, run.image_shape, variables)
    shutil.copyfile(workdir / "metrics.jsonl", folder / "metrics.jsonl")
    results["config_file"] = config_file
    (folder / "results.json").write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")
    return folder


def main(arguments: Sequence[str] | None = None) -> None:
    """Publishes one run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("name")
    parser.add_argument("--config_file", required=True, help="the config of the run, for those who evaluate it")
    options = parser.parse_args(arguments)
    print(publish(options.workdir, options.name, options.config_file))


if __name__ == "__main__":
    main()
