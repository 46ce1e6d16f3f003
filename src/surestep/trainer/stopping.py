"""What becomes of a run that a signal asks to save or to stop: where it is answered, what is saved, how it ends.

The flag and the handlers belong to `runtime.signals`, what several processes agree through to `runtime.agreement`. Here
is what follows from them. A request is answered between two steps, after what was due there; an evaluation is cut off
between two batches, and taken up again, from its beginning, by the run that resumes.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from surestep.config.topics.checkpointing import SIGNAL_NAMES
from surestep.errors import Interrupted, SaveError, interruption
from surestep.logs import announce, get_logger
from surestep.runtime.random import capture_random_state, restore_random_state
from surestep.runtime.signals import SIGNALS, Request
from surestep.training.state import CallbackStates, TrainerControl

if TYPE_CHECKING:
    from surestep.config.arguments import TrainingArguments
    from surestep.runtime.agreement import Agreement
    from surestep.runtime.signals import Signals
    from surestep.trainer.trainer import Trainer
    from surestep.training.run import Run

logger = get_logger(__name__)


@contextmanager
def served_signals(trainer: Trainer, unit: str) -> Iterator[None]:
    """Serve signals in the body as the arguments say; `unit` is what is finished before one is answered."""
    with SIGNALS.listening(actions_on_signals(trainer.args), unit):
        yield


@contextmanager
def serving_run(trainer: Trainer) -> Iterator[None]:
    """Serve signals in the body, which is a run; one that came too late for a step of it ends all processes after."""
    with _leaving_last_words(trainer), served_signals(trainer, "step"):
        trainer._look, trainer._before_evaluation, trainer._saved_at = _look_of(trainer), None, -1
        yield
        leave_if_asked(trainer)


def actions_on_signals(args: TrainingArguments) -> dict[str, str]:
    """Return what each signal does, by its name."""
    given = args.on_signal
    if isinstance(given, str):
        return dict.fromkeys(SIGNAL_NAMES, given)
    usual = "stop" if args.save_strategy == "no" else "save_and_stop"
    asked = {"SIGTERM": "save_and_stop"} if args.enable_jit_checkpoint else {}
    return {**dict.fromkeys(SIGNAL_NAMES, usual), **asked, **(given or {})}


def _look_of(trainer: Trainer) -> Signals | Agreement:
    """Return what a run looks at between two steps."""
    if trainer._world.size == 1:
        return SIGNALS
    from surestep.runtime.agreement import Agreement

    return Agreement(trainer._world)


def _leaving_last_words(trainer: Trainer) -> AbstractContextManager[None]:
    """Return the context of a run that fails on one process alone, where there are several."""
    if trainer._world.size == 1:
        return nullcontext()
    from surestep.runtime.last_words import leaving_last_words

    return leaving_last_words(trainer._world)


def leave_if_asked(trainer: Trainer) -> None:
    """End where all processes come by together and nothing new was made, if one of them was asked to stop."""
    number = next(filter(None, trainer.engine.strategy.agree(SIGNALS.stopping())), 0)
    if number:
        raise interruption(number, trainer.state.global_step)


@dataclass(frozen=True)
class BeforeEvaluation:
    """What an evaluation moves, as it was before its first batch, so that one that is cut off leaves no trace.

    Callbacks that write down what they hear have `place` and `back_to`.
    """

    random: dict[str, Any]
    control: TrainerControl
    callbacks: CallbackStates
    entries: int
    places: list[tuple[Any, Any]]

    @classmethod
    def of(cls, trainer: Trainer) -> BeforeEvaluation:
        """Note where things stand."""
        listeners, entries = trainer.callback_handler.callbacks, len(trainer.state.log_history)
        places = [(one, one.place()) for one in listeners if callable(getattr(one, "back_to", None))]
        return cls(capture_random_state(), copy.copy(trainer.control), CallbackStates(listeners), entries, places)

    def put_back(self, trainer: Trainer) -> None:
        """Make everything what it was; the requests of then are open again."""
        restore_random_state(self.random)
        self.callbacks.put_back()
        for flag in dataclasses.fields(self.control):
            setattr(trainer.control, flag.name, getattr(self.control, flag.name))
        del trainer.state.log_history[self.entries :]
        for writer, place in self.places:
            writer.back_to(place, trainer.state.global_step)


def answer(trainer: Trainer, run: Run) -> None:
    """Do between two steps what a signal asks for, once all processes know of it."""
    if not run.epoch_over and (run.finished or run.leaving_epoch):
        # The end of the epoch follows at once, and is a better place: nothing of it is left to be done twice.
        return
    if not trainer.engine.settle():
        return
    request = trainer._look.settle(run.place)
    if request is None:
        return
    trainer._finish_saves()
    if request.stops:
        _stop(trainer, run, request)
    if trainer._saved_at != run.place:
        saved(trainer, run, request.name)
    trainer._look.done(request)


def answer_late(trainer: Trainer, run: Run) -> None:
    """Save a run that came to its end before all processes had heard that one of them was asked to; all ask here."""
    own = SIGNALS.asked
    number = next(filter(None, trainer.engine.strategy.agree(0 if own is None or own.stops else own.number)), 0)
    if not number:
        return
    request = Request(number, SIGNALS.action(number), time.monotonic())
    if trainer._saved_at != run.place:
        saved(trainer, run, request.name)
    trainer._look.done(request)


@contextmanager
def made_again(trainer: Trainer) -> Iterator[None]:
    """Let a signal cut off the evaluation in the body: the run is saved with it still to be made, and ends.

    An exception in it is followed by the same save, where all processes have it.
    """
    trainer._before_evaluation = before = BeforeEvaluation.of(trainer)
    try:
        yield
    except Interrupted as cut:
        before.put_back(trainer)
        own, run = SIGNALS.asked, trainer._run
        assert run is not None
        # The processes have learned of it with the sizes of a batch.
        at = time.monotonic() if own is None else own.at
        _stop(trainer, run, Request(cut.signal_number, SIGNALS.action(cut.signal_number), at))
    except Exception as error:
        from surestep.trainer.last_good import keep_before, wants_saving

        run = trainer._run
        if run is not None and wants_saving(trainer, run, error):
            keep_before(trainer, run, error, before)
        raise
    finally:
        trainer._before_evaluation = None


def _stop(trainer: Trainer, run: Run, request: Request) -> NoReturn:
    step, place = trainer.state.global_step, run.place
    trainer._finish_saves()
    kept = _nothing_to_save(trainer, place, request) or _no_time(trainer, request)
    if kept is None:
        kept = saved(trainer, run, request.name)
    trainer._look.done(request)
    # Nobody leaves before all have heard: what they agree through may be held by the first process.
    trainer.engine.strategy.agree(0)
    if trainer.is_world_process_zero():
        announce(logger, f"Stopped by {request.name} after step {step}; {kept}.")
    raise interruption(request.number, step)


def _nothing_to_save(trainer: Trainer, place: int, request: Request) -> str | None:
    """Return why nothing is saved, None where something is to be."""
    if trainer._saved_at == place:
        return "this step is saved"
    if trainer.state.global_step == trainer._first_step:
        return "no step was made since the run began"
    if not request.saves:
        if trainer.args.save_strategy == "no":
            return 'nothing is saved, as save_strategy="no" says (on_signal="save_and_stop" saves all the same)'
        return "nothing more is saved, as on_signal says"
    return None


def _no_time(trainer: Trainer, request: Request) -> str | None:
    """Return what is kept where a save would take longer than the process is given, None where there is time."""
    grace = trainer.args.preemption_grace
    if not isinstance(grace, int | float):
        return None
    left = request.at + grace - time.monotonic()
    enough = left >= trainer._save_seconds and left > 0
    if all(trainer.engine.strategy.agree(int(enough))):
        return None
    return (
        f"a save takes about {trainer._save_seconds:.1f} s, and of preemption_grace={grace:g} s are left "
        f"{max(left, 0):.1f} s: the last checkpoint is kept as it is"
    )


def saved(trainer: Trainer, run: Run, by: str) -> str:
    """Save because of a signal or an error, with what is still to be done before the next step; say what came of it."""
    flags = dataclasses.asdict(trainer.control)
    still_open = sorted(name for name, is_set in flags.items() if is_set)
    run.interrupted = {"by": by, "open": still_open, "at_end": run.epoch_over}
    try:
        trainer._commit_checkpoint(trainer.model_wrapped, trainer._trial)
        trainer._finish_saves()
    except SaveError as error:
        logger.error("%s", error)
    finally:
        run.interrupted = None
    if trainer._saved_at == run.place:
        return "this step is saved"
    return "this step could not be saved, and the last checkpoint is kept as it is"


def reopen(trainer: Trainer, run: Run) -> None:
    """Do, in a resumed run, what was still to be done when the checkpoint was written."""
    interrupted, run.interrupted = run.interrupted, None
    if not interrupted or not interrupted["open"]:
        return
    # The generators are where they were then, and whatever comes next follows on.
    follow = run.after_fetch or run.before_reading
    if follow is not None:
        follow()
    for name in interrupted["open"]:
        setattr(trainer.control, name, True)
    trainer.serve_requests(run)
    moved = capture_random_state()
    if run.after_fetch is not None and not (run.finished or run.leaving_epoch):
        run.after_fetch = lambda: restore_random_state(moved)
    else:
        run.after_fetch, run.before_reading = None, lambda: restore_random_state(moved)
    run.go_on(at_end=interrupted["at_end"])
