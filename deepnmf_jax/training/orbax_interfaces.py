"""A tree of arrays and a JSON object in one folder, by whichever interface the installed orbax offers.

V0 is `Checkpointer` and its arguments, V1 is `save_checkpointables` and `load_checkpointables`, which orbax announces
for its top level from 1.0 on. Either reads what the other wrote.
"""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import orbax.checkpoint

STATE, META = "state", "meta"
# Where V1 keeps the note, which V0 looks for in another file. V1 reads both.
_NOTE_OF_V1 = f"{META}/data.json"


class Interface(Protocol):
    """A way to write and to read a folder; paths without patterns, all processes of a run at one moment."""

    def save(self, folder: Path, tree: Mapping[str, Any], note: dict[str, Any]) -> None:
        """Replaces the folder by one with the tree and the note, the latter written by the first process alone."""

    def load(self, folder: Path) -> tuple[Any, Any]:
        """The tree, of numpy arrays, and the note."""


class V0(NamedTuple):
    """By handlers and their arguments."""

    ocp: Any

    def save(self, folder: Path, tree: Mapping[str, Any], note: dict[str, Any]) -> None:
        """As `Interface.save`."""
        args = self.ocp.args
        self._ask("save", folder, args.Composite(state=args.StandardSave(tree), meta=args.JsonSave(note)), force=True)

    def load(self, folder: Path) -> tuple[Any, Any]:
        """As `Interface.load`."""
        args = self.ocp.args
        # StandardRestore would ask TensorStore (0.1.86) for each array's metadata as JSON, which is never freed.
        items = {STATE: args.PyTreeRestore()}
        if (folder / _NOTE_OF_V1).exists():
            note = json.loads((folder / _NOTE_OF_V1).read_text())
            return self._ask("restore", folder, args.Composite(**items))[STATE], note
        content = self._ask("restore", folder, args.Composite(**items, meta=args.JsonRestore()))
        return content[STATE], content[META]

    def _ask(self, what: str, folder: Path, arguments: Any, **options: Any) -> Any:
        # A new one each time: one that has failed to write may not be used again.
        checkpointer = self.ocp.Checkpointer(self.ocp.CompositeCheckpointHandler())
        with contextlib.closing(checkpointer):
            return getattr(checkpointer, what)(folder, args=arguments, **options)


class V1(NamedTuple):
    """By functions, in a context that says which part is JSON."""

    ocp: Any

    def save(self, folder: Path, tree: Mapping[str, Any], note: dict[str, Any]) -> None:
        """As `Interface.save`."""
        with self._context():
            self.ocp.save_checkpointables(folder, {STATE: dict(tree), META: note}, overwrite=True)

    def load(self, folder: Path) -> tuple[Any, Any]:
        """As `Interface.load`."""
        with self._context():
            content = self.ocp.load_checkpointables(folder)
        return content[STATE], content[META]

    def _context(self) -> Any:
        registry = self.ocp.handlers.local_registry()
        # By itself it would keep the note as a tree of arrays, which no reader of JSON takes.
        registry.add(self.ocp.handlers.JsonHandler, checkpointable_name=META)
        return self.ocp.Context(checkpointables_options=self.ocp.options.CheckpointablesOptions(registry=registry))


def interface_of(module: ModuleType = orbax.checkpoint) -> Interface:
    """V0 where the module has it, else V1.

    Raises:
      ImportError: it has neither.
    """
    if hasattr(module, "Checkpointer") and hasattr(module, "args"):
        return V0(module)
    if hasattr(module, "save_checkpointables"):
        return V1(module)
    version = getattr(module, "__version__", "of an unknown version")
    raise ImportError(f"orbax-checkpoint {version} has neither of the interfaces known here; install 0.12")
