"""Walking nested tuples, lists and mappings of tensors.

This runs for every batch, and most of what is walked is a tensor: types that need no look into an abstract class, which
is a Python call, are asked about first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import torch

_ARRAYS = (torch.Tensor, np.ndarray)


def map_structure(function: Callable[[Any], Any], data: Any) -> Any:
    """Apply `function` to every leaf; tuples (named ones too), lists and mappings keep their type."""
    if isinstance(data, _ARRAYS):
        return function(data)
    if isinstance(data, tuple | list):
        changed = [map_structure(function, value) for value in data]
        return type(data)(*changed) if hasattr(data, "_fields") else type(data)(changed)
    if isinstance(data, dict | Mapping):
        mapped = {key: map_structure(function, value) for key, value in data.items()}
        return mapped if type(data) is dict else type(data)(mapped)  # type: ignore[call-arg]
    return function(data)


def leaves(data: Any) -> Collection[Any]:
    """Return every leaf in order."""
    if isinstance(data, _ARRAYS):
        return (data,)
    if not isinstance(data, tuple | list):
        if not isinstance(data, dict | Mapping):
            return (data,)
        data = data.values()
    found: list[Any] = []
    for value in data:
        found += leaves(value)
    return found


def detach(data: Any) -> Any:
    """Cut every tensor off the graph."""
    return map_structure(_detached, data)


def _detached(leaf: Any) -> Any:
    return leaf.detach() if isinstance(leaf, torch.Tensor) else leaf


def to_numpy(data: Any) -> Any:
    """Turn every tensor into an array on the host; bfloat16, which numpy lacks, becomes float32."""
    return map_structure(_on_host, data)


def _on_host(leaf: Any) -> Any:
    if not isinstance(leaf, torch.Tensor):
        return leaf
    host = leaf.detach().cpu()
    return host.float().numpy() if host.dtype == torch.bfloat16 else host.numpy()


def to_plain(data: Any) -> Any:
    """Turn numpy scalars and one-element tensors into Python numbers, so that the result can be written as JSON."""

    def convert(leaf: Any) -> Any:
        if isinstance(leaf, np.generic) or (isinstance(leaf, torch.Tensor) and leaf.numel() == 1):
            return leaf.item()
        return leaf

    return map_structure(convert, data)


def batch_length(data: Any) -> int | None:
    """Return the first dimension of the first tensor or array that has one: the number of samples of a batch."""
    for leaf in leaves(data):
        if isinstance(leaf, _ARRAYS) and leaf.ndim >= 1:
            return int(leaf.shape[0])
    return None
