"""What a way of spreading a model over devices must offer."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from surestep.runtime.world import World


class Strategy(Protocol):
    """Places the model, says when gradients are exchanged, and brings together what the ranks have.

    `precisions` names the number formats that the strategy takes; anything else is refused by name.
    """

    world: World
    device: torch.device
    precisions: frozenset[str]

    def prepare(self, model: nn.Module) -> nn.Module:
        """Return the model to call: the same one, or one that wraps it."""

    def unwrap(self, model: nn.Module) -> nn.Module:
        """Return the user's model from inside a prepared one."""

    def accumulating(self, model: nn.Module) -> AbstractContextManager[None]:
        """Return the context of a micro-batch that is not the last of its step: gradients are not exchanged in it."""

    def alone(self, model: nn.Module) -> nn.Module:
        """Return the model to call in a step in which some rank has no micro-batch: it exchanges nothing."""

    def level(self, model: nn.Module) -> None:
        """Make the buffers of a prepared model, such as the statistics of batch norms, the same on every rank."""

    def exchange(self, parameters: Iterable[nn.Parameter]) -> None:
        """Average the gradients of such a step over the ranks."""

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over the ranks."""

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of a scalar over the ranks."""

    def gather(self, value: Any, *, padding: int = -100) -> Any:
        """Return the samples of all ranks, in order, from a nested structure of tensors; None from a rank with none."""

    def gather_objects(self, value: Any) -> list[Any]:
        """Return the object of every rank, by rank."""

    def agree(self, number: int) -> list[int]:
        """Return a number of the host from every rank, without waiting for a device."""
