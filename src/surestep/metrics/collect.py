"""Keeping what an evaluation yields until the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from surestep.errors import DataError
from surestep.runtime.nested import map_structure, to_numpy

PADDING = -100


def _join_arrays(arrays: list[np.ndarray[Any, Any]], padding: int) -> np.ndarray[Any, Any]:
    """Concatenate along samples; where second dimensions differ, pad them on the right."""
    arrays = [np.atleast_1d(array) for array in arrays]
    first = arrays[0]
    if first.ndim == 1 or len({array.shape[1] for array in arrays}) == 1:
        return np.concatenate(arrays)
    width = max(array.shape[1] for array in arrays)
    rows = sum(len(array) for array in arrays)
    joined = np.full_like(first, padding, shape=(rows, width, *first.shape[2:]))
    start = 0
    for array in arrays:
        joined[start : start + len(array), : array.shape[1]] = array
        start += len(array)
    return joined


def join(batches: list[Any], padding: int = PADDING) -> Any:
    """Concatenate batches of one structure (nested tuples, lists, mappings of arrays) along the samples.

    Where second dimensions differ, they are padded on the right with `padding`.
    """
    first = batches[0]
    if any(type(batch) is not type(first) for batch in batches):
        kinds = sorted({type(batch).__name__ for batch in batches})
        raise DataError(
            f"The batches of an evaluation do not have one form: {', '.join(kinds)}. Return the same structure for "
            "every batch, or set eval_do_concat_batches=False to keep a list of batches."
        )
    if isinstance(first, Mapping):
        joined = {key: join([batch[key] for batch in batches], padding) for key in first}
        return joined if type(first) is dict else type(first)(joined)  # type: ignore[call-arg]
    if isinstance(first, tuple | list):
        columns = [join(list(column), padding) for column in zip(*batches, strict=True)]
        return type(first)(*columns) if hasattr(first, "_fields") else type(first)(columns)
    return _join_arrays(batches, padding)


class Collector:
    """Collects one output (predictions, labels, inputs, losses) over the batches of an evaluation.

    Batches are kept as they come, on their device, until `offload` moves them to the host; they are joined once, at
    the end, so that n batches cost n copies and not n squared.
    """

    def __init__(self, *, concatenate: bool = True, padding: int = PADDING) -> None:
        self.concatenate, self.padding = concatenate, padding
        self._fresh: list[Any] = []
        self._arrays: list[Any] = []

    def add(self, batch: Any) -> None:
        """Keep the output of a batch; None is not kept."""
        if batch is not None:
            self._fresh.append(batch)

    def offload(self) -> None:
        """Move what is still on a device to the host."""
        self._arrays += [to_numpy(batch) for batch in self._fresh]
        self._fresh.clear()

    def result(self) -> Any:
        """Return everything as arrays: one structure over all samples, or a list of batches; None if nothing came."""
        self.offload()
        if not self._arrays:
            return None
        if not self.concatenate:
            return self._arrays
        return join([map_structure(np.asarray, batch) for batch in self._arrays], self.padding)
