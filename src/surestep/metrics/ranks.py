"""What metrics need of the ranks of a run."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from surestep.runtime.world import World


class Ranks(Protocol):
    """What brings the ranks of a run together."""

    @property
    def world(self) -> World:
        """This process's place among them."""

    def gather(self, value: Any, *, padding: int = -100) -> Any:
        """Return the samples of all ranks from a nested structure of tensors; None from a rank that has none.

        Shorter second dimensions are filled up with `padding`.
        """

    def gather_objects(self, value: Any) -> list[Any]:
        """Return the object of every rank, by rank; it must pickle, and does not leave the run."""

    def agree(self, number: int) -> list[int]:
        """Return a number from every rank."""


def summed(value: Tensor | None, ranks: Ranks) -> Tensor | None:
    """Return the sum of a tensor over the ranks that have one, on each rank; None where none has."""
    everyone = ranks.gather(None if value is None else value[None])
    return None if everyone is None else everyone.sum(0)


def exact(values: Tensor) -> Tensor:
    """Return `values` in float64, on the host where the device has none of it."""
    return values.cpu().double() if values.device.type == "mps" else values.double()
