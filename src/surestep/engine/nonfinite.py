"""Whether the loss and the gradients of a step are finite: looked at before the update, with no pass of its own.

A watch owns what is known of the open group: its losses, and `Before`. What follows from a failure is its `Answer`'s
affair. What is read is the norm that clipping takes anyway, and on one rank the loss of each micro-batch. Several ranks
must come to one verdict without asking each other: there a loss that is not finite makes its gradient NaN (see
`engine.telling`), and so the norm, which all ranks have after the exchange.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Generator, Tensor, nn

from surestep.engine.engine import Verdict, Watch

# Buffers of more bytes are copied only once they have changed.
_SMALL = 2**20


@dataclass(frozen=True, slots=True)
class Failure:
    """A step whose loss or gradients are not finite: its group, what was read, and how many came in a row with it."""

    group: Any
    losses: list[float]
    norm: float | None
    in_a_row: int


class Answer(Protocol):
    """Says what becomes of a step that is not finite, having done what follows from that; it may raise."""

    def __call__(self, failure: Failure) -> Verdict:
        """Return the verdict."""


class EveryStep(Watch):
    """Reads norm and losses on the host at every step.

    `before` is what can be put back of the moment before the open group. Where `tells`, the norm alone counts. With
    `in_backward` the optimizer updates during backward, which is then not run from a loss that is not finite.
    """

    def __init__(self, before: Before, answer: Answer, *, tells: bool = False, in_backward: bool = False) -> None:
        self.tells = tells
        self.in_backward = in_backward
        self._answer = answer
        self._before = before
        self._group: Any = None
        self._losses: list[Tensor] = []
        self._in_a_row = 0

    def begin(self, group: Any) -> list[Tensor]:
        """Begin a group; note where the generators stand and what the buffers hold."""
        self._group = group
        self._losses.clear()
        before = self._before
        before.random = list(map(Generator.get_state, before.generators))
        if before.buffers.there:
            before.buffers.keep()
        return self._losses

    def spares(self, loss: Tensor) -> bool:
        """Say whether backward must not be run from a loss."""
        return not math.isfinite(float(loss.detach()))

    def look(self, norm: Tensor | None) -> Verdict:
        """Read, and have a failure answered."""
        size = 0.0 if norm is None else float(norm)
        if math.isfinite(size if self.tells else sum(map(float, self._losses), size)):
            self._in_a_row = 0
            return Verdict.MADE
        self._in_a_row += 1
        read = None if norm is None else size
        return self._answer(Failure(self._group, list(map(float, self._losses)), read, self._in_a_row))


class Before:
    """What forward has moved before anybody can know that the step is not finite, as it was before the open group.

    These are torch's generators of the host and of `device`, and the buffers of `model`. The watch fills it in.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.buffers = Buffers(model)
        self.generators = [torch.default_generator]
        if device.type == "cuda":
            self.generators.append(torch.cuda.default_generators[device.index or 0])
        self.random: list[Tensor] = []

    def put_generators_back(self) -> None:
        """Let the generators draw again what they drew in the group."""
        for generator, state in zip(self.generators, self.random, strict=True):
            generator.set_state(state)

    def put_buffers_back(self) -> None:
        """Make the buffers what they were before the group."""
        self.buffers.put_back()


class Buffers:
    """The buffers of a model, such as the running statistics of batch norms, as they were before the open group.

    Torch counts the changes of each tensor, so that those that never change are copied once, and large ones (masks,
    quantised weights) not before they have changed for the first time. It does not count those that batch norms make,
    which are copied for every group.
    """

    def __init__(self, model: nn.Module) -> None:
        named = [(name, buffer.detach()) for name, buffer in model.named_buffers()]
        self._statistics = [buffer for name, buffer in named if _is_statistic(name)]
        self._copied_statistics = [buffer.clone() for buffer in self._statistics]
        self._others = [buffer for name, buffer in named if not _is_statistic(name)]
        self._copies = [buffer.clone() if buffer.nbytes <= _SMALL else None for buffer in self._others]
        self._versions = [buffer._version for buffer in self._others]
        self.there = bool(named)

    def keep(self) -> None:
        """Copy what has changed since."""
        if self._statistics:
            torch._foreach_copy_(self._copied_statistics, self._statistics)
        versions = [buffer._version for buffer in self._others]
        if versions == self._versions:
            return
        for place, buffer in enumerate(self._others):
            if versions[place] != self._versions[place]:
                copy = self._copies[place]
                self._copies[place] = buffer.clone() if copy is None else copy.copy_(buffer)
        self._versions = versions

    def put_back(self) -> None:
        """Make every buffer what it was."""
        if self._statistics:
            torch._foreach_copy_(self._statistics, self._copied_statistics)
        for buffer, copy, version in zip(self._others, self._copies, self._versions, strict=True):
            if buffer._version != version and copy is not None:
                buffer.copy_(copy)
        self._versions = [buffer._version for buffer in self._others]


def _is_statistic(name: str) -> bool:
    return name.rpartition(".")[-1].startswith("running_")
