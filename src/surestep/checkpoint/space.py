"""How much room a checkpoint takes, and how much its place has."""

from __future__ import annotations

import errno
import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes of a checkpoint: of all its files together, and of the largest of them."""

    total: int
    largest: int


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes that can still be written at a place, and the most that one file may have; None where nothing says."""

    free: int | None
    file: int | None


def room_at(folder: Path) -> Room:
    """Return the room where `folder` is, or will be: of its disk, and by the process's limit on files.

    Quotas are not seen here: those show when something is written.
    """
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    usage = shutil.disk_usage(place)
    # Stores that stand for a disk, such as buckets, may know of no size.
    return Room(usage.free if usage.total else None, _largest_file())


def _largest_file() -> int | None:
    """Return the process's limit on the size of a file; None where there is none."""
    try:
        import resource
    except ImportError:
        # Windows knows of no such limit.
        return None
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def check_room(size: Size, folder: Path) -> None:
    """Raise where a checkpoint of `size` cannot be written at `folder`.

    Raises:
        OSError: with the number that the system would give, `ENOSPC` or `EFBIG`, had it been tried.
    """
    room = room_at(folder)
    if room.free is not None and room.free < size.total:
        raise OSError(errno.ENOSPC, "There is not enough room on the disk, so that it was not begun", str(folder))
    if room.file is not None and room.file < size.largest:
        raise OSError(
            errno.EFBIG, f"A file of {human(size.largest)} is over the limit for files (ulimit -f)", str(folder)
        )


def human(num_bytes: float) -> str:
    """Return a number of bytes as people read it, such as 1.4 GiB."""
    value, units = float(num_bytes), ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:.0f} {units[0]}" if units[0] == "bytes" else f"{value:.1f} {units[0]}"
