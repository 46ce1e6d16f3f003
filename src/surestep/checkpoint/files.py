"""The few operations on files that a safe save is made of. Tests put faults between them."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

_DIGEST_BYTES = 32


def files_in(folder: Path) -> list[Path]:
    """Return every file and link below `folder`, sorted by path."""
    found = [
        Path(parent) / name
        for parent, folders, names in os.walk(folder)
        for name in [*names, *(name for name in folders if (Path(parent) / name).is_symlink())]
    ]
    return sorted(found)


def folders_in(folder: Path) -> list[Path]:
    """Return `folder` and every folder below it, the deepest first."""
    return [Path(parent) for parent, _, _ in os.walk(folder, topdown=False)]


def sync(path: Path) -> None:
    """Wait until a file, or the list of names of a folder, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def digest(path: Path) -> str:
    """Return the BLAKE2b checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=_DIGEST_BYTES)).hexdigest()


def text_digest(text: str) -> str:
    """Return the BLAKE2b checksum of a text."""
    return hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()


def rename(source: Path, target: Path) -> None:
    """Give a file or folder another name in one step, and wait until the new name is on the disk."""
    source.rename(target)
    sync(target.parent)


def remove(path: Path) -> None:
    """Remove a file or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_named(path: Path, hidden: Path) -> None:
    """Remove a folder that others look for by name: its name goes first, so that no half of it is ever found."""
    remove(hidden)
    rename(path, hidden)
    remove(hidden)


def replace(source: Path, target: Path, hidden: Path) -> None:
    """Put the folder `source` in the place of `target`; the old one is kept as `hidden` until the new one is there."""
    if not target.is_dir():
        rename(source, target)
        return
    remove(hidden)
    rename(target, hidden)
    try:
        rename(source, target)
    except BaseException:
        if not target.exists():
            rename(hidden, target)
        raise
    remove(hidden)
