"""Going on from a checkpoint: which one, and what its state and callbacks were. `continuing` puts progress back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from surestep.checkpoint.layout import OPTIMIZER, SCALER, SCHEDULER, TRAINER_STATE
from surestep.checkpoint.manifest import is_foreign
from surestep.checkpoint.stored import stored
from surestep.errors import CheckpointError
from surestep.logs import get_logger
from surestep.runtime.collectives import on_main
from surestep.training.state import TrainerState

if TYPE_CHECKING:
    from surestep.trainer.trainer import Trainer

logger = get_logger(__name__)


def asked_for(trainer: Trainer, asked: str | bool | None) -> str | bool | None:
    """Return what to resume from: what `train` was given, else what the arguments say; a trial has its own."""
    return trainer.args.resume_from_checkpoint if asked is None and trainer._trial is None else asked


def find_checkpoint(trainer: Trainer, asked: str | Path | bool | None) -> str | None:
    """Return the folder to resume from: the one named, or for True and "auto" the newest valid one; None to start anew.

    With nothing to resume from, the run starts and says so, unless `resume_strict` makes that an error for True.
    """
    if asked is None or asked is False:
        return None
    from surestep.trainer.resuming.finding import find, find_on_each_machine

    found = on_main(trainer._world, lambda: find(trainer, asked))
    if found is not None and trainer._world.size > 1:
        find_on_each_machine(trainer, asked, found)
    return found


def load_state(checkpoint: str) -> TrainerState:
    """Return the state that a checkpoint holds; a best checkpoint that is gone is forgotten with a warning."""
    path = Path(checkpoint) / TRAINER_STATE
    if not path.is_file():
        raise CheckpointError(
            f"The checkpoint '{checkpoint}' has no {TRAINER_STATE}, so nothing says how far it came. Resume from "
            "another one, or load its weights into the model and start anew."
        )
    state = _foreign_state(path.parent) if is_foreign(path.parent) else TrainerState.load_from_json(path)
    best = state.best_model_checkpoint
    if best is not None and not Path(best).is_dir() and (path.parent.parent / Path(best).name).is_dir():
        # The run's folder has moved, as a whole.
        best = state.best_model_checkpoint = str(path.parent.parent / Path(best).name)
    if best is not None and not Path(best).is_dir():
        logger.warning("The best checkpoint of the resumed run, '%s', is gone; it is not looked for any more.", best)
        state.best_model_checkpoint = None
    return state


def _foreign_state(folder: Path) -> TrainerState:
    from surestep.checkpoint.foreign.progress import read_trainer_state

    return read_trainer_state(folder)


def restore_callbacks(trainer: Trainer, checkpoint: str) -> None:
    """Put the state of every callback that had one back into the callback of the same class.

    Callbacks with `save_to` and `load_from` keep files of their own in a checkpoint and are told where it is.
    """
    for callback in trainer.callback_handler.callbacks:
        if callable(getattr(callback, "load_from", None)):
            callback.load_from(Path(checkpoint))
    saved: dict[str, Any] = trainer.state.stateful_callbacks or {}
    for name, found in saved.items():
        states = found if isinstance(found, list) else [found]
        owners = [item for item in trainer.callback_handler.callbacks if type(item).__name__ == name]
        if name == type(trainer.control).__name__:
            trainer.control = type(trainer.control).from_state(states[0])
            # The request that the checkpoint itself answered.
            trainer.control.should_save = False
            continue
        if not owners:
            logger.warning("The checkpoint holds the state of a callback %s, which this run does not have.", name)
        for owner, state in zip(owners, states, strict=False):
            for attribute, value in {**state.get("args", {}), **state.get("attributes", {})}.items():
                setattr(owner, attribute, value)


def tell_gaps(trainer: Trainer, checkpoint: str) -> None:
    """Warn of state that a checkpoint does not hold, as one of weights only: it starts anew."""
    parts = stored(Path(checkpoint))
    live = {
        "the optimizer": (OPTIMIZER, trainer.optimizer),
        "the schedule": (SCHEDULER, trainer.lr_scheduler),
        "the loss scale": (SCALER, trainer.engine.precision.state_dict()),
    }
    missing = [what for what, (name, there) in live.items() if there is not None and not parts.has(name)]
    if not parts.has_random(trainer._world.rank):
        missing.append("the random generators")
    if missing:
        writer = parts.other_writer()
        where = f" ({writer} kept it in files of its own, which are not read here)" if writer else ""
        logger.warning("'%s' holds no state of %s%s: resuming starts that anew.", checkpoint, ", ".join(missing), where)
