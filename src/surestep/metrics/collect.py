"""Keeping what an evaluation yields until the end, in memory up to a limit and on disk beyond it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from surestep.errors import DataError
from surestep.metrics.blocks import apart
from surestep.metrics.spill import Array, Column, Store
from surestep.runtime.nested import leaves, map_structure, to_numpy

PADDING = -100
# Stands for an array in the structure of a batch.
_LEAF = ...


class Collector:
    """Collects one output (predictions, labels, inputs, losses) over the batches of an evaluation.

    Batches of a device are kept there until `offload` moves them to the host. When the store that several collectors
    share is full, they are written to disk. They are joined once, at the end, and memory that
    is copied is given up on the way. float16 stays float16; numpy has no bfloat16, which becomes float32.

    Batches have one structure (nested tuples, lists, mappings of arrays). Where second dimensions differ, they are
    padded on the right with `padding`. With `objects`, lists hold one item a sample, whatever it is, and are appended
    to each other; they stay in memory.
    """

    def __init__(
        self,
        *,
        concatenate: bool = True,
        padding: int = PADDING,
        store: Store | None = None,
        objects: bool = False,
    ) -> None:
        self.concatenate, self.padding, self.objects = concatenate, padding, objects
        self.store = Store() if store is None else store
        self._lists: list[list[Any]] = []
        self._fresh: list[Any] = []
        self._batches: list[Any] = []
        self._columns: list[Column] = []

    def add(self, batch: Any) -> None:
        """Keep the output of a batch; None is not kept."""
        if batch is None:
            return
        if self.objects and holds_objects(batch):
            self._lists.append(to_numpy(batch if isinstance(batch, list) else [batch]))
            return
        batch = map_structure(apart, batch)
        for leaf in leaves(batch):
            self.store.held += _size(leaf)
        self._fresh.append(batch)
        if len(self._fresh) == 1 and _on_host(batch):
            self._take_fresh()

    def offload(self) -> None:
        """Move what is still on a device to the host, and to disk where the store is full."""
        self._take_fresh()
        if self.store.full:
            for column in self._columns:
                column.flush()

    def _take_fresh(self) -> None:
        for batch in self._fresh:
            self._take(map_structure(np.asarray, to_numpy(batch)))
        self._fresh.clear()

    def _take(self, batch: Any) -> None:
        """Hand the arrays of a batch to the columns, and note the structure."""
        arrays = list(leaves(batch))
        if self.concatenate and self._batches:
            _check_structure(self._batches[0], batch)
        else:
            self._columns += [Column(self.store) for _ in arrays[len(self._columns) :]]
            self._batches.append(map_structure(lambda _: _LEAF, batch))
        for column, array in zip(self._columns, arrays, strict=False):
            column.append(array)

    def result(self, order: Array | None = None) -> Any:
        """Return everything as arrays: one structure over all samples, or a list of batches; None if nothing came.

        `order` names the place of each sample in the joined arrays. It empties the collector.
        """
        self.offload()
        if self._lists:
            return self._joined_lists(order) if self.concatenate else self._lists
        if not self._batches:
            return None
        if self.concatenate:
            return self._filled(self._batches[0], [column.joined(self.padding, order) for column in self._columns])
        columns = [iter(column.separate()) for column in self._columns]
        return [
            self._filled(batch, [next(column) for _, column in zip(leaves(batch), columns, strict=False)])
            for batch in self._batches
        ]

    def _joined_lists(self, order: Array | None) -> list[Any]:
        samples = [one for batch in self._lists for one in batch]
        if order is None or len(order) != len(samples):
            return samples
        return [samples[place] for place in np.argsort(order)]

    @staticmethod
    def _filled(structure: Any, arrays: list[Array]) -> Any:
        given = iter(arrays)
        return map_structure(lambda _: next(given), structure)


def holds_objects(value: Any) -> bool:
    """Say whether an output is a list with an item for each sample, or holds anything but tensors."""
    return isinstance(value, list) or any(not isinstance(leaf, Tensor) for leaf in leaves(value))


def _on_host(batch: Any) -> bool:
    """Say whether nothing of a batch is on a device."""
    return all(leaf.device.type == "cpu" for leaf in leaves(batch) if isinstance(leaf, Tensor))


def _size(leaf: Any) -> int:
    """Return the bytes of an array or tensor."""
    if isinstance(leaf, Tensor):
        return leaf.numel() * leaf.element_size()
    return int(getattr(leaf, "nbytes", 0))


def _check_structure(first: Any, batch: Any) -> None:
    """Raise unless two batches are nested alike."""
    if type(batch) is not (np.ndarray if first is _LEAF else type(first)):
        kinds = sorted({_kind(first), _kind(batch)})
        raise DataError(
            f"The batches of an evaluation do not have one form: {', '.join(kinds)}. Return the same structure for "
            "every batch, or set eval_do_concat_batches=False to keep a list of batches."
        )
    if first is _LEAF:
        return
    if isinstance(first, Mapping):
        _check_keys(list(first), list(batch), lambda key: (first[key], batch[key]))
    elif isinstance(first, tuple | list):
        _check_keys(list(range(len(first))), list(range(len(batch))), lambda place: (first[place], batch[place]))


def _check_keys(one: list[Any], other: list[Any], pair: Callable[[Any], tuple[Any, Any]]) -> None:
    if one != other:
        raise DataError(
            f"The batches of an evaluation do not have one form: one has {one} and another {other}. Return the same "
            "outputs for every batch, or set eval_do_concat_batches=False to keep a list of batches."
        )
    for key in one:
        _check_structure(*pair(key))


def _kind(value: Any) -> str:
    return "ndarray" if value is _LEAF else type(value).__name__
