"""Orders of samples that are functions of (seed, epoch), and that can start anywhere in the epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from itertools import chain
from typing import Any, Protocol, runtime_checkable

import torch
from torch.utils.data import RandomSampler, Sampler
from torch.utils.data import SequentialSampler as TorchSequentialSampler

from surestep.errors import DataError

# How many indices become Python numbers at a time.
_CHUNK = 65536


@runtime_checkable
class Seekable(Protocol):
    """Anything that can start `samples` into its epoch without walking there."""

    def seek(self, samples: int) -> None:
        """Start the next pass `samples` into the epoch."""


class EpochOrder(Sampler[int]):
    """The base of our samplers: an order for each epoch, and a place in it to start from.

    A subclass says in `order` what the whole epoch looks like, from `seed` and `epoch` alone. A complete pass moves
    on to the next epoch, so that a loop written by hand shuffles anew each time; `set_epoch` names the epoch to come.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.epoch = 0
        self._start = 0

    def order(self) -> torch.Tensor:
        """Return the indices of the whole epoch, as a vector of int64."""
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def set_epoch(self, epoch: int) -> None:
        """Name the epoch of the next pass."""
        self.epoch = epoch

    def seek(self, samples: int) -> None:
        """Start the next pass `samples` into the epoch; the passes after it are whole again."""
        self._start = _checked_start(samples, len(self))

    def __iter__(self) -> Iterator[int]:
        start, self._start = self._start, 0
        chunks = torch.split(self.order()[start:], _CHUNK)
        # Iterators of C all the way: a generator would cost a Python call for each sample.
        return chain(chain.from_iterable(map(torch.Tensor.tolist, chunks)), self._turn(self.epoch + 1))

    def _turn(self, epoch: int) -> Iterator[int]:
        self.epoch = epoch
        yield from ()

    def _generator(self) -> torch.Generator:
        return torch.Generator(device="cpu").manual_seed(self.seed + self.epoch)


class SeededRandomSampler(EpochOrder, RandomSampler):
    """A random order: `torch.randperm` from a generator seeded with `seed + epoch`, as the original trains.

    `replacement` and `num_samples` mean what they mean to torch's `RandomSampler`.
    """

    def __init__(
        self,
        data_source: Sized | int,
        seed: int,
        *,
        replacement: bool = False,
        num_samples: int | None = None,
    ) -> None:
        EpochOrder.__init__(self, seed)
        source = range(data_source) if isinstance(data_source, int) else data_source
        if len(source) == 0:
            raise DataError(
                "the dataset is empty: there is nothing to put in a random order; give it at least a sample"
            )
        RandomSampler.__init__(self, source, replacement, num_samples)

    def order(self) -> torch.Tensor:
        """Return the permutation of this epoch (or what torch draws for `replacement` and `num_samples`)."""
        size, generator = len(self.data_source), self._generator()
        if not self.replacement and self.num_samples == size:
            return torch.randperm(size, generator=generator)
        drawn = RandomSampler(self.data_source, self.replacement, self.num_samples, generator)
        return torch.tensor(list(drawn), dtype=torch.int64)

    def __len__(self) -> int:
        return self.num_samples


class SequentialSampler(TorchSequentialSampler):
    """Torch's sequential order, able to start anywhere."""

    _start = 0

    def seek(self, samples: int) -> None:
        """Start the next pass `samples` into the epoch; the passes after it are whole again."""
        self._start = _checked_start(samples, len(self))

    def __iter__(self) -> Iterator[int]:
        start, self._start = self._start, 0
        return iter(range(start, len(self)))


def adopt(sampler: Any, seed: int | None) -> Any:
    """Return the sampler that gives the order of `sampler` by seed and epoch, where there is one.

    Torch's own `RandomSampler` becomes a `SeededRandomSampler` (as the original's launcher does it, whatever generator
    it holds) and its `SequentialSampler` one that can seek. Subclasses, everything else, and a random sampler without
    a `seed` stay as they are.
    """
    if type(sampler) is TorchSequentialSampler:
        return SequentialSampler(sampler.data_source)
    if type(sampler) is RandomSampler and seed is not None:
        return SeededRandomSampler(
            sampler.data_source, seed, replacement=sampler.replacement, num_samples=sampler._num_samples
        )
    return sampler


def _checked_start(samples: int, size: int) -> int:
    if not 0 <= samples <= size:
        raise DataError(
            f"cannot start {samples} samples into an epoch of {size}: the dataset or its sampler is not the one that "
            "the position was counted on. Give the same dataset, or start anew."
        )
    return samples
