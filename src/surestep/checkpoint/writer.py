"""Checkpoints that are written beside the training: what is left to do of a save once its content is held.

A `Writer` owns the thread and the memory that the content is held in, both until the run ends. At the save, the thread
that trains fills a stage, of which the tensors are held (`checkpoint.held`). The writer's thread gives the files their
content, waits for the disk, makes the manifest, gives the checkpoint its name and removes what need not stay. From
`start` until the result is taken the stage and the store's folder are the thread's.

Of several processes each has such a thread, and the checkpoint counts once all have written their part. They tell each
other by notes in the store of the group: a collective would come between those of the training.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from surestep.checkpoint.held import Buffers, HeldFiles, holding
from surestep.checkpoint.layout import folder_name
from surestep.checkpoint.stage import Stage
from surestep.checkpoint.store import CheckpointStore, OthersFailedError
from surestep.runtime.background import Background
from surestep.runtime.world import World

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

_LOOK_EVERY = 0.01
_DONE, _FAILED = "done", "failed"


class Notes:
    """What the writing threads tell each other; alone there is nobody to tell, and nothing to wait for."""

    def tell(self, what: str, *, done: bool) -> None:
        """Say how something went."""

    def wait_for(self, names: list[str]) -> bool:
        """Wait until all of these are told, and say whether all went well."""
        del names
        return True

    def leave(self) -> None:
        """Wait for nobody any more."""

    @contextmanager
    def telling(self, what: str) -> Iterator[None]:
        """Tell how the body went."""
        try:
            yield
        except BaseException:
            self.tell(what, done=False)
            raise
        self.tell(what, done=True)


class SharedNotes(Notes):
    """Notes in the store of the processes' group; not told within `patience` seconds is gone wrong."""

    def __init__(self, store: Store, patience: float) -> None:
        self._store = store
        self._patience = patience
        self._leaving = threading.Event()

    def tell(self, what: str, *, done: bool) -> None:
        """Say how something went."""
        self._store.set(what, _DONE if done else _FAILED)

    def wait_for(self, names: list[str]) -> bool:
        """Wait until all of these are told, and say whether all went well."""
        until = time.monotonic() + self._patience
        while not self._store.check(names):
            if self._leaving.wait(_LOOK_EVERY) or time.monotonic() > until:
                return False
        return all(self._store.get(name).decode() == _DONE for name in names)

    def leave(self) -> None:
        """Wait for nobody any more."""
        self._leaving.set()


class Writer:
    """Finishes the checkpoints of a store in a thread, one at a time.

    `device` is where the tensors come from, and `notes` is what the processes tell each other by. `ready` says that a
    checkpoint is finished, or has failed, and nobody has taken that yet.
    """

    def __init__(self, store: CheckpointStore, world: World, device: torch.device, notes: Notes) -> None:
        self.ready = False
        self._store = store
        self._world = world
        self._notes = notes
        self._buffers = Buffers(device)
        self._background = Background[float]("surestep-writer")
        self._number = 0

    @property
    def held_bytes(self) -> int:
        """How much memory the content of a checkpoint takes."""
        return self._buffers.total

    @property
    def in_flight(self) -> str | None:
        """The name of the checkpoint whose result nobody has taken yet."""
        return self._background.in_flight

    @contextmanager
    def filling(self, stage: Stage) -> Iterator[HeldFiles]:
        """Make a stage and hold what the body writes into it; the checkpoint before is finished."""
        assert self.in_flight is None
        self._store.prepare(stage)
        with holding(stage.folder, self._buffers) as held:
            yield held

    def start(self, stage: Stage, held: HeldFiles, protect: Collection[Path]) -> None:
        """Finish the checkpoint that was filled on every process; afterwards `protect` stays, besides what is kept."""
        self._number += 1
        number = self._number

        def work() -> float:
            try:
                self._finish(number, stage, held)
                self._store.prune(protect)
                return time.monotonic()
            finally:
                self.ready = True

        self._background.start(work, folder_name(stage.step))

    def take(self) -> float:
        """Wait for the checkpoint and return when it was finished, on the monotonic clock.

        Raises:
            OthersFailedError: another process could not write its part.
            OSError: the disk is full, or cannot be written to.
        """
        try:
            return self._background.take()
        finally:
            self.ready = False

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the checkpoint, at most so many seconds, and say whether it is finished."""
        return self._background.wait(seconds)

    def close(self, patience: float | None = None) -> None:
        """Wait for the checkpoint, for other processes at most `patience` seconds, and give the memory back."""
        if not self._background.wait(patience):
            self._notes.leave()
        self._background.close()
        self._buffers.close()
        self.ready = False

    def _finish(self, number: int, stage: Stage, held: HeldFiles) -> None:
        parts, end = [f"{number}/{rank}" for rank in range(self._world.size)], f"{number}/end"
        if not self._world.is_main:
            self._write(parts, stage, held)
            self._expect(stage, [end])
            return
        with self._notes.telling(end):
            try:
                self._write(parts, stage, held)
                self._expect(stage, parts)
                self._store.commit(stage)
            except BaseException:
                # Nothing is taken from under the others while they write.
                self._notes.wait_for(parts)
                self._store.drop(stage)
                raise
        self._store.drop(stage)

    def _write(self, parts: list[str], stage: Stage, held: HeldFiles) -> None:
        with self._notes.telling(parts[self._world.rank]):
            held.write_held()
            stage.sign(self._world.rank)

    def _expect(self, stage: Stage, names: list[str]) -> None:
        if not self._notes.wait_for(names):
            raise OthersFailedError(
                f"{folder_name(stage.step)} was not committed: another process failed, and its own message says why."
            )
