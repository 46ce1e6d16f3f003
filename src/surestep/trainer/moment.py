"""What counting a step changes, so that a step of which more is known later can be taken back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from surestep.trainer.trainer import Trainer
    from surestep.training.run import Run


@dataclass(frozen=True, slots=True)
class Moment:
    """The counters of a run between two steps; all of them numbers of the host."""

    step: int
    progress: float
    epoch: int
    samples: int
    batches: int
    open_steps: int
    tokens: tuple[int, int]
    flos: float

    @classmethod
    def of(cls, trainer: Trainer, run: Run) -> Moment:
        """Return the counters as they stand."""
        state, position = trainer.state, run.position
        return cls(
            step=state.global_step,
            progress=position.epoch + run.stretch.reached,
            epoch=position.epoch,
            samples=position.samples,
            batches=run.stretch.done,
            open_steps=run.tally.steps,
            tokens=(state.num_input_tokens_seen, trainer._own_tokens),
            flos=trainer.current_flos,
        )

    def put_back(self, trainer: Trainer, run: Run) -> None:
        """Make the counters what they were."""
        state, position = trainer.state, run.position
        state.global_step = self.step
        state.epoch = self.progress
        position.epoch, position.samples = self.epoch, self.samples
        run.stretch.done = self.batches
        run.tally.steps = self.open_steps
        state.num_input_tokens_seen, trainer._own_tokens = self.tokens
        trainer.current_flos = self.flos
