"""What a safe save does with files and folders, made of the operations of a `Disk`."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from surestep.runtime.disk import disk

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


def blake2b() -> hashlib.blake2b:
    """Return a checksum of the kind that manifests hold, of nothing so far."""
    return hashlib.blake2b(digest_size=_DIGEST_BYTES)


def digest(path: Path) -> str:
    """Return the BLAKE2b checksum of a file."""
    with disk().read(path) as file:
        return hashlib.file_digest(file, blake2b).hexdigest()


def text_digest(text: str) -> str:
    """Return the BLAKE2b checksum of a text."""
    return hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()


def rename(source: Path, target: Path) -> None:
    """Give a file or folder another name in one step, and wait until the new name is on the disk."""
    disk().rename(source, target)
    disk().sync(target.parent)


def remove(path: Path) -> None:
    """Remove a file or a whole folder, if it is there."""
    if not path.is_dir() or path.is_symlink():
        if path.exists() or path.is_symlink():
            disk().remove_file(path)
        return
    for file in files_in(path):
        disk().remove_file(file)
    for folder in folders_in(path):
        disk().remove_folder(folder)


def remove_named(path: Path, hidden: Path) -> None:
    """Remove a folder that others look for by name: its name goes first, so that no half of it is ever found."""
    remove(hidden)
    rename(path, hidden)
    remove(hidden)


def replace(source: Path, target: Path, hidden: Path) -> None:
    """Put the folder `source` in the place of `target`, or neither is changed; an older one is kept as `hidden`."""
    remove(hidden)
    try:
        if target.is_dir():
            rename(target, hidden)
        rename(source, target)
    except BaseException:
        # A new name that may not be on the disk does not count.
        if not source.exists():
            disk().rename(target, source)
        if hidden.exists():
            disk().rename(hidden, target)
        raise
