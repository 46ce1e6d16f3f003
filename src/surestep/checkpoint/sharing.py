"""Which tensors lie on the same memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch

Interval = tuple[int, int]


def extent(tensor: torch.Tensor) -> Interval:
    """Return the first byte and the byte after the last that a tensor reaches, counted within its storage."""
    start = int(tensor.storage_offset()) * tensor.element_size()
    if tensor.numel() == 0:
        return start, start
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return start, start + (reach + 1) * tensor.element_size()


def overlapping(tensors: Mapping[str, torch.Tensor]) -> list[list[str]]:
    """Group the names of tensors whose memory overlaps, in the order given; a tensor alone is a group of one."""
    storages: defaultdict[Any, list[str]] = defaultdict(list)
    for name, tensor in tensors.items():
        storages[_storage_key(name, tensor)].append(name)
    groups = [group for names in storages.values() for group in _connected(names, tensors)]
    rank = {name: position for position, name in enumerate(tensors)}
    ordered = [sorted(group, key=rank.__getitem__) for group in groups]
    return sorted(ordered, key=lambda group: rank[group[0]])


def same_view(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Say whether two tensors on the same storage are the same elements in the same order."""
    return _view(first) == _view(second)


def _view(tensor: torch.Tensor) -> tuple[object, ...]:
    flags = (tensor.is_conj(), tensor.is_neg())
    return tensor.dtype, tensor.storage_offset(), tensor.shape, tensor.stride(), flags


def _storage_key(name: str, tensor: torch.Tensor) -> object:
    """Return what tensors on one storage have in common; one without memory to share stands alone."""
    unshared = tensor.layout is not torch.strided or tensor.device.type == "meta" or tensor.numel() == 0
    return name if unshared else (tensor.device, tensor.untyped_storage().data_ptr())


def _connected(names: list[str], tensors: Mapping[str, torch.Tensor]) -> list[list[str]]:
    """Split the tensors of one storage where no byte is common."""
    if len(names) == 1:
        return [names]
    groups: list[list[str]] = []
    end = -1
    for name in sorted(names, key=lambda name: extent(tensors[name])):
        start, stop = extent(tensors[name])
        if start >= end:
            groups.append([])
        groups[-1].append(name)
        end = max(end, stop)
    return groups
