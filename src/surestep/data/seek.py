"""Starting a loader in the middle of an epoch, as cheaply as the loader allows."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Literal, TypeAlias

from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from surestep.data.ranks import RankBatches
from surestep.data.samplers import Seekable
from surestep.errors import DataError
from surestep.runtime.nested import batch_length

Tier: TypeAlias = Literal["seek", "indices", "reads"]


def seekable(loader: Any) -> Tier:
    """Say how `loader` gets to a position: it seeks, replays its indices, or reads and drops batches.

    Only `reads` touches the dataset. A loader with an iterator of its own is read, for nobody knows what it does
    with its indices.
    """
    # `type`, for some wrappers only claim to be a DataLoader.
    kind = type(loader)
    plain = kind.__iter__ is DataLoader.__iter__ or getattr(kind, "seeks_as_plain", False)
    if not (issubclass(kind, DataLoader) and plain):
        return "reads"
    if isinstance(loader.dataset, IterableDataset):
        return "reads"
    return "seek" if _seeker(loader) is not None else "indices"


def skip_batches(loader: Any, batches: int) -> Iterator[Any]:
    """Return an iterator over `loader` that stands behind its first `batches` batches of this epoch."""
    if batches == 0:
        return iter(loader)
    tier = seekable(loader)
    size, order = _samples_per_batch(loader)
    if tier == "seek" and size is not None:
        return _sought(loader, min(batches * size, len(order)))
    if tier == "reads":
        return _after_batches(iter(loader), batches)
    return iter(_with_indices(loader, _FromBatch(_indices(loader), batches)))


def _samples_per_batch(loader: Any) -> tuple[int | None, Any]:
    """Return the samples that a batch of the loader takes from the order, over all ranks, and that order."""
    batches = getattr(loader, "batch_sampler", None)
    if isinstance(batches, RankBatches):
        return batches.samples_per_round, batches.sampler
    return getattr(loader, "batch_size", None), getattr(loader, "sampler", None)


def skip_samples(loader: Any, samples: int) -> Iterator[Any]:
    """Return an iterator over `loader` that stands behind the first `samples` samples of this epoch.

    The batches need not be those of the loader that counted the samples: where the position falls inside a batch, a
    loader that seeks starts a full batch there, and one that replays indices gives the rest of that batch. A loader
    that is read can only stop between two batches and raises `DataError` elsewhere.
    """
    if samples == 0:
        return iter(loader)
    tier = seekable(loader)
    if tier == "seek":
        return _sought(loader, samples)
    if tier == "reads":
        return _after_samples(iter(loader), samples)
    return iter(_with_indices(loader, _FromSample(_indices(loader), samples)))


def _seeker(loader: DataLoader[Any]) -> Seekable | None:
    """Return what of the loader can seek: its batch sampler, or the sampler under a plain one."""
    batches: Any = loader.batch_sampler
    if isinstance(batches, Seekable):
        return batches
    plain = batches is None or type(batches) is BatchSampler
    return loader.sampler if plain and isinstance(loader.sampler, Seekable) else None


def _sought(loader: DataLoader[Any], samples: int) -> Iterator[Any]:
    seeker = _seeker(loader)
    assert seeker is not None
    seeker.seek(samples)
    return iter(loader)


def _indices(loader: DataLoader[Any]) -> Iterable[Any]:
    return loader.sampler if loader.batch_sampler is None else loader.batch_sampler


def _with_indices(loader: DataLoader[Any], indices: Iterable[Any]) -> DataLoader[Any]:
    """Return a copy of the loader that reads `indices`; a copy keeps whatever else a subclass holds."""
    twin = copy.copy(loader)
    # Past `__setattr__`, which guards these names once a loader is made.
    twin.__dict__["sampler" if loader.batch_sampler is None else "batch_sampler"] = indices
    twin.__dict__["_iterator"] = None
    return twin


class _FromBatch:
    """The batches of indices from one on."""

    def __init__(self, inner: Iterable[Any], batches: int) -> None:
        self._inner = inner
        self._batches = batches

    def __iter__(self) -> Iterator[Any]:
        return islice(iter(self._inner), self._batches, None)


class _FromSample:
    """The batches of indices from a sample on; the batch that holds it loses what comes before."""

    def __init__(self, inner: Iterable[Any], samples: int) -> None:
        self._inner = inner
        self._samples = samples

    def __iter__(self) -> Iterator[Any]:
        left = self._samples
        for batch in self._inner:
            size = len(batch) if isinstance(batch, list | tuple) else 1
            if left == 0:
                yield batch
            elif left < size:
                yield batch[left:]
                left = 0
            else:
                left -= size


def _after_batches(iterator: Iterator[Any], batches: int) -> Iterator[Any]:
    for _ in islice(iterator, batches):
        pass
    return iterator


def _after_samples(iterator: Iterator[Any], samples: int) -> Iterator[Any]:
    left = samples
    while left > 0:
        batch = next(iterator, None)
        if batch is None:
            break
        size = batch_length(batch)
        if size is None or size > left:
            raise DataError(
                f"the loader can only be read to a position, and {samples} samples do not end one of its batches "
                f"(of {size} samples). Resume with the batch size of before, or train on a map-style dataset."
            )
        left -= size
    return iterator
