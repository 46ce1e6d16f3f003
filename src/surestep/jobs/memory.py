"""Estimate the memory that training takes: what each part needs, measured on little."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

# Two sizes make a line; none of them is 1, which batch normalisation refuses.
_SMALL, _LARGE = 2, 4
# Among so many samples the longest are looked for.
_LOOKED_AT = 1000


@dataclass(frozen=True)
class Memory:
    """Bytes needed on the device; activations are those of one micro-batch of the longest samples."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return self.weights + self.gradients + self.optimizer + self.activations


def estimate(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch_of: Callable[[int], Mapping[str, Any]],
    batch_size: int,
    autocast: torch.dtype | None,
) -> Memory:
    """Estimate training on micro-batches of `batch_size`; `batch_of(n)` returns a batch of n samples."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    small, large = (_saved_bytes(model, batch_of(size), autocast) for size in (_SMALL, _LARGE))
    of_a_sample = (large - small) / (_LARGE - _SMALL)
    fixed = max(small - _SMALL * of_a_sample, 0.0)
    return Memory(
        weights=_bytes([*model.parameters(), *model.buffers()]),
        gradients=_bytes(trainable),
        optimizer=round(_state_share(optimizer) * _bytes(trainable)),
        activations=round(fixed + batch_size * of_a_sample),
    )


def longest_samples(
    samples: Any, collate: Callable[[list[Any]], Mapping[str, Any]]
) -> Callable[[int], Mapping[str, Any]]:
    """Return a function that makes a batch of the n longest samples (among the first thousand)."""
    looked_at = [samples[i] for i in range(min(_LOOKED_AT, len(samples)))]
    ordered = sorted(looked_at, key=_length, reverse=True)
    return lambda size: collate([ordered[i % len(ordered)] for i in range(size)])


def _length(sample: Mapping[str, Any]) -> int:
    return sum(value.numel() if isinstance(value, Tensor) else len(value) for value in sample.values() if _sized(value))


def _sized(value: Any) -> bool:
    return isinstance(value, Tensor) or hasattr(value, "__len__")


def _saved_bytes(model: nn.Module, batch: Mapping[str, Any], autocast: torch.dtype | None) -> int:
    """Return the bytes that a forward pass keeps for the backward pass, weights not counted."""
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    kept: dict[int, int] = {}
    held: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            # Held, so that no later tensor is given the same address.
            held.append(tensor)
        return tensor

    device = next(model.parameters()).device
    moved = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}
    was_training = model.training
    model.train()
    lowered = torch.autocast(device.type, dtype=autocast) if autocast else contextlib.nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), lowered:
        output = model(**moved)
    del output
    model.train(was_training)
    return sum(kept.values())


def _state_share(optimizer: torch.optim.Optimizer) -> float:
    """Return the bytes of optimizer state for a byte of weights, measured by one step of its like on a small matrix."""
    matrix = nn.Parameter(torch.zeros(64, 64))
    matrix.grad = torch.ones_like(matrix)
    taken = inspect.signature(type(optimizer)).parameters
    alike: Any = type(optimizer)
    probe = alike([matrix], **{name: value for name, value in optimizer.defaults.items() if name in taken})
    probe.step()
    return _bytes(value for value in probe.state[matrix].values() if isinstance(value, Tensor)) / _bytes([matrix])


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
