"""Trains, evaluates or describes the network of a config, or runs the experiment that it names.

python main.py --config=configs/quickstart.py --workdir=runs/quickstart [--config.field=value ...]
"""

import json
import logging
import os
import signal
import sys

from absl import app, flags
from ml_collections import config_flags

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file("config", None, "File with the settings; --config.field=value overrides one.")
flags.DEFINE_string("workdir", None, "Folder of the run: its records, checkpoints and results.")
flags.DEFINE_enum("mode", "train", ["train", "evaluate", "summary"], "What to do.")
flags.DEFINE_string("checkpoint", None, "For --mode=evaluate: a workdir, or the folder of one step.")
flags.DEFINE_string("compilation_cache", "~/.cache/deepnmf_jax", "Folder of compiled programs; empty: none.")
flags.DEFINE_string("coordinator", None, "host:port of the first process, for a run of several processes.")
flags.DEFINE_integer("num_processes", None, "Number of processes of the run.")
flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
flags.mark_flag_as_required("config")


def main(argv: list[str]) -> None:
    """Runs one mode; errors that the user can mend end with a message instead of a traceback."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    needed = {"train": "workdir", "evaluate": "checkpoint"}.get(FLAGS.mode)
    if needed and not FLAGS[needed].value:
        raise app.UsageError(f"--mode={FLAGS.mode} needs --{needed}")
    # force: absl has put a handler of its own on the root logger.
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    for noisy in ("absl", "jax"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    from deepnmf_jax import experiments
    from deepnmf_jax.training import devices, interruption, loop, reports, setup

    cache = os.path.expanduser(FLAGS.compilation_cache)
    devices.start(cache, FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
    try:
        if "experiment" in FLAGS.config:
            experiments.run(FLAGS.config, FLAGS.mode, FLAGS.workdir)
        elif FLAGS.mode == "train":
            loop.train_and_evaluate(FLAGS.config, FLAGS.workdir)
        elif FLAGS.mode == "evaluate":
            print(json.dumps(reports.evaluate(FLAGS.config, FLAGS.checkpoint), indent=2))
        else:
            print(setup.describe(FLAGS.config))
    except interruption.Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(128 + signal.Signals[stop.signal_name])
    except (ValueError, OSError, FloatingPointError, ImportError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except RuntimeError as error:
        devices.leave(error)
        raise


def parse_flags(argv: list[str]) -> list[str]:
    """Reads the flags; a setting that the config does not have ends with a message instead of a traceback."""
    try:
        return list(app.parse_flags_with_usage(argv))
    except (AttributeError, KeyError, TypeError) as error:
        given = [a.partition("=")[0] for a in argv if a.startswith("--config.")]
        sys.exit(f"one of {', '.join(given)} is no setting of the config, see its file and configs/base.py: {error}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
