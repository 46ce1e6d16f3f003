"""Samplers under the original's names and signatures, in its orders.

The trainer's own orders are those of `surestep.data`, which can start anywhere in an epoch. These are for scripts that
make their sampler themselves; where they draw from a global generator, a resumed run replays the draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence, Sized
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import Sampler
from torch.utils.data.distributed import DistributedSampler

from surestep.data.grouping import default_window, grouped, lengths_of
from surestep.errors import ArgumentError


def get_dataloader_sampler(dataloader: Any) -> Any:
    """Return the sampler of single samples of a loader, looked up through its batch samplers; None if it has none."""
    while (inner := getattr(dataloader, "batch_sampler", None)) is not None:
        dataloader = inner
    return getattr(dataloader, "sampler", None)


def get_length_grouped_indices(
    lengths: Sequence[int],
    batch_size: int,
    mega_batch_mult: int | None = None,
    generator: torch.Generator | None = None,
) -> list[int]:
    """Return a random order whose neighbours are of about one length, the longest sample first.

    Windows of `mega_batch_mult` batches of the permutation are sorted by length; by default 50, or fewer so that there
    are four. Without a `generator` the permutation is drawn from torch's global one.
    """
    known = torch.as_tensor(lengths, dtype=torch.int64)
    window = mega_batch_mult * batch_size if mega_batch_mult else default_window(len(known), batch_size)
    order: list[int] = grouped(torch.randperm(len(known), generator=generator), known, window).tolist()
    return order


class LengthGroupedSampler(Sampler[int]):
    """The order of `get_length_grouped_indices`, drawn anew for each pass; lengths are given, or those of a dataset."""

    def __init__(
        self,
        batch_size: int,
        dataset: Any = None,
        lengths: Sequence[int] | torch.Tensor | None = None,
        model_input_name: str | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        self.batch_size = batch_size
        self.lengths = _lengths(dataset, lengths, model_input_name)
        self.generator = generator

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        return iter(get_length_grouped_indices(self.lengths, self.batch_size, generator=self.generator))


class DistributedLengthGroupedSampler(DistributedSampler[int]):
    """Each process's part of a grouped order that all draw alike, from a generator seeded with `seed` + epoch.

    As torch's own sampler, it repeats samples so that all parts are of one length, or leaves some out (`drop_last`).
    """

    def __init__(
        self,
        batch_size: int,
        dataset: Any = None,
        num_replicas: int | None = None,
        rank: int | None = None,
        seed: int = 0,
        drop_last: bool = False,
        lengths: Sequence[int] | torch.Tensor | None = None,
        model_input_name: str | None = None,
    ) -> None:
        self.lengths = _lengths(dataset, lengths, model_input_name)
        self.batch_size = batch_size
        super().__init__(range(len(self.lengths)), num_replicas, rank, seed=seed, drop_last=drop_last)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = get_length_grouped_indices(self.lengths, self.batch_size, generator=generator)
        order = (order + order)[: self.total_size]
        return iter(order[self.rank : self.total_size : self.num_replicas])


class DistributedSamplerWithLoop(DistributedSampler[int]):
    """Torch's distributed sampler, whose part of each process is filled up to whole batches from its beginning."""

    def __init__(self, dataset: Any, batch_size: int, **kwargs: Any) -> None:
        super().__init__(dataset, **kwargs)
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[int]:
        mine = list(super().__iter__())
        lacking = -len(mine) % self.batch_size
        # Where torch has filled up this part already, its first sample is there twice.
        first = 1 if self.rank < len(self.dataset) % self.num_replicas else 0  # type: ignore[arg-type]
        return iter(mine + mine[first : first + lacking])


class ShardSampler(Sampler[int]):
    """Deals whole batches out to the processes in turn: with two, the first batch to one, the second to the other.

    The last round is filled up from the beginning of the dataset, or left out with `drop_last`.
    """

    def __init__(
        self,
        dataset: Sized,
        batch_size: int = 1,
        drop_last: bool = False,
        num_processes: int = 1,
        process_index: int = 0,
    ) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.num_processes = num_processes
        self.process_index = process_index
        self.total_batch_size = batch_size * num_processes
        rounds = len(dataset) / self.total_batch_size
        self.total_num_samples = (math.floor(rounds) if drop_last else math.ceil(rounds)) * self.total_batch_size

    def __iter__(self) -> Iterator[int]:
        size, first = len(self.dataset), self.batch_size * self.process_index
        starts = range(first, self.total_num_samples, self.total_batch_size)
        return iter([index % size for start in starts for index in range(start, start + self.batch_size)])

    def __len__(self) -> int:
        return self.total_num_samples // self.num_processes


class SequentialDistributedSampler(Sampler[int]):
    """Each process's stretch of the dataset, in order; the last is filled up from the beginning of the dataset.

    A name of the 4.x years. With `batch_size` the stretches are whole batches.
    """

    def __init__(
        self, dataset: Sized, num_replicas: int | None = None, rank: int | None = None, batch_size: int | None = None
    ) -> None:
        self.dataset = dataset
        self.num_replicas = dist.get_world_size() if num_replicas is None else num_replicas
        self.rank = dist.get_rank() if rank is None else rank
        self.batch_size = batch_size
        unit = (batch_size or 1) * self.num_replicas
        self.num_samples = math.ceil(len(dataset) / unit) * (batch_size or 1)
        self.total_size = self.num_samples * self.num_replicas

    def __iter__(self) -> Iterator[int]:
        first, size = self.rank * self.num_samples, len(self.dataset)
        return iter([index % size for index in range(first, first + self.num_samples)])

    def __len__(self) -> int:
        return self.num_samples


class DistributedTensorGatherer:
    """Puts the parts of `SequentialDistributedSampler`'s processes back into the order of the dataset.

    A name of the 4.x years. Each call of `add_arrays` brings what all processes computed in one step, rank by rank;
    `finalize` returns the arrays of `num_samples` samples. Rows of another width are padded with `padding_index`.
    """

    def __init__(
        self, world_size: int, num_samples: int, make_multiple_of: int | None = None, padding_index: int = -100
    ) -> None:
        self.world_size = world_size
        self.num_samples = num_samples
        self.padding_index = padding_index
        unit = world_size * (make_multiple_of or 1)
        self.total_samples = math.ceil(num_samples / unit) * unit
        self.process_length = self.total_samples // world_size
        self._parts: list[Any] = [None] * world_size

    def add_arrays(self, arrays: Any) -> None:
        """Take up a step's arrays, as `distributed_concat` gives them; None adds nothing."""
        from surestep.compat.helpers.tensors import nested_concat
        from surestep.runtime.nested import leaves, map_structure

        if arrays is None:
            return
        share = len(next(iter(leaves(arrays)))) // self.world_size
        for rank, known in enumerate(self._parts):
            rows = slice(rank * share, (rank + 1) * share)
            part = map_structure(partial(_rows, rows), arrays)
            self._parts[rank] = part if known is None else nested_concat(known, part, self.padding_index)

    def finalize(self) -> Any:
        """Return everything in the order of the dataset; None where nothing was added."""
        from surestep.compat.helpers.tensors import nested_concat, nested_truncate

        if self._parts[0] is None:
            return None
        joined = self._parts[0]
        for part in self._parts[1:]:
            joined = nested_concat(joined, part, self.padding_index)
        return nested_truncate(joined, self.num_samples)


def _rows(rows: slice, leaf: Any) -> Any:
    return np.asarray(leaf)[rows]


def _lengths(dataset: Any, lengths: Sequence[int] | torch.Tensor | None, model_input_name: str | None) -> list[int]:
    if lengths is not None:
        return [int(length) for length in lengths]
    if dataset is None:
        raise ArgumentError("dataset and lengths are both None: give one of them, for the lengths of the samples.")
    return lengths_of(dataset, column="", model_input_name=model_input_name)
