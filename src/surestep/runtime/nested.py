"""Walking nested tuples, lists and mappings of tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch


def map_structure(function: Callable[[Any], Any], data: Any) -> Any:
    """Apply `function` to every leaf; tuples (named ones too), lists and mappings keep their type."""
    if isinstance(data, Mapping):
        mapped = {key: map_structure(function, value) for key, value in data.items()}
        return mapped if type(data) is dict else type(data)(mapped)  # type: ignore[call-arg]
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(map_structure(function, value) for value in data))
    if isinstance(data, tuple | list):
        return type(data)(map_structure(function, value) for value in data)
    return function(data)


def leaves(data: Any) -> Iterable[Any]:
    """Yield every leaf in order."""
    if isinstance(data, Mapping):
        data = data.values()
    elif not isinstance(data, tuple | list):
        yield data
        return
    for value in data:
        yield from leaves(value)


def detach(data: Any) -> Any:
    """Cut every tensor off the graph."""
    return map_structure(lambda leaf: leaf.detach() if isinstance(leaf, torch.Tensor) else leaf, data)


def to_numpy(data: Any) -> Any:
    """Turn every tensor into an array on the host; bfloat16, which numpy lacks, becomes float32."""

    def convert(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        host = leaf.detach().cpu()
        return host.float().numpy() if host.dtype == torch.bfloat16 else host.numpy()

    return map_structure(convert, data)


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
        if isinstance(leaf, torch.Tensor | np.ndarray) and leaf.ndim >= 1:
            return int(leaf.shape[0])
    return None
