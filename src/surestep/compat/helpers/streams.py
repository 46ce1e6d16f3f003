"""Sharing a stream out among processes, in the original's order."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any

import torch
from torch.utils.data import IterableDataset


class IterableDatasetShard(IterableDataset[Any]):
    """One process's part of a stream: of every `batch_size * num_processes` samples its own stretch of `batch_size`.

    The last, smaller round is filled up from the beginning of the stream, or left out with `drop_last`. A stream that
    shuffles with a `torch.Generator` in its attribute `generator` has it seeded with `seed` + epoch for each pass, so
    that all processes draw alike; one with a `set_epoch` of its own gets the epoch instead.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        drop_last: bool = False,
        num_processes: int = 1,
        process_index: int = 0,
        seed: int = 0,
    ) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.num_processes = num_processes
        self.process_index = process_index
        self.seed = seed
        self.epoch = 0
        self.num_examples = 0

    def set_epoch(self, epoch: int) -> None:
        """Name the epoch of the next pass."""
        self.epoch = epoch
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        self.num_examples = 0
        generator = getattr(self.dataset, "generator", None)
        if isinstance(generator, torch.Generator) and not hasattr(self.dataset, "set_epoch"):
            generator.manual_seed(self.seed + self.epoch)
        mine = slice(self.process_index * self.batch_size, (self.process_index + 1) * self.batch_size)
        source, size, first = iter(self.dataset), self.batch_size * self.num_processes, None
        while group := list(islice(source, size)):
            self.num_examples += len(group)
            first = first or group
            if len(group) == size:
                yield from group[mine]
            elif not self.drop_last:
                yield from [*group, *islice(cycle(first), size - len(group))][mine]

    def __len__(self) -> int:
        rounds = len(self.dataset) / (self.batch_size * self.num_processes)
        return (math.floor(rounds) if self.drop_last else math.ceil(rounds)) * self.batch_size
