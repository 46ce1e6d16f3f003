"""Whether the disk holds what a run will save: told when it begins, with numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from surestep.checkpoint.estimate import checkpoint_size
from surestep.checkpoint.layout import OPTIMIZER
from surestep.checkpoint.manifest import size_of
from surestep.checkpoint.space import Size, human, room_at
from surestep.checkpoint.tree import tree_exists
from surestep.config.enums import SaveStrategy
from surestep.logs import announce, get_logger
from surestep.trainer.older import overridden
from surestep.training.plan import Plan

if TYPE_CHECKING:
    from surestep.trainer.trainer import Trainer

logger = get_logger(__name__)
# What says what is in a checkpoint: where a subclass says otherwise, an estimate is no reason not to try.
_SAVING = ("save_model", "_save", "_save_checkpoint", "_save_optimizer_and_scheduler")


def tell_room(trainer: Trainer, plan: Plan, checkpoint: str | None = None) -> bool:
    """Warn where the disk cannot hold the checkpoints of a run, and say whether it is known how large they are.

    Where it is not, an optimizer makes its state in a way that shows only in its first step: ask again after that.
    """
    store = trainer._store
    if trainer.args.save_strategy == SaveStrategy.NO or not trainer._world.is_main:
        return True
    size = store.expected or _size_of_one(trainer, checkpoint)
    if size is None:
        return False
    if not overridden(trainer, _SAVING):
        store.expect(size)
    if trainer._later is not None:
        announce(
            logger,
            f"save_async=True keeps a copy of each checkpoint in host memory until it is on the disk: about "
            f"{human(size.total)}.",
        )
    room = room_at(store.root)
    if room.file is not None and room.file < size.largest:
        logger.warning(
            "A file of %s may have %s at most (ulimit -f), and the largest of a checkpoint has about %s. Raise the "
            "limit: ulimit -f unlimited.",
            store.root,
            human(room.file),
            human(size.largest),
        )
    count, there = kept_at_once(trainer, plan), len(store.own())
    needed = size.total * max(count - there, 1)
    if room.free is not None and room.free < needed:
        logger.warning(
            "'%s' has %s left, and the run will need about %s more there: a checkpoint takes about %s, and there are "
            "up to %d at a time, the one being written included%s. Saves fail once the disk is full. Make room, or set "
            "save_total_limit, save_only_model=True or another output_dir.",
            store.root,
            human(room.free),
            human(needed),
            human(size.total),
            count,
            f" ({there} are there)" if there else "",
        )
    return True


def kept_at_once(trainer: Trainer, plan: Plan) -> int:
    """Return how many checkpoints a run keeps at a time, the one being written included."""
    args = trainer.args
    if args.save_strategy == SaveStrategy.STEPS:
        every = args.save_steps if args.save_steps >= 1 else max(1, int(args.save_steps * plan.max_steps))
        # The last step is saved as well.
        saves = -int(-plan.max_steps // every)
    else:
        saves = plan.epochs if args.save_strategy == SaveStrategy.EPOCH else 1
    protected = len(args.track_best or ()) + (args.metric_for_best_model is not None and not args.save_keep_best)
    return trainer._store.retention.at_most(max(1, saves), plan.max_steps, protected)


def _size_of_one(trainer: Trainer, checkpoint: str | None) -> Size | None:
    """Return the size of the checkpoint that is gone on from, if this run's will hold the same; else an estimate."""
    alone = trainer.args.save_only_model
    if checkpoint is not None and tree_exists(Path(checkpoint), OPTIMIZER) is not alone:
        known = size_of(Path(checkpoint))
        if known is not None:
            return known
    model = trainer.engine.unwrap(trainer.model)
    return checkpoint_size(
        model, None if alone else trainer.optimizer, trainer._names_by_parameter(), trainer._world.size
    )
