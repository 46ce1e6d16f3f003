"""What a job watches while it trains: where it begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from surestep import TrainerCallback, TrainerControl, TrainerState


class NoteBeginning(TrainerCallback):
    """Notes the step at which training begins, and says when that is not the first."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.step = 0
        self._say = say

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Note the step that was reached before."""
        del args, control, kwargs
        self.step = state.global_step
        if self.step:
            self._say(f"Going on from step {self.step:,} of {state.max_steps:,}.")
