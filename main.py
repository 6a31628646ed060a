"""Trains, evaluates or describes the network of a config.

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

USER_ERRORS = (ValueError, OSError, FloatingPointError, ImportError)


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
    start_jax()
    from deepnmf_jax.training.loop import Interrupted

    try:
        run(FLAGS.mode)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(128 + signal.Signals[stop.signal_name])
    except USER_ERRORS as error:
        if os.environ.get("DEEPNMF_TRACEBACK"):
            raise
        sys.exit(f"{type(error).__name__}: {error}")


def start_jax() -> None:
    """Compilation cache and, in a run of several processes, the connection between them."""
    import jax

    if FLAGS.compilation_cache:
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser(FLAGS.compilation_cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    if FLAGS.coordinator:
        jax.distributed.initialize(FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
    logging.info("devices: %s", ", ".join(map(str, jax.devices())))


def run(mode: str) -> None:
    """Calls into the package."""
    from deepnmf_jax.training import loop, reports, setup

    if mode == "train":
        loop.train_and_evaluate(FLAGS.config, FLAGS.workdir)
    elif mode == "evaluate":
        print(json.dumps(reports.evaluate(FLAGS.config, FLAGS.checkpoint), indent=2))
    else:
        print(setup.describe(FLAGS.config))


if __name__ == "__main__":
    app.run(main)
