"""Small arrays copied side by side into few large ones.

An evaluation keeps a little of each batch and drops the rest, which is large. Little things that lie between large ones
keep the system's allocator from giving the memory of these back, or from using it again: it grows by megabytes for
each kilobyte that is kept. `Blocks` owns the memory of what is kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]
# Larger arrays stay where they are.
SMALL = 2**20
# Each block holds a quarter of what is there, within these bounds: there are few, and little of them is empty.
_FIRST, _LARGEST = 2**20, 2**26
_ALIGNED = 64


class Blocks:
    """Takes copies of small arrays; a block is given up with the last array in it."""

    def __init__(self) -> None:
        self._block = np.empty(0, np.uint8)
        self._used = self._total = 0

    def keep(self, array: Array) -> Array:
        """Return an equal array in a block; one that is large, or holds objects, as it is."""
        size = array.nbytes
        if size > SMALL or array.dtype.hasobject:
            return array
        start = -(-self._used // _ALIGNED) * _ALIGNED
        if start + size > len(self._block):
            self._block = np.empty(min(max(_FIRST, self._total // 4), _LARGEST), np.uint8)
            start = 0
        self._used, self._total = start + size, self._total + size
        room: Array = self._block[start : start + size].view(array.dtype).reshape(array.shape)
        room[...] = array
        return room

    def keep_tensor(self, tensor: Tensor) -> Tensor:
        """Do so with a tensor of the host that has a dimension; numpy does not know all of torch's types."""
        content = tensor.contiguous().view(torch.uint8).numpy()
        return torch.from_numpy(self.keep(content)).view(tensor.dtype)


def apart(leaf: Any) -> Any:
    """Return a tensor that keeps no more memory than it needs: a part of a larger one is copied out of it.

    What is no tensor is returned as it is.
    """
    if not isinstance(leaf, Tensor) or leaf.layout is not torch.strided:
        return leaf
    return leaf.clone() if leaf.untyped_storage().nbytes() > leaf.nbytes else leaf
