"""The saves of a run: each is tried; one that fails is told, and the run goes on or stops, as `on_save_error` says.

`Saves` owns what became of them. Of several processes all go on or all stop. What a save that failed had noted in the
trainer's state is the caller's to take back.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING

from surestep.checkpoint.layout import folder_name
from surestep.checkpoint.space import human, room_at
from surestep.checkpoint.store import CheckpointStore, OthersFailedError
from surestep.config.enums import SaveStrategy
from surestep.errors import SaveError
from surestep.logs import get_logger
from surestep.runtime.collectives import agree, gather_objects, on_main
from surestep.runtime.disk import disk_error
from surestep.runtime.world import World

if TYPE_CHECKING:
    from surestep.trainer.trainer import Trainer

logger = get_logger(__name__)
_MAKE_ROOM = "Make room, or set save_total_limit or save_only_model=True."
_OPEN_IT = "Let this user write there, or write another output_dir."
# What to do about an error of the system, by its number.
_HINTS = {
    errno.ENOSPC: _MAKE_ROOM,
    errno.EDQUOT: _MAKE_ROOM,
    errno.EFBIG: "Raise the limit (ulimit -f unlimited).",
    errno.EROFS: _OPEN_IT,
    errno.EACCES: _OPEN_IT,
    errno.EPERM: _OPEN_IT,
}


class _Outcome(IntEnum):
    DONE = 0
    # The disk is full, broken or not to be written to.
    DISK = 1
    # Another process failed; its own outcome says how.
    OTHERS = 2
    # A value that cannot be stored, an error in an override: the next save would fail as well.
    FATAL = 3


class Saves:
    """Tries the saves of one run, in one store, and knows which of them failed."""

    def __init__(self, store: CheckpointStore, world: World, *, stops: bool) -> None:
        self._store = store
        self._world = world
        self._stops = stops
        self._tried = 0
        self._failed: list[int] = []
        # Of the last save, where that one failed.
        self._open: str | None = None

    def attempt(self, step: int, write: Callable[[], None]) -> bool:
        """Write the checkpoint of a step and say whether it is there. Other errors than the disk's raise.

        Raises:
            SaveError: it could not be written, and on_save_error is "stop".
        """
        return self.settle(step, _raised_by(write))

    def begin(self, step: int, prepare: Callable[[], None]) -> bool:
        """Do what comes first of a save that `settle` hears the end of, and say whether it may go on; as `attempt`."""
        failure = _raised_by(prepare)
        outcomes = self._outcomes(failure)
        return not any(outcomes) or self._judge(step, failure, outcomes)

    def settle(self, step: int, failure: BaseException | None) -> bool:
        """Judge what became of a save, on all processes; `failure` is what it raised on this one. As `attempt`."""
        return self._judge(step, failure, self._outcomes(failure))

    def _judge(self, step: int, failure: BaseException | None, outcomes: list[int]) -> bool:
        self._tried += 1
        if not any(outcomes):
            self._open = None
            return True
        if _Outcome.DISK not in outcomes or _Outcome.FATAL in outcomes:
            raise failure or OthersFailedError(f"{folder_name(step)} was not saved: another process failed.")
        self._failed.append(step)
        self._open = self._describe(step, failure, outcomes)
        if self._stops:
            raise SaveError(f'{self._open} Training stops, because on_save_error="stop".') from failure
        if self._world.is_main:
            logger.error("%s Training goes on, and the next save tries again.", self._open)
        return False

    def write_beside(self, name: str, write: Callable[[], None]) -> None:
        """Write a file of the run that no resume needs, on the main process; one that fails is told.

        Raises:
            SaveError: it could not be written, and on_save_error is "stop".
        """
        try:
            on_main(self._world, write)
        except OSError as error:
            problem = f"'{self._store.root / name}' could not be written: {error}."
            if self._stops:
                raise SaveError(problem) from error
            logger.error("%s", problem)

    def conclude(self) -> None:
        """Tell, at the end of the run, which saves failed.

        Raises:
            SaveError: the last one did, so that what the run came to is in memory alone.
        """
        if not self._failed:
            return
        steps = ", ".join(map(str, self._failed))
        summary = f"{len(self._failed)} of {self._tried} saves failed, those of step {steps}."
        if self._open is not None:
            raise SaveError(
                f"Training came to its end, and its last checkpoint is not saved. {self._open} {summary} The trained "
                "model is in memory still: catch surestep.errors.SaveError around train() and write it elsewhere with "
                "save_model('<another disk>'). The results are in trainer.train_output."
            )
        if self._world.is_main:
            logger.warning("%s The checkpoints after them are whole.", summary)

    def _outcomes(self, failure: BaseException | None) -> list[int]:
        own = _outcome(failure)
        if self._world.size == 1:
            return [own]
        return [outcome for (outcome,) in agree([own])]

    def _describe(self, step: int, failure: BaseException | None, outcomes: list[int]) -> str:
        """Return what happened, with the numbers, the same on every process."""
        target = self._store.root / folder_name(step)
        reason = _reason(failure)
        if self._world.size > 1:
            rank = outcomes.index(_Outcome.DISK)
            reason = f"{gather_objects(reason)[rank]} (rank {rank})"
        return on_main(
            self._world, lambda: f"Step {step}: '{target}' could not be saved: {reason} {_numbers(self._store)}"
        )


def begin_saves(trainer: Trainer) -> None:
    """Give a run its store, and reserve the folder for it.

    Raises:
        SaveError: nothing can be written there.
        CheckpointError: another run writes there.
    """
    args, world = trainer.args, trainer._world
    store = trainer._store = trainer._make_store()
    trainer._saves = Saves(store, world, stops=args.on_save_error == "stop")
    if args.save_async:
        from surestep.trainer.later_saves import begin_later_saves

        begin_later_saves(trainer)
    if args.save_strategy != SaveStrategy.NO:
        on_main(world, lambda: _reserve(store))


def _raised_by(write: Callable[[], None]) -> BaseException | None:
    try:
        write()
    except BaseException as error:
        return error
    return None


def _reserve(store: CheckpointStore) -> None:
    try:
        store.claim()
    except OSError as error:
        raise SaveError(
            f"No checkpoint can be written to '{store.root}': {error}. Write another output_dir, or "
            'save_strategy="no".'
        ) from error


def _outcome(failure: BaseException | None) -> _Outcome:
    if failure is None:
        return _Outcome.DONE
    if isinstance(failure, OthersFailedError):
        return _Outcome.OTHERS
    return _Outcome.FATAL if disk_error(failure) is None else _Outcome.DISK


def _reason(failure: BaseException | None) -> str:
    error = None if failure is None else disk_error(failure)
    if error is None:
        return ""
    hint = _HINTS.get(error.errno or 0)
    return f"{error}." if hint is None else f"{error}. {hint}"


def _numbers(store: CheckpointStore) -> str:
    """Return how much room a checkpoint takes, how much there is, and whether something is left of this one."""
    free, size = room_at(store.root).free, store.expected
    texts = [
        "" if size is None else f"It takes about {human(size.total)}.",
        "" if free is None else f"{human(free)} are free there.",
        "What is left of it cannot be removed yet." if store.unfinished else "Nothing of it is left behind.",
    ]
    return " ".join(filter(None, texts))
