"""The checkpoints of one run: staged, committed in one step, verified, found again, and thinned out."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from surestep.checkpoint import files, layout, manifest
from surestep.checkpoint.lock import FolderLock
from surestep.errors import CheckpointError
from surestep.logs import get_logger
from surestep.runtime.world import World

_logger = get_logger(__name__)
_LEFTOVER = re.compile(r"\.(staging|deleting|replaced)-(checkpoint-\d+)")
# Signs that the processes leave for each other in a stage's root.
_DONE = ".done-"
_COMMITTED = ".committed"


@dataclass(frozen=True, slots=True)
class Stage:
    """Where one checkpoint is written before it counts. `root` stands for the run's folder, `folder` lies within it."""

    step: int
    root: Path

    @property
    def folder(self) -> Path:
        """The checkpoint to be, under the name that it will have."""
        return self.root / layout.folder_name(self.step)


class Found(NamedTuple):
    """The checkpoint to go on from, and the newer ones that were not fit for it, with what is wrong with each.

    `verified` is false where a folder has no manifest to check it against: the original wrote it.
    """

    path: Path | None
    passed_over: list[tuple[Path, list[str]]]
    verified: bool


class CheckpointStore:
    """Keeper of the folders `checkpoint-<step>` of a run. One that exists under this name is complete.

    Every process of the run makes one, on the same `root`, and calls `staging` together with the others; only the main
    process commits and deletes.
    """

    def __init__(self, root: Path, *, world: World, keep_last: int | None = None) -> None:
        self.root = root
        self._world = world
        self._keep_last = keep_last
        self._lock = FolderLock(root)
        self._claimed = False
        self._newest: Path | None = None

    def claim(self) -> None:
        """Reserve the folder for this run and clear away what a run that died left half-done.

        `staging` does it where nobody did; called at the start, it tells of a folder in use before any work is lost.

        Raises:
            CheckpointError: another process writes checkpoints here.
            OSError: the folder cannot be made or written to.
        """
        if self._claimed or not self._world.is_main:
            return
        self.root.mkdir(parents=True, exist_ok=True)
        first = self._lock.acquire()
        self._claimed = True
        if first:
            self._tidy()

    def release(self) -> None:
        """Let another run have the folder."""
        if self._claimed:
            self._claimed = False
            self._lock.release()

    @contextmanager
    def staging(self, step: int) -> Iterator[Stage]:
        """Write the checkpoint of a step in the body; it is committed when the body ends.

        All files are on the disk and checksummed before the folder gets its name, in one step, in the place of an older
        one of the same step. Other things that the body leaves in the stage's root move to the run's folder. If
        anything fails, in any process, every process raises and nothing is left behind.

        Raises:
            CheckpointError: another process of the run failed, or another run writes here.
            OSError: the disk is full, or cannot be written to.
        """
        stage = Stage(step, self.root / f".staging-{layout.folder_name(step)}")
        self._prepare(stage)
        try:
            yield stage
            self._mark(stage).touch()
        except BaseException:
            self._abandon(stage)
            raise
        self._finish(stage)

    def latest(self) -> Path | None:
        """Return the newest complete checkpoint, by the presence and size of its files; checksums are not compared."""
        self._recover()
        candidates = reversed(layout.checkpoints_in(self.root))
        return next((path for path in candidates if not manifest.examine(path, deep=False).problems), None)

    @property
    def newest(self) -> Path | None:
        """The checkpoint that this store committed last, on the main process; None before the first."""
        return self._newest

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
        """Delete the earliest checkpoints beyond the last `keep_last`, and return them.

        The one committed last and those to `protect` stay, also when that makes more than `keep_last`: with a limit of
        one, the newest and the best. Without `keep_newest` only `protect` does, as at the end of a run. Only folders
        with a manifest count and go: what something else wrote stays.
        """
        if not self._world.is_main or not self._keep_last or self._keep_last < 0:
            return []
        ours = [path for path in layout.checkpoints_in(self.root) if manifest.has_manifest(path)]
        safe = {path.resolve() for path in protect}
        if keep_newest and ours:
            safe.add((self._newest if self._newest in ours else ours[-1]).resolve())
        kept = [path for path in ours if path.resolve() in safe]
        excess = len(ours) - max(self._keep_last, len(kept))
        spare = [path for path in ours if path.resolve() not in safe]
        return [path for path in spare[: max(excess, 0)] if self._delete(path)]

    def _delete(self, path: Path) -> bool:
        try:
            files.remove_named(path, self.root / f".deleting-{path.name}")
        except OSError as error:
            _logger.warning("%s could not be deleted: %s.", path, error)
            return False
        return True

    def _prepare(self, stage: Stage) -> None:
        try:
            if self._world.is_main:
                self.claim()
                files.remove(stage.root)
                stage.folder.mkdir(parents=True)
        finally:
            self._world.barrier()
        if not stage.folder.is_dir():
            raise CheckpointError(f"{stage.root} could not be made by the main process, whose own message says why.")

    def _mark(self, stage: Stage) -> Path:
        """Return the file that says that this process has written its part."""
        return stage.root / f"{_DONE}{self._world.rank}"

    def _finish(self, stage: Stage) -> None:
        """Commit once every process has written its part, and let each know whether that went well."""
        failure = None
        self._world.barrier()
        if self._world.is_main:
            try:
                self._commit(stage)
            except BaseException as error:
                failure = error
                self._discard(stage)
        self._world.barrier()
        committed = (stage.root / _COMMITTED).exists()
        self._world.barrier()
        if failure is not None:
            raise failure
        if not committed:
            raise CheckpointError(
                f"{stage.folder.name} was not committed: another process failed, and its own message says why."
            )
        if self._world.is_main:
            self._discard(stage)

    def _abandon(self, stage: Stage) -> None:
        """Take part in what the other processes do when they finish, so that none waits for ever."""
        with suppress(Exception):
            self._world.barrier()
            if self._world.is_main:
                self._discard(stage)
            self._world.barrier()
            self._world.barrier()
        if self._world.is_main:
            self._discard(stage)

    def _commit(self, stage: Stage) -> None:
        ranks = [rank for rank in range(self._world.size) if not (stage.root / f"{_DONE}{rank}").exists()]
        if ranks:
            raise CheckpointError(
                f"{stage.folder.name} was not committed: the processes of rank {ranks} did not write their part."
            )
        target = self.root / stage.folder.name
        if files.files_in(stage.folder):
            manifest.seal(stage.folder, stage.step)
            self._move_extras(stage)
            files.replace(stage.folder, target, self.root / f".replaced-{target.name}")
            self._newest = target
        else:
            _logger.warning("Nothing was written for %s, and nothing was committed.", target)
        self._mark(stage).rename(stage.root / _COMMITTED)

    def _move_extras(self, stage: Stage) -> None:
        """Move the files that were written beside the checkpoint to where they were meant to be."""
        for path in files.files_in(stage.root):
            if not path.is_relative_to(stage.folder) and not path.name.startswith(_DONE):
                target = self.root / path.relative_to(stage.root)
                target.parent.mkdir(parents=True, exist_ok=True)
                files.rename(path, target)

    def _discard(self, stage: Stage) -> None:
        try:
            files.remove(stage.root)
        except OSError as error:
            _logger.warning("%s could not be removed: %s. The next run will.", stage.root, error)

    def _recover(self) -> None:
        """Clear away a dead run's leftovers, unless something living has the folder or it cannot be written to."""
        if self._claimed or not self._world.is_main or not self.root.is_dir():
            return
        with suppress(CheckpointError, OSError):
            first = self._lock.acquire()
            try:
                if first:
                    self._tidy()
            finally:
                self._lock.release()

    def _tidy(self) -> None:
        """Remove what is half-done; a checkpoint that was about to be replaced gets its name back."""
        for path in sorted(self.root.iterdir()):
            match = _LEFTOVER.fullmatch(path.name)
            if match is None:
                continue
            target = self.root / match.group(2)
            if match.group(1) == "replaced" and not target.exists():
                files.rename(path, target)
                _logger.warning("%s was about to be replaced when a run died; it is back.", target)
            else:
                files.remove(path)
