"""How a loader cuts an epoch into batches, or what is left of one: also with another batch size than before.

A position is counted in samples over all ranks. `Cutting` knows what of a loader decides how many batches come after
it, and whether the loader can begin there at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from surestep.data.ranks import RankBatches, RankStream, is_shared_out, knows_ranks

if TYPE_CHECKING:
    from surestep.data.grouping import LengthGroupedSampler


@runtime_checkable
class Rounds(Protocol):
    """A batch sampler of ours: it knows the samples of a batch on every rank, and how many such come after a place."""

    @property
    def samples_per_round(self) -> int:
        """The samples of a full round, over all ranks."""

    def batches_from(self, samples: int) -> int:
        """Return the batches left behind the first `samples` of the order."""


@dataclass(frozen=True, slots=True)
class Cutting:
    """The cuts of one loader, of which each of `ranks` processes has one like it."""

    loader: Any
    ranks: int = 1

    @property
    def samples_per_batch(self) -> int | None:
        """The samples of a full batch, over all ranks; None where the batches are those of a sampler of the user's."""
        if self._stream is not None:
            size = self.loader.batch_size
            return None if size is None else size * self.ranks
        batches: Any = getattr(self.loader, "batch_sampler", None)
        if isinstance(batches, Rounds):
            return batches.samples_per_round
        # A loader of the user's that every rank reads from end to end is none that anybody cuts.
        cut = type(batches) is BatchSampler and (self.ranks == 1 or knows_ranks(batches.sampler))
        return batches.batch_size * self.ranks if cut else None

    def batches_from(self, samples: int) -> int | None:
        """Return how many batches come behind the first `samples` of an epoch; None where nothing tells."""
        batches: Any = getattr(self.loader, "batch_sampler", None)
        if isinstance(batches, Rounds):
            return batches.batches_from(samples)
        order: Any = self._stream if self._stream is not None else getattr(batches, "sampler", None)
        if type(batches) is not BatchSampler or not hasattr(order, "__len__"):
            return None
        left = max(len(order) - self._own(samples), 0)
        return left // batches.batch_size if batches.drop_last else -(-left // batches.batch_size)

    def batches_of(self, size: int) -> int | None:
        """Return how many batches of so many samples, over all ranks, an epoch would have; None where nothing tells."""
        batches: Any = getattr(self.loader, "batch_sampler", None)
        plain = type(batches) is BatchSampler or isinstance(batches, RankBatches)
        if self._stream is not None or self._shared_by_itself or not plain:
            return None
        return len(batches.sampler) // size if batches.drop_last else -(-len(batches.sampler) // size)

    def obstacle(self, *, other_size: bool, other_ranks: bool) -> str | None:
        """Say why the loader cannot go on behind batches of another size, or of other ranks."""
        if not (other_size or other_ranks):
            return None
        if self.samples_per_batch is None:
            batches = getattr(self.loader, "batch_sampler", None)
            maker = self.loader if batches is None else batches
            return f"the batches are those of {type(maker).__name__}, of which nobody else knows the sizes"
        if self._stream is not None and self.loader.num_workers:
            return f"the training set is a stream, which dataloader_num_workers={self.loader.num_workers} read in parts"
        if other_ranks and self._shared_by_itself:
            shares = self._stream if self._stream is not None else self.loader.sampler
            return f"{type(shares).__name__} shares the samples out by itself"
        return None

    def window(self, epoch: int) -> int | None:
        """Return the samples that an order by length sorts together in an epoch; None where there is no such order."""
        sampler = self._grouped
        return None if sampler is None else sampler.window_of(epoch)

    def keep_window(self, epoch: int, window: int | None) -> None:
        """Have an order by length sort so many samples together in one epoch, as it began."""
        sampler = self._grouped
        if sampler is not None:
            sampler.kept = {} if window in (None, sampler.window) else {epoch: window}

    @property
    def _grouped(self) -> LengthGroupedSampler | None:
        sampler: Any = getattr(getattr(self.loader, "batch_sampler", None), "sampler", None)
        return sampler if hasattr(sampler, "window_of") else None

    @property
    def _stream(self) -> Any:
        plain = isinstance(self.loader, DataLoader) and isinstance(self.loader.dataset, IterableDataset)
        return self.loader.dataset if plain else None

    @property
    def _shared_by_itself(self) -> bool:
        """Whether the loader holds the samples of its own rank alone."""
        stream = self._stream
        if stream is not None:
            return is_shared_out(stream) or (self.ranks > 1 and not isinstance(stream, RankStream))
        return self.ranks > 1 and type(getattr(self.loader, "batch_sampler", None)) is BatchSampler

    def _own(self, samples: int) -> int:
        """Return how many of the first `samples` of all ranks this loader holds."""
        return samples // self.ranks if self._shared_by_itself else samples
