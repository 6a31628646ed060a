"""`deepnmf-jax`, the program of an installed package; `python -m deepnmf_jax` is the same."""

import re
import sys
import textwrap
from collections.abc import Callable, Sequence

from deepnmf_jax import __version__, programs

HELP = """\
deepnmf-jax trains deep NMF networks, tests them and asks them about pictures.

  deepnmf-jax train --config=quickstart --workdir=runs/quickstart
      Trains the network of a recipe and keeps everything in the folder --workdir. Stop it at any
      time; the same command goes on where it was. The quick start takes minutes and downloads
      nothing.
  deepnmf-jax evaluate --config=quickstart --checkpoint=runs/quickstart
      Tests a trained network on the test images of its data set.
  deepnmf-jax predict --checkpoint=runs/quickstart digit.png
      Says what is on a picture. --checkpoint=pretrained:cnmf_1x1 takes a network of the package.
  deepnmf-jax tune --config=quickstart --checkpoint=runs/quickstart
      Looks for accelerated iterations that give a trained network's answers sooner.
  deepnmf-jax summary --config=cnmf_1x1
      Lists the layers of a network, with shapes, parameters and operations.
  deepnmf-jax data cifar10
      Downloads a data set and prepares it, once. This alone needs TensorFlow.
  deepnmf-jax pack cifar10
      Writes a prepared data set to one file, cifar10.pack, for --config.dataset=cifar10.pack; and
      so a folder of pictures with a folder for each class: deepnmf-jax pack photos --size=64.

--config is the name of a recipe, or the path of a config file of yours, which may begin with
`from configs.base import variant`. --config.NAME=VALUE changes one setting of it, such as
--config.num_epochs=20 or --config.dataset=mine.npz.

Recipes: {recipes}.

More about a command: deepnmf-jax COMMAND --help. Version: deepnmf-jax --version.
"""
_SEVERAL_PROCESSES = "coordinator", "num_processes", "process_id"
# The commands of main.py's modes, and the flags of each.
MODES = {
    "train": ("config", "workdir", "compilation_cache", *_SEVERAL_PROCESSES),
    "evaluate": ("config", "checkpoint", "compilation_cache", *_SEVERAL_PROCESSES),
    "tune": ("config", "checkpoint", "tolerance", "compilation_cache"),
    "summary": ("config",),
}
COMMANDS = (*MODES, "predict", "data", "pack")


def main(arguments: Sequence[str] | None = None) -> None:
    """Does what a command line says, and ends the process.

    Args:
        arguments: without the name of the program; None: those of the process.
    """
    programs.start_process()
    programs.import_recipes()
    command, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if command in ("--help", "-h", "help"):
        print(_wrapped(HELP.format(recipes=", ".join(programs.recipe_names()))), end="")
    elif command == "--version":
        print(f"deepnmf-jax {__version__}")
    elif command in MODES:
        _flags(command, rest)
    elif command in COMMANDS:
        programs.run(lambda: _command(command)(rest))
    else:
        sys.exit(f"there is no command {command!r}; there are {', '.join(COMMANDS)}. See deepnmf-jax --help")


def _flags(mode: str, rest: list[str]) -> None:
    try:
        from deepnmf_jax import command_line
    except ImportError as error:
        sys.exit(f"{error}; install the package again, with all that it requires")
    if {"--help", "-h"} & set(rest):
        print(f"deepnmf-jax {mode} takes these flags:\n\n{command_line.help_of_flags(MODES[mode])}\n")
        print("--config takes the name of a recipe too; deepnmf-jax --help lists them.")
        return
    if any(re.match("--?mode(=|$)", text) for text in rest):
        sys.exit(f"--mode is main.py's; the commands here are {', '.join(COMMANDS)}. See deepnmf-jax --help")
    command_line.start(["deepnmf-jax", f"--mode={mode}", *_with_paths(rest)], programs.INSTALLED)


def _with_paths(arguments: Sequence[str]) -> list[str]:
    """The arguments with the path of a recipe in place of its name, in --config=NAME and --config NAME."""
    found: list[str] = []
    for text in arguments:
        flag, equals, value = text.partition("=")
        if flag in ("--config", "-config") and equals:
            found.append(f"{flag}={programs.recipe_path(value)}")
        else:
            found.append(programs.recipe_path(text) if found and found[-1] in ("--config", "-config") else text)
    return found


def _command(name: str) -> Callable[[Sequence[str]], int]:
    """What a command runs, given its arguments."""
    if name == "predict":
        from deepnmf_jax.training import prediction

        return prediction.main
    if name == "data":
        from deepnmf_jax.data import prepare

        return prepare.main
    from deepnmf_jax.data import make_pack

    return make_pack.main


def _wrapped(text: str) -> str:
    """Lines of at most 100 characters; longer ones, such as the list of recipes, are broken."""
    return "\n".join(textwrap.fill(line, 100) if len(line) > 100 else line for line in text.splitlines()) + "\n"


if __name__ == "__main__":
    main()
