"""Orders of samples that are functions of (seed, epoch), and that can start anywhere in the epoch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import chain
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import torch
from torch.utils.data import RandomSampler, Sampler
from torch.utils.data import SequentialSampler as TorchSequentialSampler

from surestep.data.permutation import KeyedOrder
from surestep.errors import DataError

# How many indices become Python numbers at a time.
_CHUNK = 65536
# Up to so many samples an order is drawn as the original draws it, which takes 8 bytes for each; from there on it is a
# keyed permutation, which takes none.
LISTED_UP_TO = 2**24
Rule: TypeAlias = Literal["randperm", "keyed"]


@runtime_checkable
class Seekable(Protocol):
    """Anything that can start `samples` into its epoch without walking there."""

    def seek(self, samples: int) -> None:
        """Start the next pass `samples` into the epoch."""


class Epochs(ABC):
    """What our samplers share: the seed, the epoch to come, and where in it to start.

    `set_epoch` names the epoch of the next pass. A complete pass moves on to the next epoch, so that a loop written by
    hand shuffles anew each time.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.epoch = 0
        self._start = 0

    @property
    @abstractmethod
    def samples_per_epoch(self) -> int:
        """How many samples an epoch has, over all ranks."""

    def set_epoch(self, epoch: int) -> None:
        """Name the epoch of the next pass."""
        self.epoch = epoch

    def seek(self, samples: int) -> None:
        """Start the next pass `samples` into the epoch; the passes after it are whole again."""
        self._start = _checked_start(samples, self.samples_per_epoch)

    def _take_start(self) -> int:
        start, self._start = self._start, 0
        return start

    def _turn(self, epoch: int) -> Iterator[Any]:
        """Move on to `epoch` when the iterator gets here; it yields nothing."""
        self.epoch = epoch
        yield from ()

    def _generator(self) -> torch.Generator:
        return torch.Generator(device="cpu").manual_seed(self.seed + self.epoch)


class EpochOrder(Epochs, Sampler[int]):
    """The base of our samplers of single samples: a subclass says in `order` what a whole epoch looks like.

    `order` must follow from `seed` and `epoch` alone.
    """

    @abstractmethod
    def order(self) -> torch.Tensor:
        """Return the indices of the whole epoch, as a vector of int64."""

    @property
    def samples_per_epoch(self) -> int:
        """The length of `order`."""
        return len(self)

    @abstractmethod
    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[int]:
        chunks = self._chunks(self._take_start())
        # Iterators of C all the way: a generator would cost a Python call for each sample.
        return chain(chain.from_iterable(map(torch.Tensor.tolist, chunks)), self._turn(self.epoch + 1))

    def _chunks(self, start: int) -> Iterable[torch.Tensor]:
        """Return the indices from the place `start` on, cut into pieces."""
        return torch.split(self.order()[start:], _CHUNK)


class SeededRandomSampler(EpochOrder, RandomSampler):
    """A random order: a function of `seed + epoch`.

    `replacement` and `num_samples` mean what they mean to torch's `RandomSampler`.

    `rule` says how the order is drawn. Up to `LISTED_UP_TO` samples it is "randperm": torch's permutation from a
    generator with that seed, as the original trains. Above, it is "keyed": each index is worked out from its place, so
    that an order of any length takes no memory and begins anywhere at once. A run that resumes keeps the rule that it
    began with.
    """

    def __init__(
        self,
        data_source: Sized | int,
        seed: int,
        *,
        replacement: bool = False,
        num_samples: int | None = None,
    ) -> None:
        Epochs.__init__(self, seed)
        source = range(data_source) if isinstance(data_source, int) else data_source
        if len(source) == 0:
            raise DataError(
                "the dataset is empty: there is nothing to put in a random order; give it at least a sample"
            )
        RandomSampler.__init__(self, source, replacement, num_samples)
        self.rule: Rule = "randperm" if max(len(source), self.num_samples) <= LISTED_UP_TO else "keyed"

    def order(self) -> torch.Tensor:
        """Return the order of this epoch in one piece, whatever the rule."""
        if self.rule == "keyed":
            return torch.cat(list(self._chunks(0)))
        size, generator = len(self.data_source), self._generator()
        if not self.replacement and self.num_samples == size:
            return torch.randperm(size, generator=generator)
        drawn = RandomSampler(self.data_source, self.replacement, self.num_samples, generator)
        return torch.tensor(list(drawn), dtype=torch.int64)

    def _chunks(self, start: int) -> Iterable[torch.Tensor]:
        if self.rule == "randperm":
            return super()._chunks(start)
        keyed = KeyedOrder(len(self.data_source), self.seed + self.epoch, replacement=self.replacement)
        ends = range(start, self.num_samples, _CHUNK)
        return (keyed.between(place, min(place + _CHUNK, self.num_samples)) for place in ends)

    def __len__(self) -> int:
        return self.num_samples


class WeightedSeededSampler(EpochOrder):
    """Samples drawn by weight: `num_samples` an epoch, with the chances that `weights` have of their sum.

    The draw is torch's `multinomial` from a generator seeded with `seed + epoch`.
    """

    def __init__(
        self,
        weights: Sequence[float] | torch.Tensor,
        num_samples: int,
        seed: int,
        *,
        replacement: bool = True,
    ) -> None:
        super().__init__(seed)
        self.weights = torch.as_tensor(weights, dtype=torch.float64)
        self.num_samples = num_samples
        self.replacement = replacement
        complaint = self._complaint()
        if complaint is not None:
            raise DataError(complaint)

    def _complaint(self) -> str | None:
        if self.weights.ndim != 1:
            return f"weights of shape {tuple(self.weights.shape)}; give one weight for each sample"
        if not bool(torch.isfinite(self.weights).all()) or bool((self.weights < 0).any()):
            return "some weights are negative or not finite; give 0 or a positive number for each sample"
        if self.num_samples < 1:
            return f"num_samples={self.num_samples}; give 1 or more"
        positive = int(self.weights.count_nonzero())
        if positive == 0 or (not self.replacement and self.num_samples > positive):
            return (
                f"num_samples={self.num_samples} with {positive} weights above 0; "
                "give more samples a weight, draw fewer, or draw with replacement=True"
            )
        return None

    def order(self) -> torch.Tensor:
        """Return what is drawn for this epoch."""
        return torch.multinomial(self.weights, self.num_samples, self.replacement, generator=self._generator())

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
