"""Saves that are finished while training goes on (`save_async`).

`LaterSaves` owns what was noted at a save whose checkpoint is not on the disk yet: its step, the state as it was, and
what to take back should it fail. What holds and writes the content is `checkpoint.writer`'s.

One save is under way at most. It is concluded (judged by `on_save_error`, noted, told to the callbacks) in the thread
that trains, between two steps: as soon as every process knows that it is finished, and at the latest before anything
that needs it: the next save, going back to a checkpoint, what a signal asks for, the end. `on_save` then gets the state
of the step that was saved. Several processes conclude at the same place, found without waiting for each other.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, cast

from torch import nn

from surestep.checkpoint.held import HeldFiles
from surestep.checkpoint.layout import folder_name
from surestep.checkpoint.weights import is_stored_otherwise
from surestep.checkpoint.writer import Notes, SharedNotes, Writer
from surestep.logs import announce, get_logger
from surestep.trainer.older import overridden
from surestep.training.state import TrainerState

if TYPE_CHECKING:
    from surestep.runtime.agreement import Agreement, Meeting
    from surestep.runtime.signals import Request, Signals
    from surestep.trainer.trainer import Trainer

logger = get_logger(__name__)

# What says what is in a checkpoint, and when one is written: an override may read what it has just had written.
_SAVING = (
    *("save_model", "_save", "_save_checkpoint", "_save_optimizer_and_scheduler", "_save_scaler", "_save_rng_state"),
    *("_commit_checkpoint", "_save_whole", "_maybe_log_save_evaluate", "_get_output_dir"),
)
# How many seconds a run that fails waits for the other processes to write their parts of a checkpoint.
_PATIENCE = 60.0
# How many seconds of waiting for the save before are worth a word.
_NOTICED = 0.05
_RUNS = count()


@dataclass(frozen=True)
class _UnderWay:
    """What was noted at a save: the place between two steps, when it began, the state then, the best before."""

    place: int | None
    began: float
    state: TrainerState
    best: str | None

    @property
    def step(self) -> int:
        return self.state.global_step


class LaterSaves:
    """Begins the saves of one run and concludes them."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._meeting: Meeting | None = None
        self._under_way: _UnderWay | None = None
        self._number = 0
        self._told = False
        world, notes = trainer._world, Notes()
        if world.size > 1:
            from surestep.runtime.agreement import shared_store

            self._keys = shared_store(f"saves/{next(_RUNS)}")
            notes = SharedNotes(self._keys, patience=trainer.args.ddp_timeout)
        self.writer = Writer(trainer._store, world, trainer.engine.device, notes)

    def save(self, model: nn.Module, trial: object) -> None:
        """Hold what a checkpoint of this step has, and have it written; the save before is concluded first."""
        trainer = self._trainer
        self._wait_for_the_one_before()
        state, run, began = trainer.state, trainer._run, time.monotonic()
        best, place = state.best_model_checkpoint, None if run is None else run.place
        stage, held = trainer._store.stage(state.global_step, trainer._score_of(state.global_step)), list[HeldFiles]()

        def fill() -> None:
            with self.writer.filling(stage) as files:
                trainer._fill(stage, model, trial)
            held.append(files)

        try:
            goes_on = trainer._saves.begin(state.global_step, fill)
        except BaseException:
            trainer._store.drop(stage)
            raise
        trainer.control.should_save = False
        if not goes_on:
            trainer._store.drop(stage)
            trainer._forget_save(state.global_step, best)
            return
        then = copy.copy(state)
        then.log_history = list(state.log_history)
        self._under_way = _UnderWay(place, began, then, best)
        self._meeting = self._new_meeting()
        self.writer.start(stage, held[0], trainer._protected())

    def look(self, place: int) -> None:
        """Conclude the save that is finished, at the first place at which every process knows that it is."""
        if self._under_way is not None and (self._meeting is None or self._meeting.attend(place)):
            self._conclude(self._under_way)

    def finish(self) -> None:
        """Wait for the save that is under way and conclude it; all processes do, at the same place.

        Raises:
            SaveError: it failed, and on_save_error is "stop".
        """
        if self._under_way is not None:
            self._conclude(self._under_way)

    def close(self) -> None:
        """Let the save that is under way come to its end where a run ends, whatever ended it; tell if it fails."""
        try:
            if self._trainer._world.size == 1:
                self.finish()
        except Exception as error:
            logger.error("%s", error)
        finally:
            self._under_way = None
            self.writer.close(None if self._trainer._world.size == 1 else _PATIENCE)

    def _wait_for_the_one_before(self) -> None:
        if self._under_way is None:
            return
        began = time.monotonic()
        self.writer.wait()
        seconds, then = time.monotonic() - began, self._under_way.step
        if seconds >= _NOTICED and not self._told and self._trainer._world.is_main:
            self._told = True
            logger.warning(
                "save_async: the save of step %d waited %.1f s for that of step %d, which was still being written. "
                "Training waits whenever saves come faster than the disk takes them: raise save_steps (now %g), or "
                "write to a faster disk. This is told once.",
                *(self._trainer.state.global_step, seconds, then, self._trainer.args.save_steps),
            )
        self.finish()

    def _new_meeting(self) -> Meeting | None:
        if self._trainer._world.size == 1:
            return None
        from surestep.runtime.agreement import Meeting

        self._number += 1
        return Meeting(self._keys, self._trainer._world, f"conclude/{self._number}")

    def _conclude(self, save: _UnderWay) -> None:
        trainer, self._under_way, self._meeting = self._trainer, None, None
        failure, ended = None, save.began
        try:
            ended = self.writer.take()
        except BaseException as error:
            failure = error
        there = False
        try:
            there = trainer._saves.settle(save.step, failure)
        finally:
            if not there:
                trainer._forget_save(save.step, save.best)
        if there:
            trainer._note_saved(save.place, ended - save.began)
            trainer._share_checkpoint(trainer._store.root / folder_name(save.step))
            # By no event of today's: what is asked for now is not answered by a save of then.
            events = trainer.callback_handler
            trainer.control = events.call_event("on_save", trainer.args, save.state, trainer.control)


class Look:
    """What a run looks at between two steps: the signals, and the save that is under way."""

    def __init__(self, signals: Signals | Agreement, saves: LaterSaves) -> None:
        self._signals = signals
        self._saves = saves
        self._writer = saves.writer
        self._called = False

    @property
    def asked(self) -> bool:
        """Whether a signal came, or a save is finished."""
        self._called = bool(self._signals.asked)
        return self._called or self._writer.ready

    def settle(self, place: int) -> Request | None:
        """Conclude a save that is finished; return what a signal asks all processes to do at this place."""
        if self._writer.ready:
            self._saves.look(place)
        return self._signals.settle(place) if self._called else None

    def done(self, request: Request) -> None:
        """Forget a request that was answered."""
        self._signals.done(request)

    def told_failures(self, own: str, *, wait: float) -> dict[int, str]:
        """Tell the other processes how this one has failed; see `Agreement.told_failures`."""
        return cast("Agreement", self._signals).told_failures(own, wait=wait)


def begin_later_saves(trainer: Trainer) -> None:
    """Let the saves of a run be finished while it goes on, where `save_async` asks for it and nothing is against it."""
    args = trainer.args
    if not args.save_async or args.save_strategy == "no":
        return
    obstacle = _obstacle(trainer)
    if obstacle is not None:
        announce(logger, f"save_async=True, and training waits for each save all the same: {obstacle}.")
        return
    trainer._later = LaterSaves(trainer)
    assert not isinstance(trainer._look, Look)
    trainer._look = Look(trainer._look, trainer._later)


def _obstacle(trainer: Trainer) -> str | None:
    names = overridden(trainer, _SAVING)
    if names:
        is_are = "is" if len(names) == 1 else "are"
        return f"{', '.join(names)} of {type(trainer).__name__} {is_are} overridden, and may read what was written"
    if trainer.args.push_to_hub and is_stored_otherwise(trainer.engine.unwrap(trainer.model)):
        return "what goes to the hub is in another form than a checkpoint, and is made of the weights of that moment"
    return None
