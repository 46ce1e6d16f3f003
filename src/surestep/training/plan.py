"""How long to train, and how batches group into steps: pure numbers, worked out once."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace

from surestep.errors import ArgumentError, DataError


@dataclass(frozen=True, slots=True)
class Plan:
    """The arithmetic of a run. A step is an optimizer step over a group of `accumulation` micro-batches.

    A group never crosses an epoch: the last one of an epoch may be smaller. For a stream, whose length is not known,
    `batches_per_epoch` counts what `max_steps` will take and an epoch ends when the stream does.

    A run that has made steps with other batches needs `more_steps` than today's batches would, from its beginning to
    its end (fewer, where negative), and `more_epochs`; `max_steps` and `epochs` count them. `by_steps` says that
    `max_steps` was given.
    """

    epochs: int
    steps_per_epoch: int
    max_steps: int
    batches_per_epoch: int
    accumulation: int
    examples: int
    samples: float
    total_batch_size: int
    streaming: bool = False
    by_steps: bool = False
    more_steps: int = 0
    more_epochs: int = 0

    @classmethod
    def make(
        cls,
        *,
        batches: int | None,
        examples: int | None,
        accumulation: int,
        total_batch_size: int,
        num_train_epochs: float,
        max_steps: int,
    ) -> Plan:
        """Work out the plan for a loader of `batches` micro-batches (None for a stream) over `examples` samples.

        `max_steps` overrides `num_train_epochs` when positive. A fraction of an epoch is rounded up to whole steps.
        """
        if batches is None:
            return cls._stream(accumulation, total_batch_size, max_steps)
        if batches == 0:
            raise DataError(
                f"The training loader gives no batch: the data has {examples} samples and a batch takes "
                f"{total_batch_size // accumulation}. Set dataloader_drop_last=False or a smaller batch size."
            )
        steps_per_epoch = math.ceil(batches / accumulation)
        known = batches * total_batch_size // accumulation if examples is None else examples
        if max_steps > 0:
            steps, epochs = max_steps, math.ceil(max_steps / steps_per_epoch)
            samples: float = max_steps * total_batch_size
        else:
            steps, epochs = math.ceil(num_train_epochs * steps_per_epoch), math.ceil(num_train_epochs)
            samples = known * num_train_epochs
        by_steps = max_steps > 0
        return cls(
            epochs, steps_per_epoch, steps, batches, accumulation, known, samples, total_batch_size, by_steps=by_steps
        )

    @classmethod
    def _stream(cls, accumulation: int, total_batch_size: int, max_steps: int) -> Plan:
        if max_steps <= 0:
            raise ArgumentError(
                f"max_steps is {max_steps} and the training data has no length, so nothing tells when to stop. "
                "Set max_steps to the number of optimizer steps to train for."
            )
        samples = max_steps * total_batch_size
        return cls(
            epochs=sys.maxsize,
            steps_per_epoch=max_steps,
            max_steps=max_steps,
            batches_per_epoch=max_steps * accumulation,
            accumulation=accumulation,
            examples=samples,
            samples=samples,
            total_batch_size=total_batch_size,
            streaming=True,
            by_steps=True,
        )

    @property
    def course(self) -> int:
        """The steps that today's batches take from the beginning to the end: the length of a schedule."""
        return self.max_steps - self.more_steps

    def lengthened(self, steps: int, epochs: int) -> Plan:
        """Return the plan with so many `more_steps` and `more_epochs`, in the place of its own."""
        if (steps, epochs) == (self.more_steps, self.more_epochs):
            return self
        return replace(
            self,
            max_steps=self.course + steps,
            epochs=self.epochs - self.more_epochs + epochs,
            samples=self.samples * (self.course + steps) / self.max_steps,
            more_steps=steps,
            more_epochs=epochs,
        )

    def stands_at(self, epoch: int, batches_left: int) -> int:
        """Return the steps that today's batches take to where so many batches of an epoch are left."""
        return (epoch + 1) * self.steps_per_epoch - math.ceil(batches_left / self.accumulation)

    def entered(self, step: int, epoch: int, batches_left: int) -> Plan:
        """Return the plan for a run that has made `step` steps, with other batches, to where it enters this one.

        Where `max_steps` was given it stays; else the run ends with the epochs, so that every sample counts once.
        """
        if self.streaming:
            return self
        here = self.stands_at(epoch, batches_left)
        if not self.by_steps:
            return self.lengthened(max(step - here, step - self.course), 0)
        ends = math.ceil((here + max(0, self.course - step)) / self.steps_per_epoch)
        return self.lengthened(0, max(epoch + 1, ends) - (self.epochs - self.more_epochs))

    def group_size(self, step_in_epoch: int) -> int:
        """Return the number of micro-batches of a step, counted from 0 within its epoch."""
        if step_in_epoch < self.steps_per_epoch - 1:
            return self.accumulation
        return self.batches_per_epoch - (self.steps_per_epoch - 1) * self.accumulation

    def locate(self, step: int) -> tuple[int, int]:
        """Return the epoch that the step after `step` belongs to, and how many steps of that epoch are done."""
        return divmod(step, self.steps_per_epoch)
