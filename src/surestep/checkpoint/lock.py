"""One writing process a folder."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from surestep.errors import CheckpointError
from surestep.logs import get_logger, warn_once

_logger = get_logger(__name__)
_CHECKPOINTS = ".surestep-lock"

# Open locks of this process: handle and number of holders. The process id is part of the key, since a forked child
# copies the table but not the locks.
_held: dict[tuple[int, Path], tuple[int, int]] = {}


class FolderLock:
    """The right of this process to write into a folder. It ends with the process, however that ends.

    Any number of holders within one process share it. It is a record lock, so that the children of a process neither
    have it nor keep it alive. Locks of another `name` are others: that of checkpoints, that of a job.
    """

    def __init__(self, folder: Path, name: str = _CHECKPOINTS) -> None:
        self._folder, self._name = folder, name
        self._key: tuple[int, Path] | None = None

    def acquire(self) -> bool:
        """Take the right, or raise; say whether this is the first holder within the process.

        Raises:
            CheckpointError: another process has it; the message says which.
            OSError: the folder cannot be written to.
        """
        path = self._folder.resolve() / self._name
        # Kept, because the folder may have another name by the time it is released.
        self._key = key = (os.getpid(), path)
        if key in _held:
            handle, holders = _held[key]
            _held[key] = handle, holders + 1
            return False
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(handle, path)
            os.ftruncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
        except BaseException:
            os.close(handle)
            raise
        _held[key] = handle, 1
        return True

    def release(self) -> None:
        """Give the right back; the last holder's release frees the folder."""
        assert self._key is not None
        handle, holders = _held.pop(self._key)
        if holders > 1:
            _held[self._key] = handle, holders - 1
        else:
            os.close(handle)


def _lock(handle: int, path: Path) -> None:
    """Take the record lock of an open file; a file system without locks is told of once and trusted."""
    try:
        import fcntl
    except ImportError:
        # Windows has no such locks; there, two runs in one folder are not kept apart.
        return
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        owner = os.read(handle, 200).decode(errors="replace") or "another process"
        raise CheckpointError(
            f"{path.parent} is being written to by {owner}. Give each run its own output_dir, or stop that run first."
        ) from error
    except OSError as error:
        warn_once(_logger, f"{path.parent} cannot be locked ({error}): make sure that only one run writes into it.")
