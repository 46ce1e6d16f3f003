"""The loop. docs/loop.md explains it; `trainer.show_loop()` prints it with who listens where."""

from __future__ import annotations

from collections.abc import Generator
from typing import Protocol

from surestep.training.run import Run
from surestep.training.state import TrainerControl, TrainerState


class Serves(Protocol):
    """What the loop asks of a trainer besides its steps: to do what somebody asked for."""

    state: TrainerState
    control: TrainerControl

    def serve_start(self, run: Run) -> None:
        """Evaluate before the first step, if the arguments ask for it."""

    def serve_requests(self, run: Run) -> None:
        """Log, evaluate and save, if the control asks for it."""


def training_loop(trainer: Serves, run: Run) -> Generator[TrainerState, None, None]:
    """Train, one optimizer step at a time, and yield the state after each."""
    events, engine, tally = run.events, run.engine, run.tally

    events.fire("on_train_begin")
    trainer.serve_start(run)
    for _ in run.epochs():
        events.fire("on_epoch_begin")
        for group in run.groups():
            events.fire("on_step_begin")
            if engine.forward_backward(run.trainer, group, tally, events) and engine.apply(tally, events):
                run.count(group)
                events.fire("on_step_end")
                trainer.serve_requests(run)
                yield trainer.state
        if run.rewound:
            continue
        events.fire("on_epoch_end")
        trainer.serve_requests(run)
        if trainer.control.should_training_stop:
            break
