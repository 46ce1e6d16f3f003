"""How samples are grouped into batches and steps, and which part of an epoch is cut that way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Grouping:
    """The samples of a batch over all `ranks`, and the batches of a step."""

    samples: int
    accumulation: int = 1
    ranks: int = 1

    def __str__(self) -> str:
        per_rank = self.samples // self.ranks
        processes = f"{self.ranks} process{'es' * (self.ranks > 1)}"
        return f"{per_rank} samples a batch, gradient_accumulation_steps={self.accumulation}, {processes}"


@dataclass(slots=True)
class Stretch:
    """What of an epoch is cut into today's batches: all of it, unless their size changed in its middle.

    It has `batches` (micro-batches of a rank, the same number on all), of which `done` are behind. It begins with the
    sample `start` of the epoch, and `share` is the part of the epoch that lies before it.
    """

    batches: int
    start: int = 0
    share: float = 0.0
    done: int = 0

    @property
    def complete(self) -> bool:
        """Whether every batch is done."""
        return self.done >= self.batches

    @property
    def reached(self) -> float:
        """How far the epoch has come, from 0 to 1."""
        return self.share + (1 - self.share) * (self.done / self.batches) if self.batches else self.share

    def rest(self, samples: int, batches: int) -> Stretch:
        """Return what is left when `samples` of the epoch are done, cut anew into so many batches."""
        return Stretch(batches, start=samples, share=self.reached)

    def state_dict(self) -> dict[str, Any]:
        """Return the four numbers."""
        return asdict(self)

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Self:
        """Return what `state_dict` described."""
        return cls(**state)
