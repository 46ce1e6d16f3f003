"""After an exception: the state of the last complete step is saved, where it is there to the last bit.

An exception in the middle of a step has moved something already: random generators, the statistics of batch norms, the
open sums of losses. What can be put back is put back. Where something cannot be (an update that was begun, a callback
with a memory that has heard of the step), nothing is saved, for the checkpoint would be one of no run, and it is said.

Several processes save together, or not at all. Each says where it has failed, and how many exchanges it has begun by
then; they save where all of them say the same within a few seconds, for then none is in the middle of an exchange that
the others do not know of. One that fails alone leaves the others waiting for it: no process can save for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, cast

import torch

from surestep.errors import NonFiniteError
from surestep.logs import get_logger
from surestep.optim.clipping import no_gradients
from surestep.runtime.collectives import exchanges_begun
from surestep.runtime.last_words import is_of_an_exchange
from surestep.runtime.memory import is_out_of_memory
from surestep.runtime.random import host_random, restore_random_state
from surestep.training.events import listens
from surestep.training.loop import training_loop

if TYPE_CHECKING:
    from surestep.runtime.agreement import Agreement
    from surestep.trainer.later_saves import Look
    from surestep.trainer.stopping import BeforeEvaluation
    from surestep.trainer.trainer import Trainer
    from surestep.training.run import Run

logger = get_logger(__name__)

# What the loop calls for the groups of an epoch.
_READING = ("groups", "_read")
# Events between the last complete step and its update.
_HEARD = ("on_step_begin", "on_substep_end")
_CANNOT = "cannot: "
# Seconds that a process which has failed waits for the others to say that they have as well.
PATIENCE = 5.0


@contextmanager
def keeping_last_good(trainer: Trainer, run: Run) -> Iterator[None]:
    """Save the last complete step when the body, in which the loop runs, raises an exception; then let it go on."""
    try:
        yield
    except Exception as error:
        _conclude(trainer)
        if wants_saving(trainer, run, error):
            _keep(trainer, run, error)
        raise


def _conclude(trainer: Trainer) -> None:
    """Let the save that is under way count; of several processes it is not known yet whether they can meet."""
    if trainer._world.size > 1:
        return
    try:
        trainer._finish_saves()
    except Exception as error:
        logger.error("%s", error)


def wants_saving(trainer: Trainer, run: Run, error: Exception) -> bool:
    """Say whether an exception is to be followed by a save: something new was made, and the arguments ask for it."""
    args = trainer.args
    made = trainer.state.global_step > trainer._first_step and trainer._saved_at != run.place
    if not (args.save_on_exception and made) or args.save_strategy == "no":
        return False
    return not (args.auto_find_batch_size and is_out_of_memory(error))


def _keep(trainer: Trainer, run: Run, error: Exception) -> None:
    place = _where(error)
    obstacle = _obstacle(trainer, run, error, place)
    if trainer._world.size > 1:
        obstacle = _obstacle_over_ranks(trainer, run, error, place, obstacle)
    if obstacle is None and not _settled(trainer):
        obstacle = "the last step was not finite"
    if obstacle is not None:
        _tell_obstacle(trainer, error, obstacle)
        return
    _put_back(trainer, run, place)
    keep(trainer, run, error)


def keep_before(trainer: Trainer, run: Run, error: Exception, before: BeforeEvaluation) -> None:
    """Save a run whose evaluation has failed as it was before that, with the evaluation still to be made."""
    if trainer._world.size > 1:
        obstacle = _obstacle_over_ranks(trainer, run, error, "evaluation", None)
        if obstacle is not None:
            _tell_obstacle(trainer, error, obstacle)
            return
    before.put_back(trainer)
    keep(trainer, run, error)


def _tell_obstacle(trainer: Trainer, error: Exception, obstacle: str) -> None:
    tell(trainer, error, f"nothing is saved, because {obstacle}: the last checkpoint is kept as it is")


def _obstacle_over_ranks(trainer: Trainer, run: Run, error: Exception, place: str, obstacle: str | None) -> str | None:
    """Return why the processes cannot save together, None where all of them have failed alike.

    This one has an `obstacle` of its own, or none. It says so in any case, so that nobody waits for it.
    """
    exchanges = exchanges_begun()
    if is_of_an_exchange(error):
        obstacle = "an exchange with the other processes has broken off"
    elif isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error):
        obstacle = "the device has failed"
    elif exchanges is None:
        obstacle = "the processes do not know how many exchanges they have begun"
    own = f"{_CANNOT}{obstacle}" if obstacle else f"{place}, place {run.place}, exchanges {exchanges}"
    everyone = cast("Agreement | Look", trainer._look).told_failures(own, wait=0.0 if obstacle else PATIENCE)
    if obstacle is not None:
        return obstacle
    others = ((rank, everyone.get(rank)) for rank in range(trainer._world.size))
    return next((_unlike(rank, told, own) for rank, told in others if told != own), None)


def _unlike(rank: int, told: str | None, own: str) -> str:
    """Return why a rank that has not told what this one has cannot save with it."""
    if told is None:
        return f"rank {rank} has not failed within {PATIENCE:g} s: it is in the middle of a step, or gone"
    if told.startswith(_CANNOT):
        return f"on rank {rank} {told.removeprefix(_CANNOT)}"
    return f"rank {rank} has failed elsewhere ({told}; here {own})"


def keep(trainer: Trainer, run: Run, error: Exception) -> None:
    """Save a run that stands between two steps, and say what came of it; what fails now does not hide the error."""
    from surestep.trainer.stopping import saved

    try:
        tell(trainer, error, saved(trainer, run, type(error).__name__))
    except Exception as another:
        tell(trainer, error, f"this step could not be saved: {another}")


def tell(trainer: Trainer, error: Exception, what: str) -> None:
    """Say what became of the run's state."""
    logger.warning("%s after step %d; %s.", type(error).__name__, trainer.state.global_step, what)


def _obstacle(trainer: Trainer, run: Run, error: Exception, place: str) -> str | None:
    """Return why the state of the last complete step is not there, None where it is."""
    late = isinstance(error, NonFiniteError) and trainer.engine.watch.late
    if late:
        return "it was known one step late"
    undone = isinstance(error, NonFiniteError) and place == "apply"
    if place not in (*_READING, "forward_backward", *_HEARD) and not undone:
        return _UNFIT.get(place, f"it came from {place}, when the step was neither open nor complete")
    return next(_in_the_way(trainer, run, place), None)


_UNFIT = {
    "": "it was raised between two steps, outside of the loop",
    "apply": "the update of the next step was begun",
    "count": "the next step was being counted",
    "serve_requests": "it came while the step was being logged or saved",
}


def _in_the_way(trainer: Trainer, run: Run, place: str) -> Iterator[str]:
    """Yield what else moved in the step that was begun, and cannot be put back."""
    engine = trainer.engine
    if run.position.samples and host_random() != run.host_random:
        yield "python's or NumPy's generator may have been drawn from in the step that was begun"
    if run.plan.streaming:
        yield "the stream was read beyond its position"
    if place in _READING:
        return
    if engine.clip is no_gradients:
        yield "the optimizer updates during backward"
    moves = run.metrics is not None or any(True for _ in engine.unwrap(engine.model).buffers())
    if moves and not engine.watch.keeps:
        yield "buffers of the model, or metrics of training, may have moved in the step that was begun"
    for callback in trainer.callback_handler.callbacks:
        remembers = callable(getattr(callback, "state", None)) or callable(getattr(callback, "save_to", None))
        if remembers and any(listens(callback, event) for event in _HEARD):
            yield f"{type(callback).__name__}, which has a memory, has heard of the step that was begun"


def _settled(trainer: Trainer) -> bool:
    try:
        return trainer.engine.settle()
    except NonFiniteError:
        return False


def _put_back(trainer: Trainer, run: Run, place: str) -> None:
    """Make everything what it was between the two steps."""
    trainer.engine.zero_grad()
    run.tally.drop_open()
    control = trainer.control
    control.should_log = control.should_evaluate = control.should_save = False
    if place == "forward_backward":
        trainer.engine.watch.put_back()
    if run.position.samples == 0 and run.random_before_epoch is not None:
        # The loader of the epoch draws again when the run is resumed.
        restore_random_state(run.random_before_epoch)
        return
    assert run.random_before_step is not None
    for generator, state in zip(run.generators, run.random_before_step, strict=True):
        generator.set_state(state)


def _where(error: BaseException) -> str:
    """Return what the loop was doing when the error came: the part that it had called, or the event it had fired."""
    frames = list(_frames(error.__traceback__))
    for number, frame in enumerate(frames):
        if frame.f_code is training_loop.__code__ and number + 1 < len(frames):
            called = frames[number + 1]
            return str(called.f_locals.get("event", called.f_code.co_name))
    return ""


def _frames(traceback: TracebackType | None) -> Iterator[FrameType]:
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next
