"""Going back to a checkpoint in the middle of a run, as a resume would, without leaving the loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from surestep.trainer.assemble import begin_state, take_plan
from surestep.trainer.resuming.continuing import restore

if TYPE_CHECKING:
    from surestep.trainer.trainer import Trainer
    from surestep.training.run import Run


def go_back(trainer: Trainer, run: Run, checkpoint: str) -> None:
    """Put back all that a checkpoint holds: weights, what updates them, counters, callbacks, generators."""
    trainer.engine.zero_grad()
    trainer._load_from_checkpoint(checkpoint)
    trial = trainer.state.trial_name, trainer.state.trial_params, trainer.state.is_hyper_param_search
    trainer.state = begin_state(trainer, checkpoint)
    take_plan(trainer, run.plan)
    trainer.state.trial_name, trainer.state.trial_params, trainer.state.is_hyper_param_search = trial
    trainer.current_flos, trainer._own_tokens = 0.0, 0
    restore(trainer, run, checkpoint)
