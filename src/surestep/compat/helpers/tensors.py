"""Nested tensors under the original's names: join, cut, convert."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from surestep.errors import DataError
from surestep.runtime.nested import batch_length, detach, map_structure, to_numpy, to_plain

Array = np.ndarray[Any, Any]

find_batch_size = batch_length
nested_detach = detach
denumpify_detensorize = to_plain


def atleast_1d(tensor_or_array: torch.Tensor | Array) -> torch.Tensor | Array:
    """Return a scalar as one with a dimension, and anything else as it is."""
    if isinstance(tensor_or_array, torch.Tensor):
        return tensor_or_array.reshape(1) if tensor_or_array.ndim == 0 else tensor_or_array
    return np.atleast_1d(tensor_or_array)


def torch_pad_and_concatenate(tensor1: torch.Tensor, tensor2: torch.Tensor, padding_index: int = -100) -> torch.Tensor:
    """Return both tensors along the first dimension, the narrower one padded on the right of the second."""
    one, two = (tensor.reshape(1) if tensor.ndim == 0 else tensor for tensor in (tensor1, tensor2))
    if one.ndim == 1 or one.shape[1] == two.shape[1]:
        return torch.cat((one, two))
    joined = one.new_full((len(one) + len(two), max(one.shape[1], two.shape[1]), *one.shape[2:]), padding_index)
    joined[: len(one), : one.shape[1]] = one
    joined[len(one) :, : two.shape[1]] = two
    return joined


def numpy_pad_and_concatenate(array1: Array, array2: Array, padding_index: int = -100) -> Array:
    """Return both arrays along the first dimension, the narrower one padded on the right of the second."""
    one, two = np.atleast_1d(array1), np.atleast_1d(array2)
    if one.ndim == 1 or one.shape[1] == two.shape[1]:
        return np.concatenate((one, two))
    width = max(one.shape[1], two.shape[1])
    return np.concatenate((expand_like(one, width, padding_index), expand_like(two, width, padding_index)))


def nested_concat(tensors: Any, new_tensors: Any, padding_index: int = -100) -> Any:
    """Join two structures of one form leaf by leaf, padding the second dimension where it differs.

    Raises:
        DataError: The structures differ, or a leaf is neither a tensor nor an array.
    """
    both_tensors = isinstance(tensors, torch.Tensor) and isinstance(new_tensors, torch.Tensor)
    if not both_tensors and type(tensors) is not type(new_tensors):
        kinds = f"a {type(tensors).__name__} and a {type(new_tensors).__name__}"
        raise DataError(f"{kinds} cannot be joined. Give two structures of the same form.")
    if isinstance(tensors, Mapping):
        return type(tensors)(  # type: ignore[call-arg]
            {key: nested_concat(value, new_tensors[key], padding_index) for key, value in tensors.items()}
        )
    if isinstance(tensors, list | tuple):
        joined = [nested_concat(one, two, padding_index) for one, two in zip(tensors, new_tensors, strict=False)]
        return type(tensors)(*joined) if hasattr(tensors, "_fields") else type(tensors)(joined)
    if isinstance(tensors, torch.Tensor):
        return torch_pad_and_concatenate(tensors, new_tensors, padding_index)
    if isinstance(tensors, np.ndarray):
        return numpy_pad_and_concatenate(tensors, new_tensors, padding_index)
    raise DataError(f"A {type(tensors).__name__} cannot be joined. Give tensors, arrays, or a nesting of them.")


def nested_numpify(tensors: Any) -> Any:
    """Return a structure of tensors as one of arrays on the host; bfloat16 becomes float32."""
    return to_numpy(tensors)


def nested_new_like(arrays: Any, num_samples: int, padding_index: int = -100) -> Any:
    """Return arrays filled with `padding_index`, shaped as `arrays` but for their first dimension."""
    return map_structure(
        lambda array: np.full_like(array, padding_index, shape=(num_samples, *array.shape[1:])), arrays
    )


def expand_like(arrays: Array, new_seq_length: int, padding_index: int = -100) -> Array:
    """Return `arrays` with the second dimension padded on the right to `new_seq_length`."""
    wider = np.full_like(arrays, padding_index, shape=(len(arrays), new_seq_length, *arrays.shape[2:]))
    wider[:, : arrays.shape[1]] = arrays
    return wider


def nested_truncate(tensors: Any, limit: int) -> Any:
    """Cut every leaf off after its first `limit` samples."""
    return map_structure(lambda leaf: leaf[:limit], tensors)


class EvalLoopContainer:
    """Collects what an evaluation yields: joined as it comes, or as a list of batches without `do_nested_concat`."""

    def __init__(self, do_nested_concat: bool = True, padding_index: int = -100) -> None:
        self.do_nested_concat = do_nested_concat
        self.padding_index = padding_index
        self.tensors: Any = None
        self.arrays: Any = None

    def add(self, tensors: Any) -> None:
        """Take a batch up, on its device."""
        self.tensors = self._joined(self.tensors, tensors if self.do_nested_concat else [tensors])

    def to_cpu_and_numpy(self) -> None:
        """Move what was taken up since the last call to the host, as arrays."""
        if self.tensors is not None:
            self.arrays = self._joined(self.arrays, nested_numpify(self.tensors))
            self.tensors = None

    def get_arrays(self) -> Any:
        """Return everything as arrays; None where nothing was taken up."""
        self.to_cpu_and_numpy()
        return self.arrays

    def _joined(self, known: Any, fresh: Any) -> Any:
        if known is None:
            return fresh
        return nested_concat(known, fresh, self.padding_index) if self.do_nested_concat else [*known, *fresh]
