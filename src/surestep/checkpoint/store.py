"""The checkpoints of one run: staged, committed in one step, verified, found again, and thinned out."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from surestep.checkpoint import files, layout, manifest
from surestep.checkpoint.lock import FolderLock
from surestep.checkpoint.manifest import Header
from surestep.checkpoint.retention import Kept, Retention
from surestep.checkpoint.space import Size, check_room
from surestep.checkpoint.stage import Stage, clear, deleting_of, replaced_of, staging_of, tidy
from surestep.errors import CheckpointError
from surestep.logs import get_logger
from surestep.runtime.disk import disk, make_folders
from surestep.runtime.world import World

_logger = get_logger(__name__)


class Found(NamedTuple):
    """The checkpoint to go on from, and the newer ones that were not fit for it, with what is wrong with each.

    `verified` is false where a folder has no manifest to check it against: the original wrote it.
    """

    path: Path | None
    passed_over: list[tuple[Path, list[str]]]
    verified: bool


class OthersFailedError(CheckpointError):
    """A checkpoint that another process of the run could not write; its own message says why."""


class CheckpointStore:
    """Keeper of the folders `checkpoint-<step>` of a run. One that exists under this name is complete.

    Every process of the run makes one, on the same `root`, and calls `staging` together with the others; only the main
    process commits and deletes. `run` is the name of the run, by which its checkpoints are told from others'.
    """

    def __init__(self, root: Path, *, world: World, retention: Retention | None = None) -> None:
        self.root = root
        self.run = os.urandom(8).hex()
        self.retention = Retention() if retention is None else retention
        self._world = world
        self._lock = FolderLock(root)
        self._claimed = False
        self._newest: Path | None = None
        self._expected: Size | None = None
        # What is half-done and could not be cleared away.
        self._left: set[Path] = set()

    def claim(self) -> None:
        """Reserve the folder for this run and clear away what a run that died left half-done.

        `staging` does it where nobody did; called at the start, it tells of a folder in use before any work is lost.

        Raises:
            CheckpointError: another process writes checkpoints here.
            OSError: the folder cannot be made or written to.
        """
        if self._claimed or not self._world.is_main:
            return
        for folder in make_folders(self.root):
            disk().sync(folder.parent)
        first = self._lock.acquire()
        self._claimed = True
        if first:
            tidy(self.root)

    def release(self) -> None:
        """Let another run have the folder."""
        if self._claimed:
            self._claimed = False
            self._lock.release()

    def expect(self, size: Size) -> None:
        """Take `size` for that of the next checkpoint; afterwards each tells how large the next one will be."""
        self._expected = size

    @property
    def expected(self) -> Size | None:
        """How much room the next checkpoint takes, on the main process; None where nothing says."""
        return self._expected

    @property
    def unfinished(self) -> bool:
        """Whether something half-done lies there that could not be cleared away yet."""
        return any(path.exists() for path in self._left)

    @contextmanager
    def staging(self, step: int, score: float | None = None) -> Iterator[Stage]:
        """Write the checkpoint of a step in the body; it is committed when the body ends.

        All files are on the disk and checksummed before the folder gets its name, in one step, in the place of an older
        one of the same step. Other things that the body leaves in the stage's root move to the run's folder. If
        anything fails, in any process, every process raises and nothing is left behind. Nothing is begun where the
        disk has no room for what is expected. `score` is what retention by the best compares.

        Raises:
            OthersFailedError: another process of the run failed.
            CheckpointError: another run writes here, or a process did not write its part.
            OSError: the disk is full, or cannot be written to.
        """
        stage = self.stage(step, score)
        try:
            self.prepare(stage)
            yield stage
            stage.sign(self._world.rank)
        except BaseException:
            self._abandon(stage)
            raise
        self._finish(stage)

    def stage(self, step: int, score: float | None = None) -> Stage:
        """Return where the checkpoint of a step is staged; nothing is made yet.

        Whoever does not commit by `staging` calls `prepare`, fills the stage and signs it, on every process, and then
        `commit` or `drop` on the main one.
        """
        return Stage(step, staging_of(self.root, step), score)

    def receive(self, step: int, size: Size, fill: Callable[[Path], None]) -> Path:
        """Put a checkpoint that was written elsewhere in its place here, and return that; one process does it.

        `fill` writes all of it, the manifest too, into the folder that it is given. Where it raises, nothing is left.

        Raises:
            CheckpointError: another process writes checkpoints here.
            OSError: the disk is full, or cannot be written to.
        """
        claimed = self._claimed
        self.claim()
        stage = Stage(step, staging_of(self.root, step))
        try:
            self._discard(stage.root)
            make_folders(self.root)
            check_room(size, self.root)
            make_folders(stage.folder)
            fill(stage.folder)
            target = self.root / stage.folder.name
            manifest.settle(stage.folder)
            files.replace(stage.folder, target, replaced_of(target))
            self._discard(replaced_of(target))
        finally:
            self._discard(stage.root)
            if not claimed:
                self.release()
        return target

    def latest(self) -> Path | None:
        """Return the newest complete checkpoint, by the presence and size of its files; checksums are not compared."""
        self._recover()
        candidates = reversed(layout.checkpoints_in(self.root))
        return next((path for path in candidates if not manifest.examine(path, deep=False).problems), None)

    @property
    def newest(self) -> Path | None:
        """The checkpoint that this store committed last, on the main process; None before the first."""
        return self._newest

    def own(self) -> list[Kept]:
        """Return the checkpoints that this run wrote, the earliest step first; one whose manifest is damaged is not."""
        found = [(path, manifest.header_of(path)) for path in layout.checkpoints_in(self.root)]
        return [Kept(path, one.step, one.score) for path, one in found if one is not None and one.run == self.run]

    def verify(self, folder: Path) -> list[str]:
        """Return what is wrong with a checkpoint, a sentence each; an empty list when it is whole."""
        return manifest.examine(folder).problems

    def newest_valid(self, among: Callable[[Path], bool] = Path.is_dir) -> Found:
        """Return the newest checkpoint whose every file is as it was written, and those passed over on the way.

        Reads all of it: with several processes, let the main one ask and tell the others. Only checkpoints `among`
        those that count are looked at.
        """
        self._recover()
        passed_over: list[tuple[Path, list[str]]] = []
        for path in filter(among, reversed(layout.checkpoints_in(self.root))):
            verdict = manifest.examine(path)
            if not verdict.problems:
                return Found(path, passed_over, verdict.verified)
            _logger.warning("%s is passed over: %s.", path, "; ".join(verdict.problems))
            passed_over.append((path, verdict.problems))
        return Found(None, passed_over, verified=False)

    def set_aside(self, folder: Path) -> Path:
        """Give a damaged checkpoint a name under which nobody looks for one, and return that."""
        stem, count = f"damaged-{folder.name}", 1
        target = folder.with_name(stem)
        while target.exists():
            count += 1
            target = folder.with_name(f"{stem}-{count}")
        files.rename(folder, target)
        return target

    def prune(self, protect: Collection[Path] = (), *, keep_newest: bool = True) -> list[Path]:
        """Delete the checkpoints of this run that its retention does not keep, and return them.

        The one committed last and those to `protect` stay, also when that makes more than the last so many. Without
        `keep_newest` only `protect` does, as at the end of a run. What another run or another program wrote stays.
        """
        if not self._world.is_main:
            return []
        own = self.own()
        paths = [item.path for item in own]
        newest = (self._newest if self._newest in paths else paths[-1]) if keep_newest and paths else None
        return [path for path in self.retention.spare(own, newest, protect) if self._delete(path)]

    def _delete(self, path: Path) -> bool:
        try:
            files.remove_named(path, deleting_of(path))
        except OSError as error:
            _logger.warning("%s could not be deleted: %s.", path, error)
            self._left.add(deleting_of(path))
        return not path.exists()

    def prepare(self, stage: Stage) -> None:
        """Make the folder of a stage; all processes call it, and meet in it. Raises what `staging` raises."""
        try:
            if self._world.is_main:
                self.claim()
                for path in [stage.root, *self._left]:
                    self._discard(path)
                if self._expected is not None:
                    check_room(self._expected, self.root)
                make_folders(stage.folder)
        finally:
            self._world.barrier()
        if not stage.folder.is_dir():
            raise OthersFailedError(f"{stage.root} could not be made by the main process, whose own message says why.")

    def commit(self, stage: Stage) -> None:
        """Give a checkpoint its name that every process has written its part of and signed, on the main process.

        What is left of the stage stays until it is dropped, so that others see whether it is sealed.

        Raises:
            OthersFailedError: a process has not signed.
            OSError: the disk is full, or cannot be written to. Nothing is left then.
        """
        try:
            self._commit(stage)
        except BaseException:
            self._discard(stage.root)
            raise

    def drop(self, stage: Stage) -> None:
        """Clear away what a stage holds, committed or not; the main process does it."""
        if self._world.is_main:
            self._discard_own(stage)

    def _finish(self, stage: Stage) -> None:
        """Commit once every process has written its part, and let each know whether that went well."""
        failure = None
        self._world.barrier()
        if self._world.is_main:
            try:
                self.commit(stage)
            except BaseException as error:
                failure = error
        self._world.barrier()
        committed = stage.sealed
        self._world.barrier()
        if failure is not None:
            raise failure
        if not committed:
            raise OthersFailedError(
                f"{stage.folder.name} was not committed: another process failed, and its own message says why."
            )
        if self._world.is_main:
            self._discard(stage.root)

    def _abandon(self, stage: Stage) -> None:
        """Take part in what the other processes do when they finish, so that none waits for ever."""
        with suppress(Exception):
            self._world.barrier()
            self._discard_own(stage)
            self._world.barrier()
            self._world.barrier()
        self._discard_own(stage)

    def _discard_own(self, stage: Stage) -> None:
        # Without the claim the folder is another run's, and so is what is staged in it.
        if self._claimed:
            self._discard(stage.root)

    def _commit(self, stage: Stage) -> None:
        ranks = stage.unsigned(self._world.size)
        if ranks:
            # They have raised, or write elsewhere.
            raise OthersFailedError(
                f"{stage.folder.name} was not committed: the processes of rank {ranks} did not write their part."
            )
        target = self.root / stage.folder.name
        if not files.files_in(stage.folder):
            _logger.warning("Nothing was written for %s, and nothing was committed.", target)
            stage.seal()
            return
        size = manifest.seal(stage.folder, Header(stage.step, self.run, stage.score))
        stage.move_extras(self.root)
        stage.seal()
        # Whatever happens: it is removed, or gets its name back, with the next save.
        self._left.add(replaced_of(target))
        files.replace(stage.folder, target, replaced_of(target))
        self._newest, self._expected = target, size
        self._discard(replaced_of(target))

    def _discard(self, path: Path) -> None:
        """Clear away what is not needed; where that fails, the next save tries again, and so does the next run."""
        self._left.discard(path)
        try:
            clear(path)
        except OSError as error:
            self._left.add(path)
            _logger.warning("%s could not be removed: %s. The next save tries again.", path, error)

    def _recover(self) -> None:
        """Clear away a dead run's leftovers, unless something living has the folder or it cannot be written to."""
        if self._claimed or not self._world.is_main or not self.root.is_dir():
            return
        with suppress(CheckpointError, OSError):
            first = self._lock.acquire()
            try:
                if first:
                    tidy(self.root)
            finally:
                self._lock.release()
