"""Orders that heed the lengths of samples: like ones together, or batches of about equal cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain
from typing import Any

import torch
from torch.utils.data import Sampler

from surestep.data.samplers import EpochOrder, Epochs
from surestep.data.sources import as_dataset
from surestep.errors import ArgumentError, DataError


def lengths_of(dataset: Any, column: str = "length", model_input_name: str | None = None) -> list[int]:
    """Return the length of each sample: from the `column` of a table, else of the sample's `model_input_name`.

    `model_input_name` is "input_ids" unless given. Raises `DataError` where the samples have no such name.
    """
    dataset = as_dataset(dataset)
    name = model_input_name or "input_ids"
    columns = getattr(dataset, "column_names", None) or ()
    if column in columns:
        return [int(length) for length in dataset[column]]
    if name in columns:
        return [len(value) for value in dataset[name]]
    first = dataset[0]
    if not isinstance(first, Mapping) or name not in first:
        raise DataError(
            f"the samples have no {name!r} to measure; give the dataset a column {column!r} (length_column_name) with "
            "the lengths, or set train_sampling_strategy='random'"
        )
    return [len(dataset[index][name]) for index in range(len(dataset))]


def default_window(num_samples: int, batch_size: int) -> int:
    """Return the samples that are sorted together: 50 batches, fewer so that there are four windows."""
    return batch_size * max(min(num_samples // (batch_size * 4), 50), 1)


def grouped(permutation: torch.Tensor, lengths: torch.Tensor, window: int) -> torch.Tensor:
    """Return `permutation` with each of its windows sorted from long to short, the longest sample of all first."""
    windows = torch.split(permutation, window)
    order = torch.cat([one[lengths[one].sort(descending=True, stable=True).indices] for one in windows])
    # The longest of each window leads it.
    longest = int(lengths[order[::window]].argmax()) * window
    order[0], order[longest] = order[longest].item(), order[0].item()
    return order


class LengthGroupedSampler(EpochOrder):
    """A random order whose neighbours are of about one length, the longest sample first.

    The permutation is cut into windows, and each is sorted from long to short; the longest sample of all comes first,
    so that memory runs out at the start or never. The lengths, one a sample, are given or measured (`lengths_of`);
    `batch_size` is the samples of a whole step. `window`, in samples, is by default what the original takes: 50
    batches, fewer so that there are four windows. It decides the order, so an epoch that goes on with another batch
    size must keep the window that it began with: `kept` holds it by epoch.

    With a `seed` an epoch's permutation is drawn from a generator seeded with `seed + epoch`. Without one the seed is
    torch's, and the generator first gives a number away: the original draws its training order from the global
    generator, after its loader has drawn one for the workers, so the first epoch is the same.
    """

    def __init__(
        self,
        batch_size: int,
        dataset: Any = None,
        lengths: Sequence[int] | torch.Tensor | None = None,
        model_input_name: str | None = None,
        *,
        seed: int | None = None,
        window: int | None = None,
    ) -> None:
        super().__init__(torch.initial_seed() if seed is None else seed)
        if lengths is None:
            lengths = lengths_of(dataset, model_input_name=model_input_name)
        self.lengths = torch.as_tensor(lengths, dtype=torch.int64)
        if self.lengths.ndim != 1 or len(self.lengths) == 0:
            raise DataError(f"lengths of shape {tuple(self.lengths.shape)}; give one length for each sample")
        self.window = window or default_window(len(self.lengths), batch_size)
        self.kept: dict[int, int] = {}
        self._gives_away = seed is None

    def order(self) -> torch.Tensor:
        """Return the grouped permutation of this epoch."""
        generator = self._generator()
        if self._gives_away:
            torch.empty((), dtype=torch.int64).random_(generator=generator)
        return grouped(torch.randperm(len(self), generator=generator), self.lengths, self.window_of(self.epoch))

    def window_of(self, epoch: int) -> int:
        """Return the window of an epoch."""
        return self.kept.get(epoch, self.window)

    def __len__(self) -> int:
        return len(self.lengths)


class BatchRebalanceSampler(Epochs, Sampler[list[int]]):
    """A batch sampler that spreads each step's samples over ranks and micro-batches by what they cost.

    Each `effective_batch_size` samples of the (shuffled) order make a step. Sorted by length, they are cut into
    `dp_size * grad_accum` groups of nearly equal cost, and the groups are dealt out dearest first: the first micro-
    batch of every rank, then the second, and so on. Every rank works out the same and yields its own `grad_accum`
    batches of a step. A group of n samples padded to the longest, L tokens, costs n * (L + 0.001 * L * L): the linear
    layers and the attention.

    Without `drop_last` the samples left at the end of an epoch make a last step; if they are fewer than the groups,
    there are as many groups as samples, and no sample comes twice.
    """

    QUADRATIC_COST_COEF = 0.001

    def __init__(
        self,
        lengths: Sequence[int],
        effective_batch_size: int,
        dp_size: int,
        grad_accum: int,
        shuffle: bool = True,
        seed: int = 42,
        rank: int = 0,
        drop_last: bool = True,
    ) -> None:
        super().__init__(seed)
        if min(dp_size, grad_accum) < 1 or effective_batch_size < dp_size * grad_accum:
            raise ArgumentError(
                f"effective_batch_size={effective_batch_size} for {dp_size} ranks of {grad_accum} micro-batches each; "
                "give at least one sample for each"
            )
        self.lengths = list(lengths)
        self.effective_batch_size = effective_batch_size
        self.dp_size = dp_size
        self.grad_accum = grad_accum
        self.shuffle = shuffle
        self.rank = rank
        self.drop_last = drop_last

    @property
    def samples_per_epoch(self) -> int:
        """The samples of all ranks, with those that `drop_last` drops."""
        return len(self.lengths)

    def samples_before(self, batches: int) -> int | None:
        """Return the samples of all ranks in so many batches; None inside a step, where they lie in no order."""
        steps, inside = divmod(batches, self.grad_accum)
        return None if inside else steps * self.effective_batch_size

    @property
    def samples_per_round(self) -> int:
        """The samples of a micro-batch of every rank, one with the other."""
        return self.effective_batch_size // self.grad_accum

    def __len__(self) -> int:
        return self.batches_from(0)

    def batches_from(self, samples: int) -> int:
        """Return this rank's batches behind the first `samples` of the order, which end a step."""
        steps, tail = divmod(max(len(self.lengths) - samples, 0), self.effective_batch_size)
        # Of the groups of a small tail, those that fall to this rank.
        last = 0 if self.drop_last else len(range(self.rank, min(tail, self.dp_size * self.grad_accum), self.dp_size))
        return steps * self.grad_accum + last

    def __iter__(self) -> Iterator[list[int]]:
        return (batch for _, batch in self.placed())

    def placed(self, first: int = 0) -> Iterator[tuple[int, list[int]]]:
        """Yield the batches with the places of their first samples, each step's samples taken from long to short.

        `first` is where a sampler that was sought begins.
        """
        del first  # it knows
        size, start = len(self.lengths), self._take_start()
        order = torch.randperm(size, generator=self._generator()).tolist() if self.shuffle else list(range(size))
        end = size - (size - start) % self.effective_batch_size if self.drop_last else size
        steps = range(start, end, self.effective_batch_size)
        batches = (self._batches(place, order[place : place + self.effective_batch_size]) for place in steps)
        return chain(chain.from_iterable(batches), self._turn(self.epoch + 1))

    def _batches(self, place: int, step: Sequence[int]) -> list[tuple[int, list[int]]]:
        """Return this rank's batches of a step, the first sample of which has its place in the epoch."""
        ordered = sorted(step, key=self.lengths.__getitem__, reverse=True)
        groups = min(len(step), self.dp_size * self.grad_accum)
        balance = _Balance([self.lengths[index] for index in ordered], groups, self.dp_size, self._cost)
        counts = balance.counts(max(groups * 30, self.effective_batch_size))
        bounds = [0, *accumulate(counts)]
        ranked = balance.dearest_first(balance.costs(counts))
        mine = ranked[self.rank :: self.dp_size]
        return [(place + bounds[group], ordered[bounds[group] : bounds[group + 1]]) for group in mine]

    def _cost(self, samples: int, longest: int) -> float:
        return samples * longest + self.QUADRATIC_COST_COEF * samples * longest * longest


class _Balance:
    """The cut of a step, sorted from long to short, into groups: how many samples each has.

    Hill climbing: again and again the dearest group gives a sample to the cheapest. A group of one sample can give
    none; then the groups that run beside it (its slot) are filled up as far as they stay below it, and all of them
    are settled. The samples lie in a row, so giving one away moves the borders of the groups between.
    """

    def __init__(self, lengths: Sequence[int], groups: int, slot_size: int, cost: Callable[[int, int], float]) -> None:
        self._lengths = lengths
        self._groups = groups
        self._slot_size = slot_size
        self._cost = cost
        self._settled: set[int] = set()

    def counts(self, rounds: int) -> list[int]:
        """Return the best counts seen in at most `rounds` rounds."""
        base, more = divmod(len(self._lengths), self._groups)
        counts = [base + (group < more) for group in range(self._groups)]
        best, best_spread, seen = list(counts), float("inf"), set[tuple[int, ...]]()
        for _ in range(rounds):
            open_groups = [group for group in range(self._groups) if group not in self._settled]
            if tuple(counts) in seen or len(open_groups) <= 1:
                break
            seen.add(tuple(counts))
            costs = self.costs(counts)
            dearest, cheapest = max(open_groups, key=costs.__getitem__), min(open_groups, key=costs.__getitem__)
            spread = costs[dearest] - costs[cheapest]
            if spread < best_spread:
                best, best_spread = list(counts), spread
            if spread == 0:
                break
            if counts[dearest] > 1:
                counts[dearest] -= 1
                counts[cheapest] += 1
            else:
                self._settle(counts, costs, dearest)
        return best

    def costs(self, counts: Sequence[int]) -> list[float]:
        """Return what each group costs; its first sample is its longest."""
        starts = accumulate(counts, initial=0)
        return [self._cost(count, self._lengths[start]) for count, start in zip(counts, starts, strict=False)]

    def dearest_first(self, costs: Sequence[float]) -> list[int]:
        """Return the groups by falling cost."""
        return sorted(range(self._groups), key=costs.__getitem__, reverse=True)

    def _settle(self, counts: list[int], costs: Sequence[float], dearest: int) -> None:
        """Fill the groups beside `dearest` from cheaper ones, up to its cost, and settle the slot."""
        ranked = self.dearest_first(costs)
        slot_start = ranked.index(dearest) // self._slot_size * self._slot_size
        slot = set(ranked[slot_start : slot_start + self._slot_size])
        # In the set's own order, which is also the original's.
        for group in [group for group in slot if group not in self._settled and group != dearest]:
            while self._cost(counts[group] + 1, self._lengths[sum(counts[:group])]) <= costs[dearest]:
                donors = self._donors(counts, slot)
                if not donors:
                    break
                donor = min(donors, key=self.costs(counts).__getitem__)
                counts[group] += 1
                counts[donor] -= 1
        self._settled |= slot

    def _donors(self, counts: Sequence[int], slot: Iterable[int]) -> list[int]:
        closed = self._settled.union(slot)
        return [group for group in range(self._groups) if group not in closed and counts[group] > 1]
