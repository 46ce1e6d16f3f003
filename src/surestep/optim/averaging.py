"""Averages of a model's weights over training: exponential (EMA) and equal (SWA)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from surestep.errors import ArgumentError, CheckpointError, SurestepError
from surestep.optim.groups import clean_name

_LOW = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class _Slot:
    """Where a module keeps a tensor: read anew each time, since a module may put another in its place."""

    name: str
    holder: dict[str, Any]
    key: str
    is_buffer: bool

    @property
    def tensor(self) -> Tensor | None:
        found: Tensor | None = self.holder[self.key]
        return found


class WeightAverage(ABC):
    """An average of the weights of one model, beside the model.

    It follows the parameters that train, from when they do, and the buffers that are saved. Buffers of whole numbers
    are copied, others averaged unless `average_buffers` is false. Averages of 16-bit weights are kept in 32 bits, where
    small updates are not lost. Nothing here reads a number on the host.
    """

    def __init__(self, model: nn.Module, *, average_buffers: bool) -> None:
        self.num_updates = 0
        self._average_buffers = average_buffers
        self._averages: dict[str, Tensor] = {}
        self._applied = False
        self._model: nn.Module | None = None
        self._slots: list[_Slot] = []
        self._slots_of(model)

    @abstractmethod
    def new_share(self) -> float:
        """Return how much of the next update the model's present weights make up, from 0 to 1."""

    def update(self, model: nn.Module) -> None:
        """Take the model's present weights into the average: after a step, or at the end of an epoch."""
        if self._applied:
            raise SurestepError("The average is applied to the model; update it after leaving applied().")
        self._take(model, self.new_share())
        self.num_updates += 1

    @torch.no_grad()
    def _take(self, model: nn.Module, share: float) -> None:
        averages: list[Tensor] = []
        values: list[Tensor] = []
        for slot in self._slots_of(model):
            value, average = slot.tensor, self._averages.get(slot.name)
            if value is None:
                continue
            if average is None:
                if slot.is_buffer or value.requires_grad:
                    self._averages[slot.name] = _wide(value).detach().clone()
            elif slot.is_buffer and not (self._average_buffers and value.is_floating_point()):
                average.copy_(value)
            else:
                averages.append(average)
                values.append(_wide(value))
        if averages:
            torch._foreach_lerp_(averages, values, share)

    def _slots_of(self, model: nn.Module) -> list[_Slot]:
        if model is not self._model:
            self._model, self._slots = model, list(_find_slots(model))
        return self._slots

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[nn.Module]:
        """Give the model the averaged weights, for an evaluation or a save, and its own back at the end.

        Raises:
            SurestepError: The average has no weights yet, or is applied already.
        """
        if self._applied or not self._averages:
            state = "is applied already" if self._applied else "has seen no weights yet; call update() first"
            raise SurestepError(f"The average {state}.")
        pairs = [(slot.tensor, self._averages.get(slot.name)) for slot in self._slots_of(model)]
        swaps = [(tensor, average) for tensor, average in pairs if tensor is not None and average is not None]
        own = [tensor.detach().clone() for tensor, _ in swaps]
        self._applied = True
        try:
            _copy([tensor for tensor, _ in swaps], [average for _, average in swaps])
            yield model
        finally:
            _copy([tensor for tensor, _ in swaps], own)
            self._applied = False

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the model's `state_dict` with averages where there are any, as copies; the model stays as it is."""
        ids = {id(slot.tensor): self._averages.get(slot.name) for slot in self._slots_of(model)}
        found: dict[str, Tensor] = {}
        for name, value in model.state_dict(keep_vars=True).items():
            average = ids.get(id(value))
            found[name] = (value.detach() if average is None else average).to(value.dtype, copy=True)
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return the averages by name, and the number of updates."""
        return {"num_updates": self.num_updates, "averages": dict(self._averages)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put back what `state_dict` returned.

        Raises:
            CheckpointError: It holds averages of what the model does not have, or has in another shape.
        """
        slots = {slot.name: slot for slot in self._slots}
        averages: dict[str, Tensor] = {}
        for name, average in state_dict["averages"].items():
            value = slots[name].tensor if name in slots else None
            if value is None or value.shape != average.shape:
                there = "no such weight" if value is None else f"the shape {tuple(value.shape)}"
                raise CheckpointError(
                    f"The saved average of '{name}' has the shape {tuple(average.shape)}, the model {there}. Resume "
                    "with the model of that run, or start the average anew."
                )
            averages[name] = average.to(value.device, copy=True)
        self._averages = averages
        self.num_updates = state_dict["num_updates"]


class ExponentialMovingAverage(WeightAverage):
    """An average in which older weights fade: at each update the average keeps the share `decay` of itself.

    It starts from the model's weights of the start. With `warmup` the share is at most (1 + n) / (10 + n) at update n,
    so that a short run does not end on weights of its beginning.

    Raises:
        ArgumentError: `decay` is not within [0, 1).
    """

    def __init__(
        self, model: nn.Module, decay: float = 0.999, *, warmup: bool = False, average_buffers: bool = True
    ) -> None:
        if not 0.0 <= decay < 1.0:
            raise ArgumentError(
                f"The decay of the moving average is {decay}; write a number from 0 to below 1, as 0.999."
            )
        super().__init__(model, average_buffers=average_buffers)
        self.decay = decay
        self.warmup = warmup
        self._take(model, 0.0)

    def new_share(self) -> float:
        """Return one minus the decay of the next update."""
        ceiling = (1 + self.num_updates) / (10 + self.num_updates) if self.warmup else 1.0
        return 1.0 - min(self.decay, ceiling)


class StochasticWeightAverage(WeightAverage):
    """The plain mean of the weights at every update (Izmailov et al. 2018, arXiv 1803.05407).

    Statistics of batch norms do not average well: they are copied, and should be measured anew for the averaged weights
    with `torch.optim.swa_utils.update_bn` inside `applied`.
    """

    def __init__(self, model: nn.Module, *, average_buffers: bool = False) -> None:
        super().__init__(model, average_buffers=average_buffers)

    def new_share(self) -> float:
        """Return one part in as many as there will be updates."""
        return 1.0 / (self.num_updates + 1)


def _find_slots(model: nn.Module) -> Iterator[_Slot]:
    """Yield each parameter and each saved buffer once, tied ones under their first name."""
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        saved = {key: None for key in module._buffers if key not in module._non_persistent_buffers_set}
        for holder, keys in ((module._parameters, list(module._parameters)), (module._buffers, list(saved))):
            for key in keys:
                tensor = holder[key]
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
                    name = clean_name(f"{prefix}.{key}" if prefix else key)
                    yield _Slot(name, holder, key, is_buffer=holder is module._buffers)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in _LOW else tensor


@torch.no_grad()
def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)
