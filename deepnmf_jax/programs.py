"""What all programs share: `~` in paths, mistakes that end with one sentence, configs and settings by name."""

from __future__ import annotations

import difflib
import gc
import os
import re
import runpy
import signal
import sys
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial, reduce
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

# What a user, or whoever runs the machine, can mend. Anything else is a bug, of which the traceback is wanted.
_TORN_FILES = (EOFError, zipfile.BadZipFile, zlib.error)
MENDABLE = (
    ValueError, OSError, FloatingPointError, OverflowError, ImportError, MemoryError, RuntimeError, *_TORN_FILES
)  # fmt: skip


class Command(NamedTuple):
    """How the program that trains is called."""

    example: str  # a whole command line
    mode: str  # how one of its modes is asked for
    recipes_by_name: bool  # whether --config takes the name of a recipe too


MAIN = Command("python main.py --config=configs/quickstart.py --workdir=runs/quickstart", "--mode={}", False)
INSTALLED = Command("deepnmf-jax train --config=quickstart --workdir=runs/quickstart", "deepnmf-jax {}", True)


def start_process() -> None:
    """Ctrl-C ends with one line, from the first import on; no file takes the place of a closed stream.

    The garbage collector looks less often than Python lets it: imports and tracing make many objects, which all stay,
    and to look at them again and again took a tenth of the time to the first step.
    """
    gc.set_threshold(50_000, 20, 50)

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


def home(path: str | os.PathLike[str]) -> Path:
    """A path in which a leading `~` is the home folder; the type of every path on a command line."""
    return Path(os.path.expanduser(path))


def sentence(error: BaseException) -> str | None:
    """What a program says of an error that is not its own; None for a bug."""
    text = str(error).strip()
    if isinstance(error, (NotImplementedError, RecursionError)) or not isinstance(error, MENDABLE):
        return None
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        reason = text.partition("\n")[0] or "no more to be had"
        return f"out of memory: {reason}; try a smaller batch_size, eval_batch_size, num_seeds or model.width"
    return f"{type(error).__name__}: {text}"


class Ended(Exception):
    """A program that ends in order, though not as it was asked to: its last line is the message."""

    status = 1


def run(main: Callable[[], int | None]) -> NoReturn:
    """Calls the function of a command line and ends the process: with its status, or 130 and a line after Ctrl-C, or 1
    and a sentence after what can be mended."""
    sys.unraisablehook = partial(_of_the_main_thread, sys.unraisablehook)
    try:
        status, told = main() or 0, None
    except KeyboardInterrupt:
        status, told = 128 + signal.SIGINT, "SIGINT: stopped"
    except Ended as end:
        status, told = end.status, str(end)
    except MENDABLE as error:
        status, told = 1, sentence(error)
        if told is None:
            raise
    if told:
        print(told, file=sys.stderr)
    if (lost := _flushed()) and not status:
        status = 1
        print(f"OSError: cannot write to standard output: {lost.strerror}", file=sys.stderr)
    sys.exit(status)


def _of_the_main_thread(report: Callable[[Any], object], unraisable: Any) -> None:
    """Passes on what cannot be raised. Threads of orbax that still write to a full disk have told their caller."""
    if threading.current_thread() is threading.main_thread():
        report(unraisable)


def _flushed() -> OSError | None:
    """Writes out what was printed; why standard output could not be written to. Python would print about it at its end,
    and change the exit status."""
    errors: dict[str, OSError] = {}
    for name in ("stderr", "stdout"):
        stream = getattr(sys, name)
        try:
            if stream is not None:
                stream.flush()
        except OSError as error:
            errors[name] = error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
    return errors.get("stdout")


def recipes() -> Path:
    """The folder of the configs: an installed package holds it, in a clone it is beside the package."""
    package = Path(__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def import_recipes() -> None:
    """Makes `from configs.base import variant` work from any folder: recipes start from one another, and a user's own
    config may start from one of them."""
    if "configs" not in sys.modules:
        module = ModuleType("configs")
        module.__path__ = [str(recipes())]
        sys.modules["configs"] = module


def recipe_names() -> list[str]:
    """What --config of `deepnmf-jax` takes beside a path, such as "fast/cnmf_1x1"."""
    root = recipes()
    files = {path: path.read_text(encoding="utf-8") for path in sorted(root.rglob("*.py"))}
    defines = re.compile(r"^(def |from .* import )?get_config\b", re.M)
    return [path.relative_to(root).with_suffix("").as_posix() for path, text in files.items() if defines.search(text)]


def read_recipe(name: str) -> Any:
    """The ConfigDict of a recipe by its name, such as "fast/cnmf_1x1".

    Raises:
        ValueError: there is no such recipe.
    """
    import_recipes()
    path = recipes() / f"{name}.py"
    if not path.is_file():
        raise ValueError(f"there is no configs/{name}.py; use one such as 'fast/cnmf'")
    return _read(str(path))


def recipe_path(given: str) -> str:
    """The file of a config, with what follows a colon: of a recipe by its name, or else the path that was given."""
    file, colon, rest = given.partition(":")
    if not os.path.isfile(file) and file.removesuffix(".py").removeprefix("configs/") in recipe_names():
        file = str(recipes() / f"{file.removesuffix('.py').removeprefix('configs/')}.py")
    return f"{file}{colon}{rest}"


def mistake(arguments: Sequence[str], error: Exception | None, command: Command = MAIN) -> str:
    """What is wrong with a command line that could not be read, and what there is instead.

    Args:
        arguments: of the command line.
        error: that reading it raised; None: it names no config.
        command: how the program was called.
    """
    given = _config_of(arguments)
    root = recipes()
    by_name = command.recipes_by_name
    known_files = [name if by_name else os.path.relpath(root / f"{name}.py") for name in recipe_names()]
    there = f"There are: {', '.join(known_files)}. For example: {command.example}"
    if given is None:
        return f"--config={'NAME or --config=FILE' if by_name else 'FILE'} says what to train. {there}"
    file = given.partition(":")[0]
    if not os.path.isfile(file):
        return f"there is no config {file}. {there}"
    try:
        known = list(_names(_read(given)))
    except Exception as reason:
        return f"the config {file} cannot be read: {type(reason).__name__}: {reason}"
    try:
        check_settings(arguments, known, file)
    except ValueError as unknown:
        return str(unknown)
    return str(error)


def check_settings(arguments: Sequence[str], known: Sequence[str], file: str) -> None:
    """ValueError if one of the --config.NAME=VALUE among the arguments is none of the `known` settings of a config."""
    for name in _given_settings(arguments):
        if name not in known:
            raise ValueError(f"--config.{name} is no setting of {file}; {_near(name, known)}")


def check_single(arguments: Sequence[str], config: Any) -> None:
    """ValueError if one of the --config.NAME=VALUE puts a whole group of settings in the place of another: what it does
    not name would be gone."""
    for name in _given_settings(arguments):
        group = reduce(lambda settings, part: settings[part], name.split("."), config)
        if hasattr(group, "items"):
            raise ValueError(
                f"--config.{name} is a group of settings; give each that changes by itself, such as "
                f"--config.{name}.{next(iter(group), 'NAME')}=..."
            )


def _given_settings(arguments: Sequence[str]) -> list[str]:
    """NAME of each --config.NAME among the arguments."""
    flags = [a.lstrip("-").partition("=")[0] for a in arguments if re.match("--?config[.]", a)]
    return [flag.removeprefix("config.") for flag in flags]


def check_target(path: Path) -> None:
    """OSError unless a file can be made at `path`: to be asked before the work of hours that it is for."""
    if path.is_dir() or not path.parent.is_dir():
        what = "is a folder" if path.is_dir() else f"cannot be made: there is no folder {path.parent}"
        raise OSError(f"{path} {what}; give the path of a file in a folder that exists")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OSError(f"{path} cannot be made: there is no permission to write to {path.parent}")


def _config_of(arguments: Sequence[str]) -> str | None:
    for argument, following in zip(arguments, [*arguments[1:], None], strict=True):
        flag, equals, value = argument.partition("=")
        if flag in ("--config", "-config"):
            return value if equals else following
    return None


def _read(given: str) -> Any:
    file, *rest = given.split(":", 1)
    return runpy.run_path(file)["get_config"](*rest)


def _names(settings: Mapping[str, Any], before: str = "") -> Iterator[str]:
    for name, value in settings.items():
        yield f"{before}{name}"
        # A ConfigDict is no Mapping, but has its methods.
        if hasattr(value, "items"):
            yield from _names(value, f"{before}{name}.")


def _near(name: str, known: Sequence[str]) -> str:
    """Settings that may be meant: of the same last name elsewhere, or spelt alike."""
    last = name.rpartition(".")[2]
    lasts = {other: other.rpartition(".")[2] for other in known}
    near = [other for other in known if lasts[other] == last]
    if not near:
        alike = difflib.get_close_matches(last, sorted(set(lasts.values())), 3, 0.7)
        near = [other for match in alike for other in known if lasts[other] == match]
    if near:
        return f"is --config.{' or --config.'.join(near[:4])} meant?"
    return f"there are {', '.join(other for other in known if '.' not in other)}, and those of the groups among them"
