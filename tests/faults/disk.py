"""A disk that fails, or on which the process dies, at an operation of the test's choice.

It notes what is waited for and does not wait: nothing here is about a real disk.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from surestep.runtime.disk import Disk

# What a full disk does not hinder.
FREEING = {"sync", "rename", "remove_file", "remove_folder", "read", "set_mode"}


class Dead(BaseException):
    """Stands for the death of the process: whatever it tries afterwards does not happen."""


@dataclass(frozen=True)
class Fault:
    """What happens at the operation number `at`: an error of the system, or with None the death of the process.

    `lasting` says that every later operation that needs what is broken fails as well.
    """

    at: int
    error: int | None = None
    lasting: bool = False

    def hits(self, number: int, name: str) -> bool:
        if number == self.at:
            return True
        return self.lasting and number > self.at and not (self.error == errno.ENOSPC and name in FREEING)


class FaultyDisk(Disk):
    """A disk with one fault. `operations` has what was asked of it, in order."""

    def __init__(self, fault: Fault | None = None) -> None:
        self.fault = fault
        self.operations: list[str] = []
        self.hits = 0
        self.dead = False
        self._synced: dict[int, tuple[int, int]] = {}
        self._renamed: list[tuple[Path, Path]] = []

    @property
    def hit(self) -> bool:
        return self.hits > 0

    def _do(self, name: str, path: Path) -> None:
        if self.dead:
            raise Dead
        number = len(self.operations)
        self.operations.append(f"{name} {path.name}")
        if self.fault is None or not self.fault.hits(number, name):
            return
        self.hits += 1
        if self.fault.error is None:
            self.dead = True
            raise Dead
        raise OSError(self.fault.error, os.strerror(self.fault.error), str(path))

    def write(self, path: Path, parts: Iterable[bytes | memoryview]) -> None:
        def torn() -> Iterator[bytes | memoryview]:
            for part in parts:
                try:
                    self._do("write", path)
                except (OSError, Dead):
                    yield memoryview(part).cast("B")[: len(memoryview(part).cast("B")) // 2]
                    raise
                yield part

        self._do("create", path)
        super().write(path, torn())

    def read(self, path: Path) -> BufferedReader:
        self._do("read", path)
        return super().read(path)

    def sync(self, path: Path) -> None:
        self._do("sync", path)
        found = path.stat()
        self._synced[found.st_ino] = (found.st_size, found.st_mtime_ns)
        self._renamed = [(source, target) for source, target in self._renamed if target.parent != path]

    def rename(self, source: Path, target: Path) -> None:
        self._do("rename", target)
        super().rename(source, target)
        self._renamed.append((source, target))

    def make_folder(self, path: Path) -> None:
        self._do("make_folder", path)
        super().make_folder(path)

    def remove_file(self, path: Path) -> None:
        self._do("remove_file", path)
        super().remove_file(path)

    def remove_folder(self, path: Path) -> None:
        self._do("remove_folder", path)
        super().remove_folder(path)

    def set_mode(self, path: Path, mode: int) -> None:
        self._do("set_mode", path)
        super().set_mode(path, mode)

    def lose_power(self, root: Path, safe: set[int]) -> None:
        """Lose what was not waited for: names that are not on the disk, and the content of files that are not.

        `safe` are the files that were there before, by `inodes`.
        """
        for source, target in reversed(self._renamed):
            if target.exists() and source.parent.is_dir() and not source.exists():
                target.rename(source)
        for path in [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]:
            found = path.stat()
            known = self._synced.get(found.st_ino) == (found.st_size, found.st_mtime_ns)
            if not known and found.st_ino not in safe:
                os.truncate(path, 0)


def inodes(root: Path) -> set[int]:
    """Return what tells the files below a folder from others, whatever their names."""
    return {path.stat().st_ino for path in root.rglob("*") if path.is_file()}
