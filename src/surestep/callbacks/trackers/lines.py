"""A file of lines that outlives its process: it grows, and goes back to a place in it without losing what it takes out.

Owner of the file and of the one beside it, `<name>.undone<suffix>`, which keeps what was taken out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from surestep.runtime.disk import disk

Test = Callable[[bytes], bool]


@dataclass(frozen=True)
class Place:
    """A place in a file: so many bytes from its beginning, and a digest of them that says whether it is that file."""

    length: int
    digest: str

    def fits(self, content: bytes) -> bool:
        """Say whether the place is in a file of this content."""
        return len(content) >= self.length and _begun(content[: self.length]).hexdigest() == self.digest


@dataclass(frozen=True)
class Cut:
    """A file in two parts: what stays, and what is taken out. `stayed` says that the line after the place did."""

    kept: bytes
    undone: bytes
    at_place: bool = False
    stayed: bool = False

    @property
    def count(self) -> int:
        """The number of lines that are taken out; one that was never finished is one."""
        return len(self.undone.splitlines())


class LineLog:
    """The lines of one file: with the operating system when `append` returns, and on the disk after `sync`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._torn = False
        self._begin(self._content())

    @property
    def undone_path(self) -> Path:
        """The file of what was taken out."""
        return self.path.with_name(f"{self.path.stem}.undone{self.path.suffix}")

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing in the file."""
        return self._size == 0

    def append(self, line: str) -> None:
        """Add a line.

        Raises:
            OSError: the disk is full, or cannot be written to. A later line begins on a line of its own all the same.
        """
        data = ("\n" * self._torn + line + "\n").encode()
        try:
            with self.path.open("ab", buffering=0) as file:
                if file.write(data) != len(data):
                    raise OSError("it took a part of a line only")
        except OSError:
            self._torn, self._known = True, False
            raise
        self._torn = False
        self._seen.update(data)
        self._size += len(data)

    def sync(self) -> None:
        """Wait until every line is on the disk."""
        if not self.is_empty:
            disk().sync(self.path)

    def place(self) -> Place | None:
        """Return where the file ends; None where a line could not be written, so that nobody knows."""
        return Place(self._size, self._seen.copy().hexdigest()) if self._known else None

    def cut(self, place: Place | None, *, keep: Test, stays: Test) -> Cut:
        """Part the file at a place; where it is not one of this file, into the lines to `keep` and the others.

        The line that follows the place is kept too if it `stays`.
        """
        content = self._content()
        if place is None or not place.fits(content):
            whole = [(line, line.endswith(b"\n") and keep(line)) for line in content.splitlines(keepends=True)]
            kept, undone = (b"".join(line for line, good in whole if good is wanted) for wanted in (True, False))
            return Cut(kept, undone)
        kept, rest = content[: place.length], content[place.length :]
        line, end, others = rest.partition(b"\n")
        stayed = bool(end) and stays(line)
        return Cut(kept + line + end, others, True, True) if stayed else Cut(kept, rest, True)

    def go_back(self, cut: Cut, note: str) -> None:
        """Take lines out, in one stroke. They are kept in the other file, after the line `note`."""
        end = b"" if cut.undone.endswith(b"\n") or not cut.undone else b"\n"
        with self.undone_path.open("ab") as file:
            file.write(note.encode() + b"\n" + cut.undone + end)
        disk().sync(self.undone_path)
        if cut.undone:
            beside = self.path.with_suffix(".part")
            beside.write_bytes(cut.kept)
            disk().sync(beside)
            beside.replace(self.path)
            disk().sync(self.path.parent)
        self._begin(cut.kept)

    def set_aside(self) -> None:
        """Keep the file, and what was taken out of it, under the next free number; begin anew."""
        number = 1
        while (aside := self.path.with_name(f"{self.path.stem}.{number}{self.path.suffix}")).exists():
            number += 1
        for path, name in ((self.path, aside.name), (self.undone_path, f"{aside.stem}.undone{aside.suffix}")):
            if path.exists():
                path.rename(path.with_name(name))
        self._begin(b"")

    def _begin(self, content: bytes) -> None:
        """Go on after what is in the file."""
        self._seen, self._size = _begun(content), len(content)
        self._torn, self._known = False, True

    def _content(self) -> bytes:
        return self.path.read_bytes() if self.path.exists() else b""


def _begun(content: bytes) -> hashlib.blake2b:
    return hashlib.blake2b(content, digest_size=16)
