"""Going on from a checkpoint: which one, and what of it is put back when."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surestep.checkpoint.layout import OPTIMIZER, SCALER, SCHEDULER, TRAINER_STATE, progress_name
from surestep.checkpoint.manifest import is_foreign
from surestep.checkpoint.stored import stored
from surestep.checkpoint.tree import read_tree, tree_exists
from surestep.errors import CheckpointError, NotServedError
from surestep.logs import get_logger
from surestep.runtime.collectives import on_main
from surestep.runtime.random import restore_random_state
from surestep.training.plan import Plan
from surestep.training.run import Run
from surestep.training.state import TrainerState
from surestep.training.stretch import Stretch

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
    from surestep.trainer.resuming.finding import find

    return on_main(trainer._world, lambda: find(trainer, asked))


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


def restore_progress(trainer: Trainer, run: Run, checkpoint: str) -> None:
    """Put position and sums back, and have the random generators follow at the right moment.

    In the middle of an epoch the loader begins with the generators of the epoch's beginning, so that it draws what it
    drew then, and they are put back once the first batches are fetched. Between two epochs the loader's draws are still
    to come.
    """
    tell_gaps(trainer, checkpoint)
    folder = Path(checkpoint)
    # A rank that the saved run did not have takes up what the main process knew.
    known = [name for name in (progress_name(trainer._world.rank), progress_name(0)) if tree_exists(folder, name)]
    if known:
        progress = read_tree(folder, known[0])
        _check_same_batches(run, progress)
        run.load_state_dict(progress)
    else:
        _follow_steps(trainer, run, checkpoint)
    run.settle()
    if trainer.args.ignore_data_skip:
        run.position.samples, run.stretch = 0, Stretch(run.plan.batches_per_epoch)
    within_epoch = run.position.samples > 0 and not run.epoch_over
    beginning = run.random_before_epoch
    if within_epoch and beginning is not None:
        run.before_reading = lambda: restore_random_state(beginning)
    if within_epoch:
        run.after_fetch = lambda: trainer._load_rng_state(checkpoint)
    else:
        run.before_reading = lambda: trainer._load_rng_state(checkpoint)


def _check_same_batches(run: Run, progress: dict[str, Any]) -> None:
    for name in ("accumulation", "total_batch_size"):
        before, now = progress[name], getattr(run.plan, name)
        if before != now:
            raise NotServedError(
                f"The checkpoint was trained with {name} {before} and this run has {now}. Changing it on resume is not "
                f"served yet. Keep the batch size, the accumulation and the number of processes."
            )


def _follow_steps(trainer: Trainer, run: Run, checkpoint: str) -> None:
    """Take the position from the step, which is all that a checkpoint of the original's says of it."""
    from surestep.checkpoint.foreign.progress import had_another_order

    state, plan = trainer.state, run.plan
    epoch, steps = plan.locate(state.global_step)
    run.position.epoch = epoch
    run.stretch = Stretch(plan.batches_per_epoch, done=steps * plan.accumulation)
    run.position.samples = steps * plan.total_batch_size
    if not trainer.args.ignore_data_skip:
        _check_same_length(plan, state)
    logger.warning(
        "'%s' was written by the original: training goes on after step %d, with this run's arguments. It does not hold "
        "the losses of the steps before, so train_loss and the first log are of the steps from here on.",
        checkpoint,
        state.global_step,
    )
    version = had_another_order(Path(checkpoint)) if steps else None
    if version is not None:
        logger.warning(
            "transformers %s may have shuffled this epoch in an order that cannot be had again: of the rest of the "
            "epoch, some samples come for the second time and some do not come.",
            version,
        )


def _check_same_length(plan: Plan, state: TrainerState) -> None:
    """Compare the epoch that the original wrote down with the one that as many steps make here.

    It stores neither batch size nor accumulation where it can be read, but this shows whether they are the same. Older
    versions rounded the epoch.
    """
    epoch, steps = plan.locate(state.global_step)
    here = epoch + steps * plan.accumulation / plan.batches_per_epoch
    if plan.streaming or not state.epoch or math.isclose(here, state.epoch) or state.epoch == round(here, 2):
        return
    raise NotServedError(
        f"The checkpoint stood at epoch {state.epoch:.6g} after {state.global_step} steps, and this run would stand at "
        f"epoch {here:.6g}. Changing the length of an epoch on resume is not served yet. Keep the data, "
        "the batch size, the accumulation and the number of processes; or set ignore_data_skip=True, which begins the "
        "epoch with its first sample."
    )
