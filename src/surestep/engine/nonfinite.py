"""Whether the loss and the gradients of a step are finite: looked at before the update, with no pass of its own.

A watch owns what is known of the open group: its losses, and `Before`. What follows from a failure is its `Answer`'s
affair. What is read is the norm that clipping takes anyway, and on one rank the loss of each micro-batch. Several ranks
must come to one verdict without asking each other: there a loss that is not finite makes its gradient NaN (see
`engine.telling`), and so the norm, which all ranks have after the exchange.

The host of an accelerator runs ahead of it, and reading would make it wait. There the device itself leaves the update
out, and the host learns of it one step late, from a copy that has arrived by then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Generator, Tensor, nn

from surestep.engine.engine import Verdict, Watch
from surestep.runtime.random import default_generators

# Buffers of more bytes are copied only once they have changed.
_SMALL = 2**20


@dataclass(frozen=True, slots=True)
class Failure:
    """A step whose loss or gradients are not finite: its group, what was read, and how many came in a row with it.

    Where it is known late, `moment` is what the answer's `moment` gave before the group.
    """

    group: Any
    losses: list[float]
    norm: float | None
    in_a_row: int
    moment: Any = None


class Answer(Protocol):
    """Says what becomes of a step that is not finite, having done what follows from that; it may raise."""

    def __call__(self, failure: Failure) -> Verdict:
        """Return the verdict."""


class LateAnswer(Answer, Protocol):
    """An answer to what is known only after the step was counted."""

    def moment(self) -> Any:
        """Return what counting a step will change."""

    def undo_where(self, bad: Tensor) -> None:
        """Undo on the device what the group has changed there, where `bad` is not 0."""


class _Keeping(Watch):
    """A watch that has what can be put back of the moment before the open group."""

    _before: Before

    @property
    def keeps(self) -> bool:
        """Whether what forward moves can be put back."""
        return self._before.buffers.there or bool(self._before.others)

    def put_back(self) -> None:
        """Make what forward has moved what it was before the open group."""
        self._before.put_back()


class EveryStep(_Keeping):
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
        self.in_a_row = 0

    def begin(self, group: Any) -> list[Tensor]:
        """Begin a group; note where the generators stand and what the buffers hold."""
        self._group = group
        self._losses.clear()
        # `Before.keep`, without a call at every step.
        before = self._before
        before.random = list(map(Generator.get_state, before.generators))
        if before.buffers.there:
            before.buffers.keep()
        for other in before.others:
            other.keep()
        return self._losses

    def spares(self, loss: Tensor) -> bool:
        """Say whether backward must not be run from a loss."""
        return not math.isfinite(float(loss.detach()))

    def look(self, norm: Tensor | None) -> Verdict:
        """Read, and have a failure answered."""
        size = 0.0 if norm is None else float(norm)
        if math.isfinite(size if self.tells else sum(map(float, self._losses), size)):
            self.in_a_row = 0
            return Verdict.MADE
        self.in_a_row += 1
        read = None if norm is None else size
        return self._answer(Failure(self._group, list(map(float, self._losses)), read, self.in_a_row))


@dataclass(frozen=True, slots=True)
class _Pending:
    """A step that was made, unless its flag, which is on its way to the host, says otherwise."""

    group: Any
    losses: list[Tensor]
    norm: Tensor | None
    random: list[Tensor]
    moment: Any


class OneStepLate(_Keeping):
    """Leaves the updates of an optimizer with `found_inf` out on the device, and reads that one step late.

    The flag of a step goes to the host by itself and is read in `settle`, before the next step's update; where it is
    `late`, its schedule waits for that. Without an `optimizer` to tell, the loss scale has told it. Works on any
    device, so that it can be tried without an accelerator.
    """

    def __init__(
        self,
        before: Before,
        answer: LateAnswer,
        optimizer: Any,
        device: torch.device,
        *,
        tells: bool = False,
        late: bool = True,
    ) -> None:
        self.tells = tells
        self._before = before
        self._answer = answer
        self._optimizer = optimizer
        self.late = late
        self._group: Any = None
        self._losses: list[Tensor] = []
        self._moment: Any = None
        self._pending: _Pending | None = None
        self.in_a_row = 0
        self._device = device
        on_card = device.type == "cuda"
        self._host = torch.zeros((), pin_memory=on_card)
        self._arrived = torch.Event(device) if on_card else None

    def begin(self, group: Any) -> list[Tensor]:
        """Begin a group; the last one may still be on its way."""
        self._group, self._losses = group, []
        self._moment = self._answer.moment()
        self._before.keep()
        return self._losses

    def look(self, norm: Tensor | None) -> Verdict:
        """Have the device leave the update out where it is not finite, and send word."""
        total = torch.zeros((), device=self._device) if norm is None else norm.detach()
        if not self.tells:
            for loss in self._losses:
                total = total + loss
        bad = torch.logical_not(torch.isfinite(total)).to(torch.float32)
        self.settle()
        if self._optimizer is not None:
            self._optimizer.found_inf = bad
        self._answer.undo_where(bad)
        self._host.copy_(bad, non_blocking=True)
        if self._arrived is not None:
            self._arrived.record()
        self._pending = _Pending(self._group, self._losses, norm, self._before.random, self._moment)
        return Verdict.MADE

    def settle(self) -> Verdict:
        """Read the flag of the last step, and have a failure answered."""
        pending, self._pending = self._pending, None
        if pending is None:
            return Verdict.MADE
        if self._optimizer is not None:
            del self._optimizer.found_inf
        if self._arrived is not None:
            self._arrived.synchronize()
        if not float(self._host):
            self.in_a_row = 0
            return Verdict.MADE
        self.in_a_row += 1
        self._before.random = pending.random
        norm = None if pending.norm is None else float(pending.norm)
        losses = list(map(float, pending.losses))
        return self._answer(Failure(pending.group, losses, norm, self.in_a_row, pending.moment))


class Kept(Protocol):
    """Something that forward moves, and that remembers what it was."""

    def keep(self) -> None:
        """Remember what is."""

    def put_back_where(self, bad: Tensor) -> None:
        """Be as remembered where `bad`, a scalar of truth on the device, holds."""


class Before:
    """What forward has moved before anybody can know that the step is not finite, as it was before the open group.

    These are torch's generators of the host and of `device`, the buffers of `model`, and what else there is (`others`,
    such as metrics of training).
    """

    def __init__(self, model: nn.Module, device: torch.device, others: Sequence[Kept] = ()) -> None:
        self.buffers = Buffers(model)
        self.others = others
        self.generators = default_generators(device)
        self.random: list[Tensor] = []

    def keep(self) -> None:
        """Note where the generators stand and what the buffers hold."""
        self.random = list(map(Generator.get_state, self.generators))
        if self.buffers.there:
            self.buffers.keep()
        for other in self.others:
            other.keep()

    def put_generators_back(self) -> None:
        """Let the generators draw again what they drew in the group."""
        for generator, state in zip(self.generators, self.random, strict=True):
            generator.set_state(state)

    def put_back(self) -> None:
        """Make buffers and others what they were before the group."""
        self.buffers.put_back()
        for other in self.others:
            other.put_back_where(torch.ones((), dtype=torch.bool))

    def put_back_where(self, bad: Tensor) -> None:
        """Do so on the device where `bad` holds, without asking the host."""
        if self.buffers.there:
            self.buffers.put_back_where(bad)
        for other in self.others:
            other.put_back_where(bad)


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

    def put_back_where(self, bad: Tensor) -> None:
        """Make every buffer what it was where `bad` holds."""
        moved = [
            (buffer, copy)
            for buffer, copy, version in zip(self._others, self._copies, self._versions, strict=True)
            if buffer._version != version and copy is not None
        ]
        for buffer, copy in [*zip(self._statistics, self._copied_statistics, strict=True), *moved]:
            torch.where(bad, copy, buffer, out=buffer)

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
