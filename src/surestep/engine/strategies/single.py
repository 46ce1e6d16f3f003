"""One process, one device."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from surestep.runtime.world import World


class SingleDevice:
    """The whole model on one device; nothing to exchange."""

    precisions = frozenset({"no", "bf16", "fp16", "fp8"})

    def __init__(self, world: World, device: torch.device) -> None:
        self.world = world
        self.device = device

    def prepare(self, model: nn.Module) -> nn.Module:
        """Return `model` itself."""
        return model

    def unwrap(self, model: nn.Module) -> nn.Module:
        """Return `model` itself, or what `torch.compile` wrapped."""
        return getattr(model, "_orig_mod", model)

    def accumulating(self, model: nn.Module) -> AbstractContextManager[None]:
        """Return a context that does nothing."""
        del model
        return nullcontext()

    def alone(self, model: nn.Module) -> nn.Module:
        """Return `model` itself."""
        return model

    def level(self, model: nn.Module) -> None:
        """Do nothing: there is one model."""

    def exchange(self, parameters: Iterable[nn.Parameter]) -> None:
        """Do nothing: the gradients are complete."""

    def sum(self, value: Tensor) -> Tensor:
        """Return `value`: the sum over one rank."""
        return value

    def mean(self, value: Tensor) -> Tensor:
        """Return `value`: the mean over one rank."""
        return value

    def gather(self, value: Any, *, padding: int = -100) -> Any:
        """Return `value`: there is no other rank."""
        del padding
        return value

    def gather_objects(self, value: Any) -> list[Any]:
        """Return the object of the one rank."""
        return [value]

    def agree(self, number: int) -> list[int]:
        """Return the number of the one rank."""
        return [number]
