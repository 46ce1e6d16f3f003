"""Taking up a run's progress: where it stood in its data, and how the rest goes on with today's batches.

A position counts samples, so that the batches to come need not be those of before. What is left of the epoch at hand is
cut anew from the position on. A run by epochs ends with its last epoch, in as many steps as that takes; its schedule is
that of a run with today's batches throughout, and goes on where such a run would stand. A run by `max_steps` makes as
many steps as it says, and its schedule counts them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surestep.checkpoint.layout import progress_name
from surestep.checkpoint.stored import stored
from surestep.checkpoint.tree import read_tree, tree_exists
from surestep.errors import CheckpointError
from surestep.logs import get_logger
from surestep.optim.schedules import needs_metric, set_step
from surestep.runtime.random import capture_random_state, restore_random_state
from surestep.trainer.assemble import take_plan
from surestep.trainer.resuming.checkpoint import restore_callbacks, tell_gaps
from surestep.training.run import Run
from surestep.training.stretch import Grouping, Stretch
from surestep.training.tally import mean_over_ranks

if TYPE_CHECKING:
    from surestep.trainer.trainer import Trainer
    from surestep.training.plan import Plan

logger = get_logger(__name__)


def restore(trainer: Trainer, run: Run, checkpoint: str) -> None:
    """Put back what a checkpoint holds besides weights and state: callbacks, bests, what updates, and the progress."""
    restore_callbacks(trainer, checkpoint)
    if trainer._bests is not None:
        trainer._bests.read(Path(checkpoint))
    trainer._load_optimizer_and_scheduler(checkpoint)
    trainer._load_scaler(checkpoint)
    _restore_progress(trainer, run, checkpoint)


def _restore_progress(trainer: Trainer, run: Run, checkpoint: str) -> None:
    """Put position and sums back, let the plan go on from there, and have the random generators follow."""
    tell_gaps(trainer, checkpoint)
    folder = Path(checkpoint)
    own = tree_exists(folder, progress_name(0))
    if own:
        before = _take_up(trainer, run, folder)
    else:
        from surestep.trainer.resuming.following import follow_state

        before = follow_state(trainer, run, folder)
    run.settle()
    # Whether the original had served the end of an epoch nobody knows.
    run.end_left = run.end_left and own
    changed = (before.samples, before.accumulation) != (run.grouping.samples, run.grouping.accumulation)
    if run.within_epoch:
        if not trainer.args.ignore_data_skip:
            _check_can_go_on(run, before)
        _cut(run, before, trainer.state.global_step)
    elif not run.epoch_over:
        run.stretch = Stretch(run.plan.batches_per_epoch)
    if changed:
        _enter_plan(trainer, run, before)
    take_plan(trainer, run.plan)
    if trainer.args.ignore_data_skip:
        run.position.samples, run.stretch = 0, Stretch(run.plan.batches_per_epoch)
    _follow_generators(trainer, run, checkpoint)


def _take_up(trainer: Trainer, run: Run, folder: Path) -> Grouping:
    """Put back what a checkpoint of ours holds; return the grouping that it was trained with.

    Sums of the ranks are each rank's own, and among other ranks everybody takes up their mean. The metrics of training
    are shared out, so that each batch stays counted once.
    """
    main, world = read_tree(folder, progress_name(0)), trainer._world
    before, trainer._score = Grouping(**main["grouping"]), main["score"]
    same = before.ranks == world.size
    run.load_state_dict(read_tree(folder, progress_name(world.rank)) if same else main)
    if not same:
        everyone = [read_tree(folder, progress_name(rank)) for rank in range(before.ranks)]
        run.tally.load_state_dict(mean_over_ranks([one["tally"] for one in everyone]))
        if run.metrics is not None:
            run.metrics.reset()
            for state in everyone[world.rank :: world.size]:
                run.metrics.take_in(state["metrics"], run.engine.device)
    return before


def _check_can_go_on(run: Run, before: Grouping) -> None:
    """Raise where the loader cannot begin behind the samples that other batches, or other ranks, have read."""
    now, cutting = run.grouping, run.cutting
    other_size, other_ranks = before.samples != now.samples, before.ranks != now.ranks
    obstacle = None if cutting is None else cutting.obstacle(other_size=other_size, other_ranks=other_ranks)
    if obstacle is not None:
        raise CheckpointError(
            f"The checkpoint stands in the middle of an epoch, with {before}, and this run has {now}: {obstacle}, so "
            "the samples that are left cannot be told. Keep per_device_train_batch_size and the number of processes, "
            "resume from the end of an epoch, or set ignore_data_skip=True, which begins the epoch with its first "
            "sample."
        )


def _cut(run: Run, before: Grouping, step: int) -> None:
    """Cut what is left of the epoch at hand into today's batches: anew where they are of another size."""
    plan, stretch, now = run.plan, run.stretch, run.grouping
    left: int | None = stretch.batches - stretch.done
    if plan.streaming:
        left = (plan.max_steps - step) * plan.accumulation
    elif run.cutting is not None:
        left = run.cutting.batches_from(run.position.samples)
    other_steps = plan.streaming and before.accumulation != now.accumulation
    if left is not None and (before.samples != now.samples or other_steps):
        run.stretch = stretch.rest(run.position.samples, left)
    elif left is not None and stretch.start:
        stretch.batches = stretch.done + left
    else:
        stretch.batches = plan.batches_per_epoch


def _enter_plan(trainer: Trainer, run: Run, before: Grouping) -> None:
    """Go on with today's plan from where the run stands, and say what becomes of its length and its schedule."""
    state, epoch = trainer.state, run.position.epoch
    left = 0 if run.epoch_over else run.stretch.batches - run.stretch.done
    run.plan = plan = run.plan.entered(state.global_step, epoch, left)
    here = min(plan.stands_at(epoch, left), plan.course)
    logger.warning(
        "The checkpoint was trained with %s; this run has %s. Epoch %d goes on behind its first %d samples, and each "
        "of the others comes once. %s",
        before,
        run.grouping,
        epoch,
        run.position.samples,
        _length_told(trainer, plan) if plan.by_steps else _place_schedule(trainer, plan, here),
    )


def _length_told(trainer: Trainer, plan: Plan) -> str:
    left = plan.max_steps - trainer.state.global_step
    return f"max_steps={plan.max_steps} counts steps of any size: {left} are left, and the schedule counts them too."


def _place_schedule(trainer: Trainer, plan: Plan, here: int) -> str:
    """Move a schedule that was made for the length of the run to its step `here`; return what there is to say."""
    schedule, step = trainer.lr_scheduler, trainer.state.global_step
    length = f"The run ends after {plan.max_steps} steps"
    if needs_metric(schedule):
        return f"{length}; the schedule waits for its metric as before."
    rate = trainer.get_learning_rates()[0]
    if not trainer._created_lr_scheduler or not set_step(schedule, here):
        return (
            f"{length}; {type(schedule).__name__} is no schedule that this run made for its length: it goes on from "
            f"where it was, a step at a time."
        )
    warmup = trainer.args.get_warmup_steps(plan.course)
    counted = f" Its warm-up counts {warmup} steps of today." if warmup else ""
    return (
        f"{length}. The schedule is that of a run with today's batches throughout: after step {step} it stands at step "
        f"{here} of {plan.course}, with a learning rate of {trainer.get_learning_rates()[0]:.4g} (it was {rate:.4g})."
        f"{counted}"
    )


def _follow_generators(trainer: Trainer, run: Run, checkpoint: str) -> None:
    """Have the random generators put back at the right moment.

    In the middle of an epoch the loader begins with the generators of the epoch's beginning, so that it draws what it
    drew then, and they are put back once the first batches are fetched. Between two epochs the loader's draws are still
    to come. A rank that the saved run did not have goes on with the generators that it began with.
    """
    back: Callable[[], Any] = partial(trainer._load_rng_state, checkpoint)
    if not stored(Path(checkpoint)).has_random(trainer._world.rank):
        back = partial(restore_random_state, capture_random_state())
    beginning: dict[str, Any] | None = run.random_before_epoch
    if not run.within_epoch:
        run.before_reading = back
        return
    run.after_fetch = back
    if beginning is not None:
        run.before_reading = partial(restore_random_state, beginning)
