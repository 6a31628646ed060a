"""A folder as a power cut leaves it: what no fsync has named since it was written is gone.

Contents count by file, names by the folder that holds them, as POSIX has it; real file systems keep more. What C++ code
syncs is not seen here.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Inode = tuple[int, int]
Tree = dict[str, bytes | None]
"""Files' contents and folders (None) by their paths below the root."""


class Forgetful:
    """What is on the disk of a folder, by the calls of os.fsync in this process while `watching`."""

    def __init__(self, root: Path):
        self.root = root
        self._contents: dict[Inode, bytes] = {}
        self._listings: dict[Inode, dict[str, tuple[Inode, bool]]] = {}
        # Held open, so that no number of a file that is gone is given to another.
        self._held: dict[Inode, int] = {}

    @contextmanager
    def watching(self, event: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Calls `event` after each fsync and rename, when the trees may have changed."""
        calls = {name: getattr(os, name) for name in ("fsync", "rename", "replace")}

        def watched(name: str) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                result = calls[name](*arguments, **options)
                if name == "fsync":
                    self._synced(arguments[0])
                event()
                return result

            return call

        for name in calls:
            setattr(os, name, watched(name))
        try:
            yield
        finally:
            for name, function in calls.items():
                setattr(os, name, function)
            while self._held:
                os.close(self._held.popitem()[1])

    def _synced(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if not path.is_relative_to(self.root):
            return
        key = self._hold(path)
        if path.is_dir():
            inner = {entry: self._hold(entry) for entry in path.iterdir()}
            self._listings[key] = {entry.name: (inode, entry.is_dir()) for entry, inode in inner.items()}
        else:
            self._contents[key] = path.read_bytes()

    def _hold(self, path: Path) -> Inode:
        key = _inode(path)
        if key not in self._held:
            self._held[key] = os.open(path, os.O_RDONLY)
        return key

    def synced(self) -> Tree:
        """What is left if no name and no content is kept but those that were synced."""
        tree: Tree = {}

        def add(folder: Inode, prefix: str) -> None:
            for name, (inode, is_folder) in self._listings.get(folder, {}).items():
                tree[prefix + name] = None if is_folder else self._contents.get(inode, b"")
                if is_folder:
                    add(inode, f"{prefix}{name}/")

        add(_inode(self.root), "")
        return tree

    def named(self) -> Tree:
        """What is left if all names are kept, but of contents only those that were synced."""
        return {
            str(path.relative_to(self.root)): None if path.is_dir() else self._contents.get(_inode(path), b"")
            for path in sorted(self.root.rglob("*"))
        }


def _inode(path: Path) -> Inode:
    found = path.stat()
    return found.st_dev, found.st_ino


def write(tree: Tree, folder: Path) -> None:
    """Makes a new folder that holds the tree."""
    folder.mkdir(parents=True)
    for name, content in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir(exist_ok=True)
        else:
            path.write_bytes(content)


def digest(tree: Tree) -> str:
    """Equal for equal trees; what a killed save leaves is left out."""
    kept = sorted((name, content) for name, content in tree.items() if ".saving" not in name and ".tmp" not in name)
    return hashlib.sha256(repr(kept).encode()).hexdigest()
