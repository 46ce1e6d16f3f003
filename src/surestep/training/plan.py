"""How long to train, and how batches group into steps: pure numbers, worked out once."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

from surestep.errors import ArgumentError, DataError


@dataclass(frozen=True, slots=True)
class Plan:
    """The arithmetic of a run. A step is an optimizer step over a group of `accumulation` micro-batches.

    A group never crosses an epoch: the last one of an epoch may be smaller. For a stream, whose length is not known,
    `batches_per_epoch` counts what `max_steps` will take and an epoch ends when the stream does.
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
        return cls(epochs, steps_per_epoch, steps, batches, accumulation, known, samples, total_batch_size)

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
        )

    def group_size(self, step_in_epoch: int) -> int:
        """Return the number of micro-batches of a step, counted from 0 within its epoch."""
        if step_in_epoch < self.steps_per_epoch - 1:
            return self.accumulation
        return self.batches_per_epoch - (self.steps_per_epoch - 1) * self.accumulation

    def locate(self, step: int) -> tuple[int, int]:
        """Return the epoch that the step after `step` belongs to, and how many steps of that epoch are done."""
        return divmod(step, self.steps_per_epoch)
