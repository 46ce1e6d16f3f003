"""Where a run of the original's stood: told by its state alone, which counts steps and shares of epochs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from surestep.checkpoint.foreign.progress import had_another_order, read_trainer_state
from surestep.checkpoint.foreign.random import ranks_of
from surestep.errors import CheckpointError
from surestep.logs import get_logger
from surestep.training.run import Run
from surestep.training.stretch import Grouping, Stretch

if TYPE_CHECKING:
    from surestep.trainer.trainer import Trainer
    from surestep.training.state import TrainerState

logger = get_logger(__name__)


def follow_state(trainer: Trainer, run: Run, folder: Path) -> Grouping:
    """Take the position from the state in `folder`, and return the grouping that led there.

    Where as many steps make the same share of an epoch here, the batches are the same. Else the share says how many
    batches were done, of the size that the state tells.
    """
    state, plan = read_trainer_state(folder), run.plan
    epoch, steps = plan.locate(state.global_step)
    before = run.grouping
    if trainer.args.ignore_data_skip or _stands_alike(run, state):
        run.position.epoch = epoch
        run.stretch = Stretch(plan.batches_per_epoch, done=steps * plan.accumulation)
        run.position.samples = steps * plan.accumulation * before.samples
    else:
        before = _follow_share(run, state, ranks_of(folder) or run.grouping.ranks)
    logger.warning(
        "'%s' was written by the original: training goes on after step %d, with this run's arguments. It does not hold "
        "the losses of the steps before, so train_loss and the first log are of the steps from here on.",
        folder,
        state.global_step,
    )
    version = had_another_order(folder) if run.position.samples else None
    if version is not None:
        logger.warning(
            "transformers %s may have shuffled this epoch in an order that cannot be had again: of the rest of the "
            "epoch, some samples come for the second time and some do not come.",
            version,
        )
    return before


def _stands_alike(run: Run, state: TrainerState) -> bool:
    """Say whether the state's share of an epoch is that of as many steps here; older versions rounded it."""
    plan = run.plan
    epoch, steps = plan.locate(state.global_step)
    here = epoch + steps * plan.accumulation / plan.batches_per_epoch
    known = state.train_batch_size
    same_size = known is None or known == run.trainer.args.train_batch_size
    if plan.streaming or not state.epoch:
        return same_size
    return same_size and (math.isclose(here, state.epoch) or state.epoch == round(here, 2))


def _follow_share(run: Run, state: TrainerState, ranks: int) -> Grouping:
    """Take the position from the share of the epoch, and the size of a batch from the state.

    An order by length is left out: but for the first epoch, the original's cannot be had again.
    """
    size, cutting = (state.train_batch_size or 0) * ranks, run.cutting
    share, epoch = math.modf(state.epoch or 0)
    known = bool(size) and cutting is not None and cutting.window(0) is None
    batches = cutting.batches_of(size) if cutting is not None and known else None
    done = round(share * batches) if batches else 0
    told = batches and _tells(state.epoch or 0, epoch, done, batches)
    accumulation = _accumulation(state.global_step, int(epoch), done, batches) if batches and told else None
    if batches is None or accumulation is None:
        raise _cannot_tell(run, state)
    run.position.epoch, run.position.samples = int(epoch), done * size
    run.stretch = Stretch(batches, done=done)
    return Grouping(size, accumulation, ranks)


def _accumulation(steps: int, epochs: int, done: int, batches: int) -> int | None:
    """Return the batches of a step with which so many epochs and batches take `steps`; None where none fits."""
    fits = (size for size in range(1, batches + 1) if epochs * -(-batches // size) + -(-done // size) == steps)
    return next(fits, None)


def _tells(share: float, epoch: float, done: int, batches: int) -> bool:
    """Say whether a share, or the rounded one of older versions, can only be that of so many batches."""
    if math.isclose(share, epoch + done / batches):
        return True
    alike = [near for near in (done - 1, done, done + 1) if round(epoch + near / batches, 2) == share]
    return alike == [done]


def _cannot_tell(run: Run, state: TrainerState) -> CheckpointError:
    epoch, steps = run.plan.locate(state.global_step)
    here = epoch + steps * run.plan.accumulation / run.plan.batches_per_epoch
    return CheckpointError(
        f"The checkpoint stood at epoch {state.epoch or 0:.6g} after {state.global_step} steps, this run would stand "
        f"at epoch {here:.6g}, and its state (train_batch_size: {state.train_batch_size}) does not tell which samples "
        "are left. Keep the data, the batch size, the accumulation and the number of processes; or set "
        "ignore_data_skip=True, which begins the epoch with its first sample."
    )
