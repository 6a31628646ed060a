"""The flags of `main.py` and of `deepnmf-jax train`, `evaluate`, `tune` and `summary`, and what they start."""

import faulthandler
import json
import logging
import os
import sys
from collections.abc import Sequence

from absl import app, flags
from ml_collections import config_flags

from deepnmf_jax import programs

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file("config", None, "File with the settings; --config.field=value overrides one.")
flags.DEFINE_string("workdir", None, "Folder of the run: its records, checkpoints and results.")
flags.DEFINE_enum("mode", "train", ["train", "evaluate", "tune", "summary"], "What to do.")
flags.DEFINE_string(
    "checkpoint", None, "What to evaluate or tune: a workdir, the folder of a step, or pretrained:NAME."
)
flags.DEFINE_float("tolerance", 0.01, "Of tune: the share of answers that may change.")
flags.DEFINE_string("compilation_cache", "~/.cache/deepnmf_jax", "Folder of compiled programs; empty: none.")
flags.DEFINE_string("coordinator", None, "host:port of the first process, for a run of several processes.")
flags.DEFINE_integer("num_processes", None, "Number of processes of the run.")
flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")


def start(arguments: Sequence[str], command: programs.Command = programs.MAIN) -> None:
    """Does what a command line says, and ends the process.

    Args:
        arguments: the name of the program and the flags.
        command: how the program is called, for its messages.
    """

    def parse_flags(argv: list[str]) -> list[str]:
        """Reads the flags; what is wrong with them ends with a message instead of a traceback."""
        # The shell leaves this ~ to us. The other paths are expanded where they are used.
        argv = [f"--config={os.path.expanduser(a[9:])}" if a.startswith("--config=") else a for a in argv]
        error: Exception | None = None
        try:
            rest: list[str] = FLAGS(argv)
            # A config that could not be read says so when it is looked at.
            if FLAGS.config is not None and list(FLAGS.config):
                needed = {"train": "workdir", "evaluate": "checkpoint", "tune": "checkpoint"}.get(FLAGS.mode)
                if rest[1:]:
                    sys.exit(f"unknown arguments: {' '.join(rest[1:])}")
                if needed and not FLAGS[needed].value:
                    sys.exit(f"{command.mode.format(FLAGS.mode)} needs --{needed}, a folder such as runs/quickstart")
                if "experiment" not in FLAGS.config:  # whose groups are lists with names
                    programs.check_single(argv, FLAGS.config)
                return rest
        except Exception as reason:
            error = reason
        sys.exit(programs.mistake(argv, error, command))

    # So that --help names them: absl takes those of the program's own file alone.
    for flag in FLAGS.flags_by_module_dict()[__name__]:
        FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    app.run(main, argv=list(arguments), flags_parser=parse_flags)


def help_of_flags(names: Sequence[str]) -> str:
    """Names, meanings and defaults of some flags, one in a line."""
    lines = []
    for flag in (FLAGS[name] for name in names):
        default = f" (default: {flag.default})" if flag.default is not None else ""
        lines.append(f"  --{flag.name}: {flag.help}{default}")
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """Runs one mode; errors that the user can mend end with a message instead of a traceback."""
    # force: absl has put a handler of its own on the root logger.
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    # Absl has switched it on: a message of XLA, which then aborts, would be followed by the stacks of all threads.
    faulthandler.disable()
    for noisy in ("absl", "jax", "fontTools"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    programs.run(work)


def work() -> None:
    """Trains, evaluates, tunes, describes, or runs an experiment."""
    from deepnmf_jax import experiments
    from deepnmf_jax.training import devices, loop, reports, setup, tuning

    cache = FLAGS.compilation_cache and str(programs.home(FLAGS.compilation_cache))
    devices.start(cache, FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
    try:
        if "experiment" in FLAGS.config:
            experiments.run(FLAGS.config, FLAGS.mode, FLAGS.workdir)
        elif FLAGS.mode == "train":
            loop.train_and_evaluate(FLAGS.config, FLAGS.workdir)
        elif FLAGS.mode == "evaluate":
            print(json.dumps(reports.evaluate(FLAGS.config, FLAGS.checkpoint), indent=2))
        elif FLAGS.mode == "tune":
            print(json.dumps(tuning.tune(FLAGS.config, FLAGS.checkpoint, FLAGS.tolerance), indent=2))
        else:
            print(setup.describe(FLAGS.config))
    except Exception as error:
        devices.leave(error)
        raise
