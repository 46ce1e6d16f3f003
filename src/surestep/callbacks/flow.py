"""When to log, evaluate, save and stop."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from surestep.checkpoint.layout import TIME_USED
from surestep.checkpoint.tree import read_tree, tree_exists, write_tree
from surestep.config.rules import length_of_time
from surestep.runtime.world import current_world
from surestep.training.callback import TrainerCallback
from surestep.training.state import TrainerControl, TrainerState


class DefaultFlowCallback(TrainerCallback):
    """Turns the strategies and intervals of the arguments into requests, as the original does.

    One addition: `args.max_time` (seconds, or text such as "2h") ends the training at the first step that is complete
    once so much time has passed since `on_train_begin`. It ends as the last step does, with the evaluation and the
    save that the strategy "steps" asks for at the end. The time is that of a run with all its parts: checkpoints hold
    what was used by then, and a resumed run has the rest.
    """

    def __init__(self) -> None:
        self._deadline: float | None = None
        self._many = False
        # When the run would have begun, had it not been interrupted; and what a checkpoint says that it has used.
        self._began: float | None = None
        self._used = 0.0
        # Whether the run ends, or would not begin, because its time is up; the same on every rank.
        self.out_of_time = False

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Start the clock of `max_time`."""
        seconds, used = _limit(args), self._used if state.global_step else 0.0
        self._began = None if seconds is None else time.monotonic() - used
        self._deadline = None if seconds is None or self._began is None else self._began + seconds
        self.out_of_time = seconds is not None and used >= seconds
        self._many = current_world().size > 1

    def save_to(self, folder: Path) -> None:
        """Write the seconds that the run has used into a checkpoint, where there is a limit to them."""
        if self._began is not None:
            write_tree(folder, TIME_USED, {"seconds": time.monotonic() - self._began})

    def load_from(self, folder: Path) -> None:
        """Take what a checkpoint says that the run has used."""
        self._used = read_tree(folder, TIME_USED)["seconds"] if tree_exists(folder, TIME_USED) else 0.0

    def used_up(self, args: Any) -> bool:
        """Say, of a run that is about to go on, whether it has no time left."""
        seconds = _limit(args)
        return seconds is not None and self._used >= seconds

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> TrainerControl:
        """Ask for what is due after this step. Runs at every step: comparisons only."""
        step = state.global_step
        self.out_of_time = self._deadline is not None and self._time_is_up(args)
        ends = step >= state.max_steps or self.out_of_time
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


def _limit(args: Any) -> float | None:
    """Return the seconds of `max_time`; arguments may have been changed since, and the original's have none."""
    return length_of_time("max_time", getattr(args, "max_time", None))
