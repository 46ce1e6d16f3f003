"""What is to go to the hub and is not there yet. It lies on the disk, so that it outlives the process.

Owner of the folder `.surestep-outbox` in a run's folder. `waiting` gathers files under the names that they will have in
the repository; newer ones replace older ones. What is about to be sent is packed: it becomes a parcel, a folder that
nothing is added to. A parcel that arrived is removed; one that did not goes back to what waits.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from surestep.checkpoint import files

NAME = ".surestep-outbox"
_PARCEL = re.compile(r"parcel-(\d+)")


class Outbox:
    """The folder of one run's outgoing files. Its methods may be called from several threads."""

    def __init__(self, run_folder: Path) -> None:
        self.waiting = run_folder / NAME / "waiting"
        self._root = run_folder / NAME
        self._lock = threading.Lock()

    def recover(self) -> None:
        """Let what a process that died was sending wait again."""
        for parcel in reversed(self._parcels()):
            self.put_back(parcel)

    def add(self, names: Mapping[str, Path], *, link: bool) -> None:
        """Put files in, each under its name in the repository.

        With `link` they take no room of their own where the disk allows it: for files that are never changed again.

        Raises:
            OSError: the disk is full, or cannot be written to.
        """
        with self._lock:
            for name, source in names.items():
                target = self.waiting / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)
                _place(source, target, link=link)

    @contextmanager
    def adding(self) -> Iterator[Path]:
        """Let the body write files for the root of the repository into the folder that it is given."""
        own = self._root / "writing"
        files.remove(own)
        own.mkdir(parents=True)
        yield own
        self.add({path.relative_to(own).as_posix(): path for path in files.files_in(own)}, link=True)
        files.remove(own)

    def pack(self) -> Path | None:
        """Return what waits as a parcel, or None where nothing does."""
        with self._lock:
            if not self.waiting.is_dir():
                return None
            numbers = [_number(path) for path in self._parcels()]
            parcel = self._root / f"parcel-{max(numbers, default=0) + 1}"
            self.waiting.rename(parcel)
            return parcel

    def put_back(self, parcel: Path) -> None:
        """Let the files of a parcel wait again, but for those of which there are newer ones on their way."""
        with self._lock:
            newer = [path for path in self._parcels() if _number(path) > _number(parcel)]
            for path in files.files_in(parcel):
                name = path.relative_to(parcel)
                target = self.waiting / name
                if not any((folder / name).exists() for folder in (self.waiting, *newer)):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    path.rename(target)
            files.remove(parcel)

    def arrived(self, parcel: Path) -> None:
        """Remove a parcel that is in the repository, and the whole outbox with the last one."""
        with self._lock:
            files.remove(parcel)
            if not any(self._root.iterdir()):
                self._root.rmdir()

    def left(self) -> list[str]:
        """Return the names of the files that wait."""
        return [path.relative_to(self.waiting).as_posix() for path in files.files_in(self.waiting)]

    def _parcels(self) -> list[Path]:
        """Return the parcels, the oldest first."""
        found = [path for path in self._root.glob("parcel-*") if _PARCEL.fullmatch(path.name)]
        return sorted(found, key=_number)


def _number(parcel: Path) -> int:
    match = _PARCEL.fullmatch(parcel.name)
    assert match is not None
    return int(match[1])


def _place(source: Path, target: Path, *, link: bool) -> None:
    if link:
        try:
            os.link(source, target)
        except OSError:
            # Another disk, or one that knows no links.
            link = False
    if not link:
        shutil.copyfile(source, target)
