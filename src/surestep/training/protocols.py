"""What the loop asks of others. These are the seams: anything that fits may drive, or be driven by, the loop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from surestep.training.state import TrainerControl, TrainerState
from surestep.training.tally import Tally

Batch = Any


class Group(NamedTuple):
    """The micro-batches of one step on this rank.

    `items` is the number of items (labels) that the loss of the step counts, where somebody needs it. Among several
    ranks `shares` is how many micro-batches each has; the step takes `rounds`, which is the most that one has.
    `left_out` says that the step is counted and nothing else.
    """

    batches: list[Batch]
    items: Tensor | int | None
    rounds: int
    shares: tuple[int, ...] | None = None
    left_out: bool = False


class Fires(Protocol):
    """Where events go."""

    def fire(self, event: str, **extra: Any) -> None:
        """Tell whoever listens."""


class Steps(Protocol):
    """What a step asks of a trainer. These are methods that users override, so that dispatch is plain Python."""

    args: Any
    state: TrainerState
    control: TrainerControl
    current_gradient_accumulation_steps: int

    def training_step(self, model: nn.Module, inputs: Batch, num_items_in_batch: Any = None) -> Tensor:
        """Run forward and backward on a micro-batch and return its loss, detached."""

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], Any]:
        """Fetch the micro-batches of a step and count their items."""


class Watches(Protocol):
    """What looks at each step before its update."""

    in_a_row: int


class StepRunner(Protocol):
    """What the loop asks of an engine: the whole of a step, in two halves."""

    model: nn.Module
    device: torch.device

    def forward_backward(self, trainer: Steps, group: Group, tally: Tally, events: Fires) -> bool:
        """Run every micro-batch of a step; False if a callback broke the step off."""

    ranks: int

    @property
    def watch(self) -> Watches:
        """What says whether a step is fit to be made."""

    def shares(self, batches: int) -> tuple[int, ...]:
        """Return how many micro-batches each rank has for a step, when this one has so many."""

    def apply(self, tally: Tally, events: Fires) -> bool:
        """Clip, step the optimizer and the schedule, zero the gradients; False if the run went back instead."""

    def settle(self) -> bool:
        """Learn what became of the last step, where that is known late; False if the run went back because of it."""
