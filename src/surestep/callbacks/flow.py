"""When to log, evaluate, save and stop."""

from __future__ import annotations

import time
from typing import Any

from surestep.config.rules import length_of_time
from surestep.runtime.world import current_world
from surestep.training.callback import TrainerCallback
from surestep.training.state import TrainerControl, TrainerState


class DefaultFlowCallback(TrainerCallback):
    """Turns the strategies and intervals of the arguments into requests, as the original does.

    One addition: `args.max_time` (seconds, or text such as "2h") ends the training at the first step that is complete
    once so much time has passed since `on_train_begin`. It ends as the last step does, with the evaluation and the
    save that the strategy "steps" asks for at the end.
    """

    def __init__(self) -> None:
        self._deadline: float | None = None
        self._many = False

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Start the clock of `max_time`."""
        # Arguments may have been changed since they were made, and the original's have no such field.
        seconds = length_of_time("max_time", getattr(args, "max_time", None))
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._many = current_world().size > 1

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> TrainerControl:
        """Ask for what is due after this step. Runs at every step: comparisons only."""
        step = state.global_step
        ends = step >= state.max_steps or (self._deadline is not None and self._time_is_up(args))
        if ends:
            control.should_training_stop = True
        if (step == 1 and args.logging_first_step) or (
            args.logging_strategy == "steps" and step % state.logging_steps == 0
        ):
            control.should_log = True
        if args.eval_strategy == "steps" and args.eval_delay <= step and (ends or step % state.eval_steps == 0):
            control.should_evaluate = True
        if args.save_strategy == "steps" and (ends or (state.save_steps > 0 and step % state.save_steps == 0)):
            control.should_save = True
        return control

    def on_epoch_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> TrainerControl:
        """Ask for what is due after this epoch."""
        if args.logging_strategy == "epoch":
            control.should_log = True
        if args.eval_strategy == "epoch" and args.eval_delay <= (state.epoch or 0):
            control.should_evaluate = True
        if args.save_strategy == "epoch":
            control.should_save = True
        return control

    def _time_is_up(self, args: Any) -> bool:
        """Compare the clock with the deadline. Of several ranks the first decides, for all must stop at one step."""
        up = self._deadline is not None and time.monotonic() >= self._deadline
        if not self._many:
            return up
        import torch
        import torch.distributed as dist

        answer = torch.tensor(int(up), device=args.device)
        dist.broadcast(answer, src=0)
        return bool(answer.item())
