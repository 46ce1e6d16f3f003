"""The original's name for a checkpoint on SIGTERM."""

from __future__ import annotations

from typing import Any

from surestep.training.callback import TrainerCallback
from surestep.training.state import TrainerControl, TrainerState


class JITCheckpointCallback(TrainerCallback):
    """Asks for a checkpoint on SIGTERM, as `enable_jit_checkpoint=True` does. The trainer itself serves the signal."""

    def set_trainer(self, trainer: Any) -> None:
        """Take the trainer, as the original's does."""
        trainer.args.enable_jit_checkpoint = True

    def on_init_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Switch it on in the arguments."""
        args.enable_jit_checkpoint = True
