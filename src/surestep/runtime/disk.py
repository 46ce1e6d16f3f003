"""The operations on files that lasting things are written with: the one seam between this library and a disk.

What a checkpoint is made of is written by these and nothing else, as far as it is this library that writes (a model's
`save_pretrained` writes its own files). The process has one `Disk`; tests put another in its place, which fails or dies
at an operation of their choice.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path


class Disk:
    """What the operating system does with files; each method raises `OSError` where it cannot."""

    def write(self, path: Path, parts: Iterable[bytes | memoryview]) -> None:
        """Make a file of these parts, in the place of an older one; it need not be on the disk yet."""
        try:
            with path.open("wb") as file:
                for part in parts:
                    file.write(part)
        except OSError as error:
            # A full disk shows at a write, which knows no name.
            error.filename = error.filename or str(path)
            raise

    def read(self, path: Path) -> BufferedReader:
        """Open a file to be read."""
        return path.open("rb")

    def sync(self, path: Path) -> None:
        """Wait until a file, or the list of names of a folder, is on the disk."""
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file or folder another name in one step."""
        source.replace(target)

    def make_folder(self, path: Path) -> None:
        """Make one folder, whose parent is there."""
        path.mkdir()

    def remove_file(self, path: Path) -> None:
        """Remove a file or a link."""
        path.unlink()

    def remove_folder(self, path: Path) -> None:
        """Remove an empty folder."""
        path.rmdir()

    def set_mode(self, path: Path, mode: int) -> None:
        """Set who may read and write a file."""
        path.chmod(mode)


# What libraries say of the disk in errors of their own: those in Rust its number, torch's writer nothing of use.
_NUMBER = re.compile(r"os error (\d+)")
_TORCH_WRITER = re.compile(r"PytorchStreamWriter|unexpected pos \d+ vs \d+")

_disk = Disk()


def disk() -> Disk:
    """Return what this process writes with."""
    return _disk


@contextmanager
def writing_through(other: Disk) -> Iterator[None]:
    """Write with another disk in the body, in every thread of the process."""
    global _disk  # noqa: PLW0603 - the state of the process that this module owns
    before, _disk = _disk, other
    try:
        yield
    finally:
        _disk = before


def disk_error(error: BaseException) -> OSError | None:
    """Return what an error says of the disk as the `OSError` that it is; None where it says nothing of it."""
    if isinstance(error, OSError):
        return error
    text = str(error)
    if (number := _NUMBER.search(text)) is not None:
        return OSError(int(number[1]), os.strerror(int(number[1])))
    return OSError(errno.EIO, f"torch.save failed: {text}") if _TORCH_WRITER.search(text) else None


def make_folders(path: Path) -> list[Path]:
    """Make a folder and its parents, as far as they are not there, and return those made, the outermost first."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    missing.reverse()
    for folder in missing:
        try:
            disk().make_folder(folder)
        except FileExistsError:
            # Another process may have been faster; a file in the place is an error.
            if not folder.is_dir():
                raise
    return missing


def write_text(path: Path, text: str) -> None:
    """Make a file of a text, where nobody looks for it yet."""
    disk().write(path, [text.encode()])


def replace_text(path: Path, text: str) -> None:
    """Put a text in the place of a file, as `replace_bytes` does."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, content: bytes) -> None:
    """Put bytes in the place of a file, in one step: whatever happens, the old or the new one is there, and whole.

    Raises:
        OSError: the disk is full, or cannot be written to; the old file is as it was.
    """
    beside = path.with_name(f".{path.name}.new")
    try:
        disk().write(beside, [content])
        disk().sync(beside)
        disk().rename(beside, path)
    except OSError:
        with suppress(OSError):
            disk().remove_file(beside)
        raise
    disk().sync(path.parent)
