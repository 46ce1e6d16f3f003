"""The beginning and the end of a run, new or resumed: what is taken up and told, and whether anything is left to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surestep.callbacks.flow import DefaultFlowCallback
from surestep.checkpoint.origin import read_origin
from surestep.checkpoint.run_record import read_record
from surestep.errors import CheckpointError
from surestep.logs import announce, get_logger
from surestep.metrics.prediction import TrainOutput
from surestep.runtime.collectives import on_main
from surestep.trainer.remote import begin_mirror
from surestep.trainer.resuming.checkpoint import asked_for, find_checkpoint
from surestep.trainer.resuming.examining import examine
from surestep.trainer.resuming.finding import asks_for_newest
from surestep.trainer.resuming.identity import describe, identify, take_folder, write_record
from surestep.trainer.saves import begin_saves
from surestep.training.state import TrainerState

if TYPE_CHECKING:
    from surestep.trainer.trainer import Trainer
    from surestep.training.run import Run

_logger = get_logger(__name__)


def take_up(trainer: Trainer, asked: str | bool | None) -> str | None:
    """Take the folder, find the checkpoint to go on from, look whether the run may, and load its weights.

    Returns:
        The checkpoint; None for a new run.
    """
    begin_saves(trainer)
    begin_mirror(trainer)
    asked = asked_for(trainer, asked)
    checkpoint = find_checkpoint(trainer, asked)
    trainer.resume_report = None
    if checkpoint is None:
        return None
    trainer.resume_report = examine(trainer, checkpoint)
    trainer.resume_report.looked_for = asks_for_newest(asked)
    try:
        trainer._load_from_checkpoint(checkpoint)
    except CheckpointError as error:
        other = _other_model(trainer, checkpoint)
        if other is None:
            raise
        raise CheckpointError(
            f"'{checkpoint}' was written by a run of another model: {other}. Give this run an output_dir of its own, "
            f"or write resume_from_checkpoint=False to start anew. {error}"
        ) from error
    return checkpoint


def _other_model(trainer: Trainer, checkpoint: str) -> str | None:
    """Return what model a checkpoint is of and what this is; None where they are the same, or nobody knows."""
    then, now = read_origin(Path(checkpoint)), describe(trainer)
    if then is None or then.parameters == now.parameters:
        return None
    there, here = (f"a {one.model} of {one.tensors} tensors with {one.elements:,} numbers" for one in (then, now))
    return f"{there}, and here is {here} (run {then.run}, begun {then.begun})"


def begin(trainer: Trainer, run: Run, checkpoint: str | None) -> TrainOutput | None:
    """Say what was taken up and take the folder; return what the run came to before, if it is complete and ended."""
    report = trainer.resume_report
    trainer._record = identify(checkpoint)
    trainer._store.run = trainer._record.run
    output = None
    if report is not None:
        report.settle(trainer.state, run)
        output = _what_it_came_to(trainer, run) if report.looked_for else None
        if output is None and not (run.interrupted and run.interrupted["open"]) and _is_to_stop(trainer, run):
            run.stop_here()
        report.complete |= output is not None
        if trainer._world.is_main:
            report.tell()
        if report.looked_for:
            # A run that died between a save and the removal of older ones left one too many.
            trainer._store.prune(protect={*trainer._protected(), report.checkpoint})
    if output is None:
        take_folder(trainer, trainer._record)
    if trainer._mirror is not None:
        trainer._mirror.begin(None if checkpoint is None else Path(checkpoint))
        if output is not None:
            _conclude_mirror(trainer)
    return output


def _is_to_stop(trainer: Trainer, run: Run) -> bool:
    """Say whether a run that did not come to its end has no step to make: it is out of steps, of time or of patience.

    A checkpoint that was named is gone on from, however patient the run before was.
    """
    if run.finished:
        return True
    if _out_of_time(trainer):
        announce(
            _logger,
            f"max_time={trainer.args.max_time} (seconds) is used up at step {trainer.state.global_step}: no step is "
            "made. To train on, write a longer one or max_time=None.",
        )
        return True
    report = trainer.resume_report
    stopped = report is not None and report.looked_for and trainer.control.should_training_stop
    return stopped and _got_no_better(trainer)


def _what_it_came_to(trainer: Trainer, run: Run) -> TrainOutput | None:
    """Return what a run that has ended returned, its last or best weights loaded; None where it goes on."""
    record = on_main(trainer._world, lambda: read_record(trainer._store.root))
    if record is None or trainer._record is None or record.run != trainer._record.run or record.ended is None:
        return None
    ended, state = record.ended, TrainerState(**record.ended["state"])
    over = ended["early"] or (ended.get("out_of_time", False) and _out_of_time(trainer))
    if not over and state.global_step < run.plan.max_steps:
        return None
    best = trainer.args.load_best_model_at_end and state.best_model_checkpoint is not None
    if trainer.state.global_step < state.global_step and not best:
        _logger.warning(
            "The run ended at step %d, and its newest checkpoint is of step %d: what is between is trained again.",
            state.global_step,
            trainer.state.global_step,
        )
        return None
    state.is_local_process_zero = trainer.is_local_process_zero()
    state.is_world_process_zero = trainer.is_world_process_zero()
    trainer.state = state
    if best:
        trainer._load_best_model()
    if trainer._world.is_main:
        why = " It got no better; to train on, name a checkpoint." if ended["early"] else ""
        if over and not why:
            why = " Its max_time is used up; to train on, write a longer one."
        told = f"The run in '{trainer._store.root}' is complete, at step {state.global_step}: no step is made.{why}"
        announce(_logger, told)
    return TrainOutput(state.global_step, ended["training_loss"], ended["metrics"])


def end(trainer: Trainer, output: TrainOutput) -> None:
    """Note that a run came to its end, and say which of its saves failed.

    Raises:
        SaveError: the last one did.
    """
    note_end(trainer, output)
    try:
        trainer._saves.conclude()
    finally:
        _conclude_mirror(trainer)


def _conclude_mirror(trainer: Trainer) -> None:
    if trainer._mirror is not None:
        trainer._mirror.conclude(trainer._best_folders(), keep_newest=not trainer._keeps_best_alone())


def note_end(trainer: Trainer, output: TrainOutput) -> None:
    """Write down what a run returned that came to its end, so that it is not trained a second time."""
    state, record = trainer.state, trainer._record
    early, timed = _got_no_better(trainer), any(one.out_of_time for one in _flow(trainer))
    # Stopped by a signal or by hand, it is to go on.
    if record is None or not (early or timed or state.global_step >= state.max_steps):
        return
    ended: dict[str, Any] = {
        "state": asdict(state),
        "training_loss": output.training_loss,
        "metrics": output.metrics,
        "early": early,
        "out_of_time": timed,
    }
    write_record(trainer, replace(record, ended=ended))


def _out_of_time(trainer: Trainer) -> bool:
    """Say whether a resumed run has used all the time that today's arguments give it."""
    return any(one.used_up(trainer.args) for one in _flow(trainer))


def _flow(trainer: Trainer) -> Iterator[DefaultFlowCallback]:
    """Yield the callbacks that have a clock."""
    return (one for one in trainer.callback_handler.callbacks if isinstance(one, DefaultFlowCallback))


def _got_no_better(trainer: Trainer) -> bool:
    """Say whether patience is at its end."""
    return any(
        getattr(one, "early_stopping_patience_counter", 0) >= getattr(one, "early_stopping_patience", float("inf"))
        for one in trainer.callback_handler.callbacks
    )
