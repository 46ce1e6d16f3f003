"""What a trial leaves behind, let go of."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from surestep.runtime.device import empty_cache

if TYPE_CHECKING:
    from surestep.trainer.trainer import Trainer

_HELD_FOR_CALLBACKS = ("model", "optimizer", "lr_scheduler", "train_dataloader", "eval_dataloader")


def release_memory(trainer: Trainer) -> None:
    """Drop the model, what updates it, and what loads its data; the engine is made anew from today's arguments.

    Whoever else holds the model keeps it: a callback of the user's, or an exception with its traceback.
    """
    trainer.model = trainer.model_wrapped = None
    trainer.optimizer = trainer.lr_scheduler = None
    trainer._created_lr_scheduler = False
    trainer._run = None
    trainer._eval_dataloaders = {}
    for name in _HELD_FOR_CALLBACKS:
        setattr(trainer.callback_handler, name, None)
    trainer.create_accelerator_and_postprocess()


def collect(trainer: Trainer) -> None:
    """Free what was dropped, rings of references as well, such as those of an error and its traceback."""
    gc.collect()
    empty_cache(trainer.args.device)
