"""Trains, evaluates or describes the network of a config, or runs the experiment that it names.

python main.py --config=configs/quickstart.py --workdir=runs/quickstart [--config.field=value ...]
"""

import faulthandler
import json
import logging
import os
import signal
import sys


def start_process() -> None:
    """Ctrl-C ends with one line, from the first import on; no file takes the place of a closed stream."""

    def stop(*_: object) -> None:
        # At once: a KeyboardInterrupt in the middle of an import or a callback is swallowed, or printed at length.
        os.write(2, b"SIGINT: stopped; the same command goes on from what is saved\n")
        os._exit(128 + signal.SIGINT)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, stop)
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(descriptor, "w" if descriptor else "r"))


if __name__ == "__main__":
    start_process()
try:
    from absl import app, flags
    from ml_collections import config_flags
except ImportError as error:
    sys.exit(f"{error}; install what training needs: pip install -r requirements.txt")

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file("config", None, "File with the settings; --config.field=value overrides one.")
flags.DEFINE_string("workdir", None, "Folder of the run: its records, checkpoints and results.")
flags.DEFINE_enum("mode", "train", ["train", "evaluate", "summary"], "What to do.")
flags.DEFINE_string("checkpoint", None, "For --mode=evaluate: a workdir, the folder of one step, or pretrained:NAME.")
flags.DEFINE_string("compilation_cache", "~/.cache/deepnmf_jax", "Folder of compiled programs; empty: none.")
flags.DEFINE_string("coordinator", None, "host:port of the first process, for a run of several processes.")
flags.DEFINE_integer("num_processes", None, "Number of processes of the run.")
flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")


def main(argv: list[str]) -> None:
    """Runs one mode; errors that the user can mend end with a message instead of a traceback."""
    # force: absl has put a handler of its own on the root logger.
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    # Absl has switched it on: a message of XLA, which then aborts, would be followed by the stacks of all threads.
    faulthandler.disable()
    for noisy in ("absl", "jax", "fontTools"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        from deepnmf_jax import programs
    except (ImportError, ValueError) as error:  # JAX is not there, or does not understand one of its variables.
        sys.exit(f"{type(error).__name__}: {error}")
    programs.run(work)


def work() -> None:
    """Trains, evaluates, describes, or runs an experiment."""
    from deepnmf_jax import experiments, programs
    from deepnmf_jax.training import devices, loop, reports, setup

    cache = FLAGS.compilation_cache and str(programs.home(FLAGS.compilation_cache))
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
    except Exception as error:
        devices.leave(error)
        raise


def parse_flags(argv: list[str]) -> list[str]:
    """Reads the flags; what is wrong with them ends with a message instead of a traceback."""
    # The shell leaves this ~ to us. The other paths are expanded where they are used.
    argv = [f"--config={os.path.expanduser(a[9:])}" if a.startswith("--config=") else a for a in argv]
    error: Exception | None = None
    try:
        rest: list[str] = FLAGS(argv)
        # A config that could not be read says so when it is looked at.
        if FLAGS.config is not None and list(FLAGS.config):
            needed = {"train": "workdir", "evaluate": "checkpoint"}.get(FLAGS.mode)
            if rest[1:]:
                sys.exit(f"unknown arguments: {' '.join(rest[1:])}")
            if needed and not FLAGS[needed].value:
                sys.exit(f"--mode={FLAGS.mode} needs --{needed}, a folder such as runs/quickstart")
            return rest
    except Exception as reason:
        error = reason
    from deepnmf_jax import programs

    sys.exit(programs.mistake(argv, error, os.path.dirname(os.path.abspath(__file__))))


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
